import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { storeInHalf } from "../../../kernels/core/half.ts";
import { compile } from "../../../kernels/core/kernel.ts";
import { slicesOf, within } from "../../../kernels/core/tensor.ts";
import { prepareGelu } from "../../../kernels/gelu/op.ts";
import { geluGradientReference, geluReference } from "../../../kernels/gelu/reference.ts";
import { prepareLayerNorm } from "../../../kernels/layer_norm/op.ts";
import { layerNormReference } from "../../../kernels/layer_norm/reference.ts";
import { roundingReference } from "../../../kernels/rounding/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const TRIPLE = `
@group(0) @binding(0) var<storage, read> x: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) {
  let order = array<u32, 2>(1u, 0u);
  y[order[id.x]] = 3.0 * x[order[id.x]];
}`;

gpuTest("a kernel written for float32 reads and writes tensors of float16 as it is compiled", async (gpu) => {
  const values = Float32Array.of(1, 2, 3, 4, 0.1, 0.2, 30000, -30000);
  for (const half of [[], ["x"], ["y"], ["x", "y"]]) {
    const kernel = await compile(gpu, { label: "triple", source: TRIPLE, half });
    const of = (name: string) => half.includes(name) ? "f16" : "f32";
    const [x, y] = ["x", "y"].map((name) => gpu.tensor(name, [8], of(name)));
    gpu.write(x, values);
    gpu.submit("tripling", (recorder) => recorder.dispatch(kernel, { x, y }, [2]));
    const read = half.includes("x") ? [...roundingReference(values)] : [...values];
    // 0.1 and 0.2 as float32 or float16 times 3 in float32; past 65504 stands 65504.
    const product = read.map((value) => Math.fround(3 * Math.fround(value)));
    assertEquals([...await gpu.read(y)], half.includes("y") ? [...roundingReference(product)] : product);
  }
});

gpuTest("what is no number is stored as none in float16, and infinity as the largest number", async (gpu) => {
  const kernel = await compile(gpu, { label: "triple", source: TRIPLE, half: ["y"] });
  const [x, y] = [gpu.tensor("x", [8]), gpu.tensor("y", [8], "f16")];
  // NaN of either sign, quiet and not, in each place of a vector.
  const nan = [0x7fc00000, 0xffc00000, 0x7f800001, 0xffffffff].map((bits, n) =>
    new Float32Array(Uint32Array.from({ length: 4 }, (_, at) => at === n ? bits : 0x3f800000).buffer)
  );
  for (const [n, values] of nan.entries()) {
    gpu.write(x, Float32Array.of(0, 0, 0, 0, Infinity, -Infinity, 1e5, -3e38));
    // As bits: a float would not keep which NaN it is on its way here.
    gpu.write(within(x, "bits", [4], "u32"), new Uint32Array(values.buffer));
    gpu.submit("tripling", (recorder) => recorder.dispatch(kernel, { x, y }, [2]));
    const expected = [...values.map((_, at) => at === n ? NaN : 3), 65504, -65504, 65504, -65504];
    assertEquals([...await gpu.read(y)], expected);
  }
});

gpuTest("a tensor of another type than the kernel was compiled for is refused", async (gpu) => {
  const kernel = await compile(gpu, { label: "triple", source: TRIPLE, half: ["x"] });
  const [single, half] = [gpu.tensor("single", [8]), gpu.tensor("half", [8], "f16")];
  assertThrows(() => kernel.bind({ x: single, y: single }), RangeError, "x must be f16: f32");
  assertThrows(() => kernel.bind({ x: half, y: half }), RangeError, "y must not be f16: f16");
});

Deno.test("a source that uses the variable in another way is refused", () => {
  const of = (body: string, element = "vec4f") => () =>
    storeInHalf(`@group(0) @binding(0) var<storage, read_write> y: array<${element}>;\n${body}`, ["y"]);
  assertStringIncludes(of("y[a[i]] = b;")(), "y[a[i]] = pack_half(b);");
  assertStringIncludes(of("let y_0 = my.y[0] + y[i].x;")(), "my.y[0] + unpack_half(y[i]).x");
  assertStringIncludes(of("let e = y[i] == z;")(), "unpack_half(y[i]) == z");
  assertThrows(of("y[i] += b;"), SyntaxError, "assigned as a whole: y[i] +=");
  assertThrows(of("y[i] = y[j];"), SyntaxError, "written from other variables: y[j]");
  assertThrows(of("", "f32"), SyntaxError, "an array of vec4f: var<storage, read_write> y: array<f32>");
  assertThrows(
    of("", "ELEMENT"),
    SyntaxError,
    "an array of vec4f: var<storage, read_write> y: array<ELEMENT>",
  );
  assertThrows(() => storeInHalf("", ["y"]), SyntaxError, "storage array y: it is not declared");
});

gpuTest("rows, copies and reads of float16 tensors count two bytes an element", async (gpu) => {
  const t = gpu.tensor("t", [4, 64], "f16");
  gpu.write(t, Float32Array.of(1, 2), 64);
  assertEquals([...await gpu.read(t, 64, 2)], [1, 2]);
  const copy = gpu.tensor("copy", [4, 64], "f16");
  gpu.submit("copying", (recorder) => recorder.copy(within(t, "start", [128], "f16"), copy, 128));
  assertEquals([...await gpu.read(copy, 192, 2)], [1, 2]);
  assertThrows(() => within(t, "single", [256]), RangeError, "that has 512 bytes: 1024");
  for (const { start } of slicesOf(1000, 12, 4096, { smallest: 2 })) assert((2 * 12 * start) % 256 === 0);
});

gpuTest("layer norm and GELU with results in half precision are those in single, rounded", async (gpu) => {
  const [rows, width] = [5, 12];
  const [x, weight, bias] = [normals(1, rows * width), normals(2, width), normals(3, width)];
  const op = await prepareLayerNorm(gpu, { rows, width, epsilon: 1e-5, half: true });
  const t = {
    x: upload(gpu, "x", x),
    weight: upload(gpu, "weight", weight),
    bias: upload(gpu, "bias", bias),
    y: gpu.tensor("y", [rows, width], "f16"),
    statistics: gpu.tensor("statistics", [rows, 2]),
  };
  gpu.submit("layer norm", (recorder) => op.forward(recorder, t));
  // Half a unit in float16's last place is 2^-11 of a value, 4.9e-4.
  assertClose(await gpu.read(t.y), layerNormReference(x, weight, bias, 1e-5), { tolerance: 5e-4, name: "y" });

  const rounded = roundingReference(x);
  const gelu = await prepareGelu(gpu, { length: rows * width, half: true });
  const pre = gpu.tensor("pre", [rows * width], "f16");
  gpu.write(pre, x);
  const post = gpu.tensor("post", [rows * width], "f16");
  const [dy, dx] = [upload(gpu, "dy", normals(4, rows * width)), gpu.tensor("dx", [rows * width])];
  gpu.submit("gelu", (recorder) => {
    gelu.forward(recorder, { x: pre, y: post });
    gelu.backward(recorder, { x: pre, dy, dx });
  });
  assertClose(await gpu.read(post), geluReference(rounded), { tolerance: 5e-4, name: "GELU" });
  // Backward rounds nothing but x: measured 2.1e-7.
  const gradient = geluGradientReference(rounded, normals(4, rows * width));
  assertClose(await gpu.read(dx), gradient, { tolerance: 2e-6, name: "dx" });
});

gpuTest("an odd width cannot be stored in half precision", async (gpu) => {
  await assertRejects(
    () => prepareLayerNorm(gpu, { rows: 2, width: 5, epsilon: 1e-5, half: true }),
    SyntaxError,
    "array<ELEMENT>",
  );
});
