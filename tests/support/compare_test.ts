import { assertAlmostEquals, assertEquals, AssertionError, assertThrows } from "@std/assert";
import { assertClose, maxAbsoluteError, relativeError } from "./compare.ts";

Deno.test("the relative error is the norm of the difference over the norm of what was expected", () => {
  assertEquals(relativeError([3, 4], [3, 4]), 0);
  assertAlmostEquals(relativeError([3.3, 4.4], [3, 4]), 0.1, 1e-12);
  assertEquals(relativeError([0, 0], [3, 4]), 1);
});

Deno.test("the relative error to zeros is 0 for zeros and infinite for anything else", () => {
  assertEquals(relativeError([0, 0], [0, 0]), 0);
  assertEquals(relativeError([0, 1e-30], [0, 0]), Infinity);
  assertEquals(relativeError([], []), 0);
});

Deno.test("the largest absolute error is found wherever it stands", () => {
  assertEquals(maxAbsoluteError([1, 2, 7], [1, 4, 6]), 2);
  assertEquals(maxAbsoluteError([-5, 2], [5, 2]), 10);
  assertEquals(maxAbsoluteError([], []), 0);
});

Deno.test("arrays of different lengths cannot be compared", () => {
  for (const compare of [relativeError, maxAbsoluteError]) {
    assertThrows(() => compare([1, 2], [1, 2, 3]), RangeError, "2 actual, 3 expected");
  }
});

Deno.test("a value that is not finite fails on either side, even where both sides have it", () => {
  assertThrows(() => relativeError([1, NaN], [1, 2]), RangeError, "actual[1] is NaN");
  assertThrows(() => relativeError([1, 2], [Infinity, 2]), RangeError, "expected[0] is Infinity");
  assertThrows(() => maxAbsoluteError([-Infinity], [-Infinity]), RangeError, "actual[0] is -Infinity");
});

Deno.test("assertClose passes within the tolerance and names the worst element beyond it", () => {
  const expected = Float32Array.of(100, 0, 0);
  assertClose([101, 0, 0], expected, { tolerance: 0.011, name: "logits" });
  assertThrows(
    () => assertClose([100.5, 0, -2], expected, { tolerance: 0.011, name: "logits" }),
    AssertionError,
    "Cannot take logits as close: relative error 2.06e-2 is above 0.011; furthest off at index 2: -2 instead of 0",
  );
});

Deno.test("assertClose names the arrays that it cannot compare", () => {
  assertThrows(() => assertClose([1], [], { tolerance: 1, name: "dq" }), RangeError, "Cannot compare dq");
});
