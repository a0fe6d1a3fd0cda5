import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { dequantise, quantise, storeInInt8 } from "../../../kernels/core/int8.ts";
import { compile } from "../../../kernels/core/kernel.ts";
import { rows, slicesOf } from "../../../kernels/core/tensor.ts";
import { gpuTest } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

Deno.test("each element is off by at most half a 127th of the largest of its column's block", () => {
  const [count, columns] = [300, 5];
  const values = normals(1, count * columns);
  // The last column's first block is zero: it has no scale.
  for (let row = 0; row < 128; row++) values[row * columns + 4] = 0;
  const { values: stored, scales } = quantise(values, count, columns);
  assertEquals(scales.length, 3 * columns);
  assertEquals(scales[4], 0);
  const read = dequantise(stored, scales, columns);
  let furthest = 0;
  for (let row = 0; row < count; row++) {
    for (let column = 0; column < columns; column++) {
      const at = row * columns + column;
      const block = Array.from(
        { length: Math.min(128, count - (row - row % 128)) },
        (_, n) => Math.abs(values[(row - row % 128 + n) * columns + column]),
      );
      const scale = Math.max(...block);
      assertEquals(scales[Math.floor(row / 128) * columns + column], scale);
      const off = Math.abs(read[at] - values[at]);
      assert(off <= scale / 254 * (1 + 1e-6), `${row}, ${column}: ${off} of ${scale}`);
      if (scale > 0) furthest = Math.max(furthest, off / scale);
      if (Math.abs(values[at]) === scale) assertEquals(Math.abs(read[at]), scale);
    }
  }
  assert(furthest > 0.9 / 254, "some element lies near the middle between two steps");
  assertThrows(() => quantise(values, 299, columns), RangeError, "there are 1500 values");
});

Deno.test("a value that is not finite is refused, with its place: as int8 it would be 0", () => {
  for (const value of [NaN, Infinity, -Infinity]) {
    const values = normals(1, 6);
    values[4] = value;
    assertThrows(
      () => quantise(values, 2, 3),
      RangeError,
      `Cannot quantise [2, 3] as values must be finite: element 4 is ${value}`,
    );
  }
});

const COPY = `
@group(0) @binding(0) var<storage, read> w: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4f>;
@compute @workgroup_size(1) fn main(@builtin(global_invocation_id) id: vec3u) { y[id.x] = w[id.x]; }`;

gpuTest(
  "what a kernel reads of an int8 matrix is what the host reads, by storage and by texture",
  async (gpu) => {
    const [count, columns] = [260, 64];
    const w = gpu.tensor("w", [count, columns], "int8");
    const before = gpu.allocatedBytes;
    assertEquals([w.byteLength, w.scales!.shape], [count * columns, [3, columns]]);
    const values = normals(2, count * columns);
    gpu.write(w, values.subarray(0, 128 * columns));
    gpu.write(w, values.subarray(128 * columns), 128 * columns);
    const expected = dequantise(
      ...Object.values(quantise(values, count, columns)) as [Int8Array, Float32Array],
      columns,
    );
    assertEquals(await gpu.read(w), expected);
    assertEquals(
      await gpu.read(w, 130 * columns + 4, 8),
      expected.slice(130 * columns + 4, 130 * columns + 12),
    );
    for (const textures of [[], ["w"]]) {
      const kernel = await compile(gpu, { label: "copy", source: COPY, int8: { w: "16u" }, textures });
      for (const [start, taken] of [[0, count], [128, 132]]) {
        const y = gpu.tensor("y", [taken, columns]);
        gpu.submit(
          "copying",
          (recorder) => recorder.dispatch(kernel, { w: rows(w, start, taken), y }, [taken * 16]),
        );
        const found = await gpu.read(y);
        // A driver may unpack to within a unit in the last place.
        const far = found.findIndex((value, n) => Math.abs(value - expected[start * columns + n]) > 1e-6);
        assertEquals(far, -1);
      }
    }
    assertThrows(() => gpu.write(w, values.subarray(0, columns), columns), RangeError, "in blocks of 128");
    assertThrows(() => rows(w, 64, 64), RangeError, "its scales are of 128 rows each: from 64 on");
    assertThrows(() => gpu.tensor("v", [8], "int8"), RangeError, "int8 is for matrices: [8]");
    assertEquals(gpu.allocatedBytes > before, true);
  },
);

gpuTest("an int8 tensor is bound only where a kernel was compiled for it", async (gpu) => {
  const kernel = await compile(gpu, { label: "copy", source: COPY, int8: { w: "1u" } });
  const [single, quantised] = [gpu.tensor("single", [2, 4]), gpu.tensor("quantised", [2, 4], "int8")];
  assertThrows(() => kernel.bind({ w: single, y: single }), RangeError, "needs w_scales: not given");
  assertThrows(() => kernel.bind({ w: quantised, y: quantised }), RangeError, "y must not be int8: int8");
});

Deno.test("a matrix that is written, or not read by fours, cannot be int8", () => {
  const of = (access: string, element: string) => () =>
    storeInInt8(
      `@group(0) @binding(0) var<storage, ${access}> w: array<${element}>;\nlet a = w[i + w[j].x];`,
      { w: "N4" },
    );
  assertStringIncludes(of("read", "vec4f")(), "dequantised_w(i + dequantised_w(j).x)");
  assertThrows(of("read_write", "vec4f"), SyntaxError, "must be a read array of vec4f");
  assertThrows(of("read", "f32"), SyntaxError, "must be a read array of vec4f");
});

Deno.test("runs of an int8 matrix begin where a block of scales does", () => {
  const slices = slicesOf(5000, 36, 1 << 17, { smallest: 1 / 32, largest: 1, multiple: 128 });
  assert(slices.length > 1);
  for (const { start } of slices) assert((start / 128 * 36 * 4) % 256 === 0);
});
