import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { normals, seeded } from "./seeded.ts";

const COUNT = 20_000;
const draw = (next: () => number) => Array.from({ length: COUNT }, next);
const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

Deno.test("equal seeds give equal streams and other seeds other ones", () => {
  assertEquals(normals(3, 50), normals(3, 50));
  assertNotEquals(normals(3, 50), normals(4, 50));
});

Deno.test("the stream is that of mulberry32", () => {
  const random = seeded(0);
  assertEquals([1, 2, 3].map(() => random.uniform() * 2 ** 32), [1144304738, 1416247, 958946056]);
});

Deno.test("uniform numbers fill [0, 1) evenly", () => {
  const values = draw(seeded(1).uniform);
  assert(values.every((value) => value >= 0 && value < 1));
  assertAlmostEquals(mean(values), 1 / 2, 0.01);
  assertAlmostEquals(mean(values.map((value) => (value - 1 / 2) ** 2)), 1 / 12, 0.002);
});

Deno.test("normal numbers have mean 0, variance 1, kurtosis 3 and no serial correlation", () => {
  const values = draw(seeded(2).normal);
  assertAlmostEquals(mean(values), 0, 0.03);
  assertAlmostEquals(mean(values.map((value) => value ** 2)), 1, 0.04);
  assertAlmostEquals(mean(values.map((value) => value ** 4)), 3, 0.3);
  assertAlmostEquals(mean(values.slice(1).map((value, n) => value * values[n])), 0, 0.03);
});

Deno.test("integers take each value below n equally often", () => {
  const counts = [0, 0, 0, 0, 0];
  const random = seeded(3);
  for (let n = 0; n < COUNT; n++) counts[random.integer(5)]++;
  for (const count of counts) assertAlmostEquals(count / COUNT, 1 / 5, 0.015);
  assertEquals(counts.length, 5);
});

Deno.test("normals have the length and the standard deviation asked for", () => {
  assertEquals(normals(5, 0).length, 0);
  const values = [...normals(5, COUNT, 0.02)];
  assertEquals(values.length, COUNT);
  assertAlmostEquals(Math.sqrt(mean(values.map((value) => value ** 2))), 0.02, 0.001);
});

Deno.test("a seed or a range that is no whole number within bounds is refused", () => {
  for (const seed of [-1, 0.5, 2 ** 32, NaN]) assertThrows(() => seeded(seed), RangeError, `${seed}`);
  for (const n of [0, 1.5, 2 ** 32 + 1]) assertThrows(() => seeded(1).integer(n), RangeError, `${n}`);
});
