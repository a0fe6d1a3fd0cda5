import { assertEquals, assertThrows } from "@std/assert";
import { assertClose } from "./compare.ts";
import { centralDifference } from "./gradient_check.ts";

Deno.test("central differences give the gradient of a smooth function", () => {
  const x = Float64Array.of(0.3, -1.2, 2);
  const actual = centralDifference(([a, b, c]) => Math.sin(a) * b + Math.exp(b) * c ** 3, x);
  const [a, b, c] = x;
  const expected = [Math.cos(a) * b, Math.sin(a) + Math.exp(b) * c ** 3, 3 * Math.exp(b) * c ** 2];
  assertClose(actual, expected, { tolerance: 1e-9, name: "gradient" }); // measured 2e-11
});

Deno.test("the step given is the step taken", () => {
  // At 0, the difference quotient of the cube is h² and its derivative 0.
  assertEquals([...centralDifference(([x]) => x ** 3, Float64Array.of(0), { step: 0.5 })], [0.25]);
});

Deno.test("the point itself is left as it is, even by a function that writes to its argument", () => {
  const x = Float64Array.of(1, 2);
  centralDifference((moved) => moved.fill(7)[0], x);
  assertEquals([...x], [1, 2]);
});

Deno.test("a step that is not positive and a function that is not finite are refused", () => {
  const x = Float64Array.of(1);
  for (const step of [0, -1e-5, NaN, Infinity]) {
    assertThrows(() => centralDifference(([x]) => x, x, { step }), RangeError, `${step}`);
  }
  assertThrows(() => centralDifference(([x]) => x / 0, x), RangeError, "Infinity with x[0] moved by 0.00001");
});
