import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { advantagesOf } from "../../../pipeline/training/advantages.ts";

Deno.test("leave-one-out holds each reward against the mean of the prompt's others", () => {
  const rewards = [1, 0, 0, 0.5, 1, 1, 1, 1];
  const found = advantagesOf(rewards, { algorithm: "leave-one-out", group: 4 });
  rewards.forEach((reward, n) => {
    const others = rewards.slice(n < 4 ? 0 : 4, n < 4 ? 4 : 8).filter((_, at) => at !== n % 4);
    const expected = reward - others.reduce((sum, other) => sum + other, 0) / 3;
    assertAlmostEquals(found[n], expected, 1e-12);
  });
});

Deno.test("GRPO divides by the standard deviation of the prompt's rewards, and equal ones have no advantage", () => {
  const found = advantagesOf([1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1], { algorithm: "grpo", group: 4 });
  // Mean 1/4; squares 9/16 + 3/16 over 3.
  const deviation = Math.sqrt(0.25) + 1e-4;
  [0.75, -0.25, -0.25, -0.25].forEach((part, n) => assertAlmostEquals(found[n], part / deviation, 1e-12));
  assertEquals([...found.slice(4)], new Array(8).fill(0));
});

Deno.test("a sample alone has nothing to be held against", () => {
  for (const [rewards, group] of [[[1, 0], 1], [[1, 0, 1], 2], [[1, 0], 0], [[1, 0], 1.5]] as const) {
    assertThrows(
      () => advantagesOf(rewards, { algorithm: "leave-one-out", group }),
      RangeError,
      "there must be 2 or more of each",
    );
  }
});
