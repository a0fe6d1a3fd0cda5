import { assert, assertAlmostEquals, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { inverseFrequencies, type RotaryScaling, rotaryTable } from "../../../kernels/rotary/frequencies.ts";
import { prepareRotary } from "../../../kernels/rotary/op.ts";
import {
  rotaryFrequencyReference,
  rotaryGradientReference,
  rotaryReference,
} from "../../../kernels/rotary/reference.ts";
import { roundingReference } from "../../../kernels/rounding/reference.ts";
import { assertClose, maxAbsoluteError, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

/** Llama 3.2's. */
const LLAMA3: RotaryScaling = { type: "llama3", factor: 32, low: 1, high: 4, original: 8192 };

/** Of x (batch, position, (H + 2 K) · D). */
const shapeOf = ([positions, heads, keyValueHeads, headSize, rotated]: number[]) => ({
  positions,
  heads,
  keyValueHeads,
  headSize,
  rotated,
  theta: 10000,
});

const lengthOf = (batch: number, { positions, heads, keyValueHeads, headSize }: ReturnType<typeof shapeOf>) =>
  batch * positions * (heads + 2 * keyValueHeads) * headSize;

Deno.test("the rotary reference's gradient agrees with central differences", () => {
  const shape = { ...shapeOf([3, 2, 1, 6, 4]), start: 2 };
  const [x, dy] = [normals(1, lengthOf(2, shape)), normals(2, lengthOf(2, shape))];
  const numeric = centralDifference(
    (v) => rotaryReference(v, shape).reduce((sum, y, n) => sum + y * dy[n], 0),
    Float64Array.from(x),
  );
  assert(relativeError(rotaryGradientReference(dy, shape), numeric) < 1e-8); // measured 1e-10
});

Deno.test("the product of a query and a key depends on how far apart they are, and values stay", () => {
  const [D, T] = [8, 6];
  const one = normals(1, 3 * D);
  const x = Float32Array.from({ length: T * 3 * D }, (_, n) => one[n % (3 * D)]);
  const y = rotaryReference(x, shapeOf([T, 1, 1, D, D]));
  const score = (query: number, key: number) => {
    let sum = 0;
    for (let n = 0; n < D; n++) sum += y[query * 3 * D + n] * y[key * 3 * D + D + n];
    return sum;
  };
  for (const [query, key] of [[3, 1], [5, 3]]) assertAlmostEquals(score(query, key), score(2, 0), 1e-12);
  assert(Math.abs(score(3, 0) - score(2, 0)) > 1e-3);
  for (let n = 0; n < y.length; n++) if (n % (3 * D) >= 2 * D) assertEquals(y[n], x[n]);
});

Deno.test("frequencies and their scaling are Hugging Face's", () => {
  // The first and last of Llama 3.2 1B's 32, and those about the two borders, by the formula of transformers'
  // modeling_rope_utils.py, written otherwise in the reference than where tables are made.
  const llama = { theta: 500000, rotated: 64, scaling: LLAMA3 };
  const found = inverseFrequencies(llama);
  assertEquals(found.length, 32);
  found.forEach((frequency, i) =>
    assertAlmostEquals(frequency / rotaryFrequencyReference(i, llama), 1, 1e-14, `frequency ${i}`)
  );
  assertEquals(found[0], 1);
  assertAlmostEquals(found[31] * 500000 ** (62 / 64) * 32, 1, 1e-14);
  const scaled = [...found].map((frequency, i) => frequency * 500000 ** (2 * i / 64));
  // Waves of 2048 positions and fewer stay: 2π · 500000^(i/32) ≤ 2048 up to i = 14. From 8192 on, i = 18, a 32nd of it.
  assert(scaled.slice(0, 15).every((share) => Math.abs(share - 1) < 1e-12));
  assert(scaled.slice(15, 18).every((share) => share > 1 / 32 + 1e-3 && share < 1 - 1e-3));
  assert(scaled.slice(18).every((share) => Math.abs(share - 1 / 32) < 1e-12));
});

Deno.test("angles have all the digits of float32 at position 131,071 too", () => {
  const frequencies = { theta: 500000, rotated: 8, scaling: LLAMA3 };
  const table = rotaryTable(131072, frequencies);
  const last = [...table.subarray(-8)];
  // By the reference's frequencies in float64: what is off is the rounding to float32 alone.
  const want = [Math.cos, Math.sin].flatMap((of) =>
    [0, 1, 2, 3].map((i) => of(131071 * rotaryFrequencyReference(i, frequencies)))
  );
  assert(maxAbsoluteError(last, want) < 6e-8);
  // cos(131071 rad) and sin(131071 rad) by mpmath.
  assertAlmostEquals(last[0], -0.817983499387949, 6e-8);
  assertAlmostEquals(last[4], -0.575241683754789, 6e-8);
});

gpuTest(
  "rotary forward and backward equal float64 at awkward shapes and from later positions on",
  async (gpu) => {
    for (
      const [batch, start, ...rest] of [
        [1, 0, 1, 1, 1, 2, 2],
        [2, 0, 3, 3, 1, 6, 4],
        [1, 100, 7, 5, 5, 10, 2],
        [2, 0, 5, 4, 2, 64, 64],
        [1, 131000, 13, 2, 1, 64, 16],
        [3, 7, 65, 3, 3, 24, 24],
      ]
    ) {
      const shape = shapeOf(rest);
      const x = normals(start, lengthOf(batch, shape));
      const dy = normals(start + 1, x.length);
      const op = await prepareRotary(gpu, { ...shape, batch, contextLength: start + shape.positions });
      const t = {
        x: upload(gpu, "x", x),
        dy: upload(gpu, "dy", dy),
        y: poisoned(gpu, "y", [x.length]),
        dx: poisoned(gpu, "dx", [x.length]),
      };
      if (start > 0) op.startAt(start);
      gpu.submit("rotary", (recorder) => {
        op.forward(recorder, t);
        op.backward(recorder, t);
      });
      const name = `${batch} from ${start}: ${rest}`;
      // Measured: 3.4e-8 both ways.
      const y = rotaryReference(x, { ...shape, start });
      assertClose(await gpu.read(t.y), y, { tolerance: 2e-6, name: `y ${name}` });
      const dx = rotaryGradientReference(dy, { ...shape, start });
      assertClose(await gpu.read(t.dx), dx, { tolerance: 1e-5, name: `dx ${name}` });
      op.destroy();
    }
  },
);

gpuTest("positions one at a time get the bits that they get together", async (gpu) => {
  const shape = shapeOf([5, 2, 1, 16, 8]);
  const x = normals(1, lengthOf(1, shape));
  const columns = x.length / 5;
  const together = await prepareRotary(gpu, { ...shape, batch: 1 });
  const alone = await prepareRotary(gpu, { ...shape, positions: 1, batch: 1, contextLength: 5 });
  const all = { x: upload(gpu, "x", x), y: poisoned(gpu, "y", [x.length]) };
  gpu.submit("rotary", (recorder) => together.forward(recorder, all));
  const y = await gpu.read(all.y);
  for (let position = 0; position < 5; position++) {
    const part = (values: Float32Array) => values.slice(position * columns, (position + 1) * columns);
    const one = { x: upload(gpu, "x", part(x)), y: poisoned(gpu, "y", [columns]) };
    alone.startAt(position);
    gpu.submit("rotary", (recorder) => alone.forward(recorder, one));
    assertEquals(await gpu.read(one.y), part(y));
  }
});

gpuTest(
  "rotary in half precision rounds x and y, copies what does not turn, and rounds no gradient",
  async (gpu) => {
    const shape = shapeOf([3, 2, 1, 24, 8]);
    const [x, dy] = [normals(1, lengthOf(2, shape)), normals(2, lengthOf(2, shape))];
    const op = await prepareRotary(gpu, { ...shape, batch: 2, half: true });
    const t = {
      x: gpu.tensor("x", [x.length], "f16"),
      y: gpu.tensor("y", [x.length], "f16"),
      dy: upload(gpu, "dy", dy),
      dx: poisoned(gpu, "dx", [x.length]),
    };
    gpu.write(t.x, x);
    gpu.submit("rotary", (recorder) => {
      op.forward(recorder, t);
      op.backward(recorder, t);
    });
    const rounded = roundingReference(x);
    const y = await gpu.read(t.y);
    // Half a unit in float16's last place is 2^-11 of a value, 4.9e-4. Measured: 8.6e-5, and 2.0e-8 backward.
    assertClose(y, rotaryReference(rounded, shape), { tolerance: 5e-4, name: "y" });
    y.forEach((value, n) => {
      if (n % 24 >= 8) assertEquals(value, rounded[n]);
    });
    assertClose(await gpu.read(t.dx), rotaryGradientReference(dy, shape), { tolerance: 1e-5, name: "dx" });
  },
);

gpuTest("what cannot be turned, or has no angle, is refused", async (gpu) => {
  const shape = { ...shapeOf([4, 2, 1, 8, 8]), batch: 1 };
  for (const [rotated, headSize] of [[3, 8], [10, 8], [2, 7], [0, 8]]) {
    const wrong = prepareRotary(gpu, { ...shape, rotated, headSize });
    await assertRejects(() => wrong, RangeError, `${rotated} of ${headSize}`);
  }
  await assertRejects(
    () => prepareRotary(gpu, { ...shape, contextLength: 3 }),
    RangeError,
    "the context of 3",
  );
  const op = await prepareRotary(gpu, { ...shape, contextLength: 10 });
  op.startAt(6);
  for (const position of [7, -1, 0.5]) {
    assertThrows(() => op.startAt(position), RangeError, `holds 10: ${position}`);
  }
});
