import { assertEquals } from "@std/assert";
import { compile } from "../../../kernels/core/kernel.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { type Candidate, createTuner } from "../../../kernels/core/tuner.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { prepareMatmul } from "../../../kernels/matmul/op.ts";
import { gpuTest, runAndRead, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const LOOP = `
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
  var sum = y[id.x];
  for (var n = 0u; n < TURNS; n++) { sum = fma(sum, 0.5, f32(n)); }
  y[id.x] = sum;
}`;

/** A candidate whose work is proportional to `turns`, and which counts how often it was prepared. */
function loop(gpu: Gpu, name: string, turns: number, prepared: string[]): Candidate {
  return {
    name,
    async prepare() {
      prepared.push(name);
      const kernel = await compile(gpu, { label: name, source: LOOP, constants: { TURNS: turns } });
      const y = gpu.tensor("y", [64]);
      return {
        record: (recorder) => recorder.dispatch(kernel, { y }, [8]),
        destroy: () => destroyTensor(gpu, y),
      };
    },
  };
}

gpuTest(
  "the candidate with a thousandth of the work is found, remembered, and not measured again",
  async (gpu) => {
    const prepared: string[] = [];
    const saved: ReadonlyMap<string, string>[] = [];
    const candidates = [loop(gpu, "slow", 4_000_000, prepared), loop(gpu, "fast", 4000, prepared)];
    const options = {
      seconds: 60,
      onFound: (known: ReadonlyMap<string, string>) => void saved.push(new Map(known)),
    };
    const tuner = createTuner({ known: new Map(), ...options });
    assertEquals(await tuner.choose(gpu, "loop", candidates), "fast");
    assertEquals(await tuner.choose(gpu, "loop", candidates), "fast");
    assertEquals(prepared, ["slow", "fast"]);
    assertEquals(saved, [new Map([["loop", "fast"]])]);
    const later = createTuner({ known: saved[0], ...options });
    assertEquals(await later.choose(gpu, "loop", candidates), "fast");
    assertEquals(prepared.length, 2);
  },
);

gpuTest(
  "a name that is no candidate any more is measured anew; without time nothing is measured",
  async (gpu) => {
    const prepared: string[] = [];
    const candidates = [loop(gpu, "one", 10, prepared)];
    const known = new Map([["loop", "gone"]]);
    const tuner = createTuner({ known, seconds: 60, onFound: () => {} });
    assertEquals(await tuner.choose(gpu, "loop", candidates), "one");
    const hasty = createTuner({ known, seconds: 0, onFound: () => {} });
    assertEquals(await hasty.choose(gpu, "loop", candidates), undefined);
    assertEquals(prepared, ["one"]);
  },
);

gpuTest("a candidate that fails is told to who asked, and the next is measured all the same", async (gpu) => {
  const tuner = createTuner({ known: new Map(), seconds: 60, onFound: () => {} });
  const failing: Candidate = { name: "failing", prepare: () => Promise.reject(new Error("no such thing")) };
  const first = tuner.choose(gpu, "a", [failing]).then(() => "found", (error) => error.message);
  const second = tuner.choose(gpu, "b", [loop(gpu, "one", 10, [])]);
  assertEquals(await first, "no such thing");
  assertEquals(await second, "one");
});

gpuTest("a tuned product has the bits of an untuned one, and small ones are not measured", async (gpu) => {
  // On a CPU driver the rule finds both tiles about as good for this shape, on a GPU several.
  const [m, n, k] = [136, 192, 1024];
  const t = {
    a: upload(gpu, "a", normals(1, m * k)),
    b: upload(gpu, "b", normals(2, k * n)),
    c: gpu.tensor("c", [m, n]),
  };
  const product = async () => {
    const op = await prepareMatmul(gpu, { layout: "nn", m, n, k });
    return await runAndRead(gpu, t.c, (recorder) => op.record(recorder, t));
  };
  const untuned = await product();
  const keys: string[] = [];
  try {
    gpu.tuner = createTuner({
      known: new Map(),
      seconds: 60,
      onFound: (known) => void keys.push(...known.keys()),
    });
    assertEquals(await product(), untuned);
    await prepareMatmul(gpu, { layout: "nn", m: 64, n: 64, k: 64 });
    assertEquals(keys, ["matmul nn 136 x 192 x 1024 rows of 1024, 192"]);
  } finally {
    gpu.tuner = undefined;
  }
});
