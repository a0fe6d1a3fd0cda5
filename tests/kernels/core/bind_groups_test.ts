import { assert, assertEquals } from "@std/assert";
import { compile } from "../../../kernels/core/kernel.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { createUniform } from "../../../kernels/core/uniform.ts";
import { assertLeavesNothing } from "../../support/device_memory.ts";
import { gpuTest, runAndRead, upload } from "../../support/gpu.ts";

const SCALE = `
struct Factor { value: f32 }
@group(0) @binding(0) var<uniform> factor: Factor;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) {
  y[id.x] = factor.value * x[id.x];
}`;

gpuTest("a kernel's bind group is made once for its buffers, and goes when any of them does", async (gpu) => {
  const [scale, other] = await Promise.all(
    ["scale", "another scale"].map((label) => compile(gpu, { label, source: SCALE })),
  );
  const uniform = createUniform(gpu, "factor", [["value", "f32"]]);
  const factor = uniform.tensor;
  const [x, one, two] = ["x", "one", "two"].map((label) => gpu.tensor(label, [4]));
  const before = gpu.bindGroups.size;
  const added = () => gpu.bindGroups.size - before;
  const group = scale.bind({ factor, x, y: one });
  assertEquals(scale.bind({ factor, x, y: one }), group);
  assertEquals(added(), 1);
  const kept = scale.bind({ factor, x, y: two });
  assert(other.bind({ factor, x, y: two }) !== kept, "a group belongs to its kernel");
  assertEquals(added(), 3);

  destroyTensor(gpu, one);
  assertEquals(added(), 2);
  assertEquals(scale.bind({ factor, x, y: two }), kept);
  const three = gpu.tensor("three", [4]);
  scale.bind({ factor, x, y: three });
  assertEquals(added(), 3);
  uniform.destroy();
  assertEquals(added(), 0);
  for (const tensor of [x, two, three]) destroyTensor(gpu, tensor);
});

gpuTest("a buffer that outlives a hundred others is bound to each and remembers none", async (gpu) => {
  const scale = await compile(gpu, { label: "scale", source: SCALE });
  const uniform = createUniform(gpu, "factor", [["value", "f32"]]);
  uniform.set({ value: 3 });
  const x = upload(gpu, "x", Float32Array.of(1, 2));
  for (let n = 0; n < 100; n++) {
    await assertLeavesNothing(gpu, async () => {
      const y = gpu.tensor("y", [2]);
      const values = await runAndRead(
        gpu,
        y,
        (recorder) => recorder.dispatch(scale, { factor: uniform.tensor, x, y }, [2]),
      );
      assertEquals([...values], [3, 6]);
      destroyTensor(gpu, y);
    });
  }
  uniform.destroy();
  destroyTensor(gpu, x);
});

gpuTest("a uniform's bytes are counted while it lives", async (gpu) => {
  const before = gpu.allocatedBytes;
  await assertLeavesNothing(gpu, () => {
    const fields = ["a", "b", "c", "d", "e"].map((name) => [name, "f32"] as const);
    const uniform = createUniform(gpu, "five numbers", fields);
    assertEquals(gpu.allocatedBytes - before, 32);
    uniform.destroy();
    return Promise.resolve();
  });
});
