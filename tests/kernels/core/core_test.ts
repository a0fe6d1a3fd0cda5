import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { AdapterError } from "../../../kernels/core/gpu_adapters.ts";
import { DeviceError } from "../../../kernels/core/device.ts";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { elementwise } from "../../../kernels/core/elementwise.ts";
import { compile } from "../../../kernels/core/kernel.ts";
import { linearGrid, MAX_WORKGROUPS } from "../../../kernels/core/recorder.ts";
import { BINDING_ALIGNMENT, destroyTensor, reshape, rows, slicesOf } from "../../../kernels/core/tensor.ts";
import { createUniform } from "../../../kernels/core/uniform.ts";
import { unroll } from "../../../kernels/core/unroll.ts";
import { gpuTest } from "../../support/gpu.ts";

const DOUBLE = `
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = 2.0 * x[id.x]; }`;

gpuTest(
  "a shader that does not compile throws its label and why, with the numbered source behind",
  async (gpu) => {
    const source = DOUBLE.replace("2.0 * x[id.x]", "undefined_name");
    const error = await assertRejects(() => compile(gpu, { label: "broken double", source }), DeviceError);
    assertStringIncludes(error.message, "broken double");
    assertStringIncludes(error.message, "undefined_name");
    assertEquals(error.message.split("\n").length, 1, "one line");
    const { message } = error.cause as Error;
    assert(/\n\s+\d+ \| .*undefined_name/.test(message), "the source stands there with line numbers");
    gpu.check();
  },
);

gpuTest("a kernel is compiled once for the same source and constants", async (gpu) => {
  const constants = { N: 3 };
  assertEquals(
    compile(gpu, { label: "double", source: DOUBLE, constants }),
    compile(gpu, { label: "double", source: DOUBLE, constants }),
  );
  const [a, b] = await Promise.all([
    compile(gpu, { label: "double", source: DOUBLE, constants }),
    compile(gpu, { label: "double", source: DOUBLE, constants: { N: 4 } }),
  ]);
  assert(a !== b);
});

gpuTest("bindings go by name: a missing, an unknown and a too large one are refused", async (gpu) => {
  const kernel = await compile(gpu, { label: "double", source: DOUBLE });
  const x = gpu.tensor("x", [4]);
  assertThrows(() => kernel.bind({ x }), RangeError, "needs y");
  assertThrows(() => kernel.bind({ x, y: gpu.tensor("y", [4]), z: x }), RangeError, "declares no z");
  const small = await Gpu.open({ maxBindingBytes: 1024 });
  try {
    const smallKernel = await compile(small, { label: "double", source: DOUBLE });
    const large = small.tensor("large", [512]);
    assertThrows(() => smallKernel.bind({ x: large, y: small.tensor("y", [4]) }), RangeError, "large");
  } finally {
    small.close();
  }
});

gpuTest(
  "more workgroups along an axis than a grid holds are refused, with the kernel's name",
  async (gpu) => {
    const kernel = await compile(gpu, { label: "double", source: DOUBLE });
    const tensors = { x: gpu.tensor("x", [4]), y: gpu.tensor("y", [4]) };
    gpu.write(tensors.x, Float32Array.of(1, 2, 3, 4));
    gpu.submit("most", (recorder) => recorder.dispatch(kernel, tensors, [4, 1, MAX_WORKGROUPS]));
    assertEquals([...await gpu.read(tensors.y)], [2, 4, 6, 8]);
    for (const grid of [[MAX_WORKGROUPS + 1], [1, MAX_WORKGROUPS + 1], [1, 1, MAX_WORKGROUPS + 1]] as const) {
      assertThrows(
        () => gpu.submit("too many", (recorder) => recorder.dispatch(kernel, tensors, grid)),
        RangeError,
        `Cannot run double as a grid holds 65535 workgroups along an axis: ${grid.join(" x ")}`,
      );
    }
  },
);

gpuTest("what is written is read, also in parts, and a write past the end is refused", async (gpu) => {
  const tensor = gpu.tensor("t", [5]);
  gpu.write(tensor, Float32Array.of(1, 2), 3);
  assertEquals([...await gpu.read(tensor)], [0, 0, 0, 1, 2]);
  assertThrows(() => gpu.write(tensor, Float32Array.of(1, 2), 4), RangeError, "its length is 5");
  const words = gpu.tensor("w", [2], "u32");
  gpu.write(words, Uint32Array.of(0xffffffff, 7));
  assertEquals([...await gpu.readUint32(words)], [0xffffffff, 7]);
});

Deno.test("elements are vectors of four only where every extent is a multiple of 4", () => {
  const of = ({ alias, width, elements }: ReturnType<typeof elementwise>) =>
    [alias.split("\n")[0], width, elements] as const;
  assertEquals(of(elementwise(12, 4, 0)), ["alias ELEMENT = vec4f;", 4, 3]);
  for (const extents of [[13], [12, 6], [12, 4, 2]]) {
    const [count, ...multiples] = extents;
    assertEquals(of(elementwise(count, ...multiples)), ["alias ELEMENT = f32;", 1, count]);
  }
});

gpuTest("a part of a tensor is read from any element, and a part past the end is refused", async (gpu) => {
  const tensor = gpu.tensor("counted", [300, 7]);
  gpu.write(tensor, Float32Array.from({ length: 2100 }, (_, n) => n));
  assertEquals(await gpu.read(tensor, 1001, 3), Float32Array.of(1001, 1002, 1003));
  await assertRejects(() => gpu.read(tensor, 2099, 2), RangeError, "its length is 2100: 2099 + 2 elements");
});

gpuTest("a tensor larger than what is read at once is read whole", async (gpu) => {
  const piece = (64 << 20) / 4;
  const tensor = gpu.tensor("large", [piece + 3]);
  gpu.write(tensor, Float32Array.of(1), 0);
  gpu.write(tensor, Float32Array.of(2, 3), piece - 1);
  gpu.write(tensor, Float32Array.of(4), piece + 2);
  const values = await gpu.read(tensor);
  destroyTensor(gpu, tensor);
  assertEquals([values.length, values[0], values[1]], [piece + 3, 1, 0]);
  assertEquals([...values.subarray(piece - 2)], [0, 2, 3, 0, 4]);
});

gpuTest("tensors of no or too many elements are refused", async (gpu) => {
  assertThrows(() => gpu.tensor("t", [0, 4]), RangeError, "positive integers");
  assertThrows(() => gpu.tensor("t", [2 ** 40]), RangeError, "the adapter's buffers hold");
  await gpu.sync();
});

gpuTest("rows are views at aligned bytes only", (gpu) => {
  const tensor = gpu.tensor("t", [8, 64]);
  assertEquals(rows(tensor, 2, 3).offset, 2 * 64 * 4);
  assertEquals(rows(tensor, 2, 3).shape, [3, 64]);
  assertThrows(() => rows(tensor, 7, 2), RangeError, "it has 8 rows");
  assertThrows(() => rows(gpu.tensor("u", [8, 3]), 1, 1), RangeError, "multiples of 256");
  assertThrows(() => reshape(tensor, [3, 3]), RangeError, "Cannot reshape");
  return Promise.resolve();
});

Deno.test("slices cover every row once, fit a binding and start aligned, at a multiple of four rows", () => {
  for (
    const [count, length, bytes] of [[50257, 768, 128 << 20], [61, 24, 16384], [1000, 3, 4096], [
      7,
      5,
      1 << 20,
    ]]
  ) {
    const slices = slicesOf(count, length, bytes);
    let next = 0;
    for (const slice of slices) {
      assertEquals(slice.start, next);
      assert(slice.count * length * 4 <= bytes);
      assertEquals(slice.start * length * 4 % BINDING_ALIGNMENT, 0);
      assertEquals(slice.start % 4, 0);
      next += slice.count;
    }
    assertEquals(next, count);
  }
  assertEquals(slicesOf(50257, 768, 128 << 20).length, 2, "GPT-2's embedding takes two portable bindings");
  assertThrows(() => slicesOf(10, 1 << 20, 4096), RangeError, "Cannot slice rows");
});

Deno.test("unrolling replaces the variable, nests, and takes bounds from constants", () => {
  const source = "a\n$for i in 0..N {\nlet x$i = $i;\n  $for j in 1..3 {\n  f($i, $j);\n  $}\n$}\nb";
  assertEquals(unroll(source, { N: 2 }).split("\n").map((line) => line.trim()), [
    "a",
    "let x0 = 0;",
    "f(0, 1);",
    "f(0, 2);",
    "let x1 = 1;",
    "f(1, 1);",
    "f(1, 2);",
    "b",
  ]);
  assertEquals(unroll("plain", {}), "plain");
  assertEquals(unroll("$for i in 0..0 {\nx\n$}", {}), "");
  assertThrows(() => unroll("$for i in 0..N {\n$}", {}), SyntaxError, "bound N");
  assertThrows(() => unroll("$for i in 0..2 {\nx", {}), SyntaxError, "not closed");
  assertThrows(() => unroll("$for i in 0..2 {\nx\n$}\n$}", {}), SyntaxError, "closes no block");
});

Deno.test("lines between $if and its end are there only where the flag is true", () => {
  const source = "a\n$if YES {\nb\n$for i in 0..2 {\nc$i\n$}\n$}\n$if NO {\nd\n$}\ne";
  assertEquals(unroll(source, { YES: true, NO: false }), "a\nb\nc0\nc1\ne");
  assertThrows(() => unroll(source, { YES: true }), SyntaxError, "NO must be true or false: undefined");
});

Deno.test("a grid never exceeds the portable number of workgroups", () => {
  assertEquals(linearGrid(1, 64), [1]);
  assertEquals(linearGrid(65, 64), [2]);
  assertEquals(linearGrid(1e9, 64), [65535]);
});

Deno.test("an operation that the device refuses throws a DeviceError that names it", async () => {
  const gpu = await Gpu.open();
  try {
    const [a, b] = [gpu.tensor("a", [8]), gpu.tensor("b", [4])];
    assertThrows(() => gpu.submit("copy", (recorder) => recorder.copy(a, b)), RangeError, "its length is 4");
    const half = gpu.tensor("half", [16], "f16");
    assertThrows(() => gpu.submit("copy", (recorder) => recorder.copy(a, half)), RangeError, "are f16: f32");
    gpu.submit("copying too much", (recorder) => recorder.copyToBuffer(a, b.buffer));
    const error = await assertRejects(() => gpu.sync(), DeviceError);
    assertStringIncludes(error.message, "copying too much");
    assertThrows(() => gpu.submit("anything after", () => {}), DeviceError, "copying too much");
  } finally {
    gpu.close();
  }
});

Deno.test("a device that is ended has done what was at work; one that was lost or closed ends too", async () => {
  const gpu = await Gpu.open();
  const [from, to] = [gpu.tensor("from", [1 << 22]), gpu.tensor("to", [1 << 22])];
  gpu.submit("much to do", (recorder) => {
    for (let n = 0; n < 50; n++) recorder.copy(from, to);
  });
  let done = false;
  const work = gpu.device.queue.onSubmittedWorkDone().then(() => done = true, () => {});
  await gpu.end();
  assert(done, "it was waited for");
  await work;
  await gpu.end();
  const lost = await Gpu.open();
  lost.device.destroy();
  await lost.end();
});

Deno.test("a lost device throws a DeviceError from whatever is done next", async () => {
  const gpu = await Gpu.open();
  const tensor = gpu.tensor("t", [4]);
  gpu.device.destroy();
  await gpu.device.lost;
  await Promise.resolve();
  assertThrows(() => gpu.check(), DeviceError, "device lost");
  assertThrows(() => gpu.submit("work", () => {}), DeviceError, "device lost");
  await assertRejects(() => gpu.read(tensor), DeviceError, "device lost");
  await assertRejects(() => gpu.sync(), DeviceError, "device lost");
});

Deno.test("a device lost before, or in the midst of, a read throws a DeviceError that says so", async () => {
  for (const lostFirst of [true, false]) {
    const gpu = await Gpu.open();
    const tensor = gpu.tensor("t", [4]);
    if (lostFirst) gpu.device.destroy();
    const reading = gpu.read(tensor);
    if (!lostFirst) gpu.device.destroy();
    await assertRejects(() => reading, DeviceError, "device lost");
  }
});

gpuTest("a uniform's fields stand in order, integers as integers and floats as floats", async (gpu) => {
  const source = `
struct Fields { a: u32, b: f32, c: u32, d: f32, e: f32 }
@group(0) @binding(0) var<uniform> fields: Fields;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(1) fn main() {
  out[0] = f32(fields.a); out[1] = fields.b; out[2] = f32(fields.c); out[3] = fields.d; out[4] = fields.e;
}`;
  const kernel = await compile(gpu, { label: "fields", source });
  const uniform = createUniform(gpu, "fields", [
    ["a", "u32"],
    ["b", "f32"],
    ["c", "u32"],
    ["d", "f32"],
    ["e", "f32"],
  ]);
  const out = gpu.tensor("out", [5]);
  const history = gpu.tensor("history", [2, 5]);
  for (
    const [call, values] of [{ a: 3, b: 0.5, c: 7, d: -2, e: 9 }, { a: 0, b: 1, c: 2, d: 3, e: 4 }].entries()
  ) {
    uniform.set(values);
    gpu.submit("fields", (recorder) => {
      recorder.dispatch(kernel, { fields: uniform.tensor, out }, [1]);
      recorder.copy(out, history, 5 * call);
    });
  }
  // A write takes effect for what is submitted after it, and for nothing before.
  assertEquals([...await gpu.read(history)], [3, 0.5, 7, -2, 9, 0, 1, 2, 3, 4]);
});

Deno.test("without an adapter the message says what to install", async () => {
  const original = navigator.gpu.requestAdapter;
  navigator.gpu.requestAdapter = () => Promise.resolve(null);
  try {
    await assertRejects(() => Gpu.open(), AdapterError, "mesa-vulkan-drivers");
  } finally {
    navigator.gpu.requestAdapter = original;
  }
});

Deno.test("a device that is refused twice is asked for anew, with its adapter", async () => {
  const original = navigator.gpu.requestAdapter;
  let refused = 0;
  navigator.gpu.requestAdapter = async (options) => {
    const adapter = await original.call(navigator.gpu, options);
    if (!adapter) return null;
    const { requestDevice } = adapter;
    adapter.requestDevice = (descriptor) =>
      refused < 2 ? (refused++, Promise.reject(new Error("busy"))) : requestDevice.call(adapter, descriptor);
    return adapter;
  };
  try {
    const gpu = await Gpu.open({ subgroups: false });
    assertEquals(refused, 2);
    await gpu.end();
  } finally {
    navigator.gpu.requestAdapter = original;
  }
});

Deno.test("an adapter that refuses a device is named", async () => {
  const original = navigator.gpu.requestAdapter;
  navigator.gpu.requestAdapter = async (options) => {
    const adapter = await original.call(navigator.gpu, options);
    if (adapter) adapter.requestDevice = () => Promise.reject(new Error("no device today"));
    return adapter;
  };
  try {
    await assertRejects(() => Gpu.open(), AdapterError, "no device today");
  } finally {
    navigator.gpu.requestAdapter = original;
  }
});
