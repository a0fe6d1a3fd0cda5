import { assertAlmostEquals, assertEquals, assertThrows } from "@std/assert";
import { likeliest } from "../../../pipeline/model/likeliest.ts";

const tokensOf = (logits: ArrayLike<number>, count?: number) =>
  likeliest(logits, count).map(({ token }) => token);

Deno.test("the likeliest tokens come first, of equals the lower id, with their log-probabilities", () => {
  const logits = [Math.log(0.1), Math.log(0.5), Math.log(0.1), Math.log(0.3)].map((logit) => logit + 7);
  assertEquals(tokensOf(logits), [1]);
  assertEquals(tokensOf(logits, 3), [1, 3, 0]);
  const all = likeliest(logits, 4);
  assertEquals(all.map(({ token }) => token), [1, 3, 0, 2]);
  all.forEach(({ logProbability }, n) =>
    assertAlmostEquals(logProbability, Math.log([0.5, 0.3, 0.1, 0.1][n]), 1e-14)
  );
  // Of log-probabilities they are what they were.
  const again = likeliest(all.map(({ logProbability }) => logProbability), 4);
  again.forEach(({ logProbability }, n) => assertAlmostEquals(logProbability, all[n].logProbability, 1e-14));
});

Deno.test("of a large vocabulary too, with logits that are closed", () => {
  const logits = Float32Array.from({ length: 300_000 }, (_, token) => (token * 7919) % 300_007);
  logits[5] = -Infinity;
  const sorted = [...logits.keys()].sort((a, b) => logits[b] - logits[a]);
  assertEquals(tokensOf(logits, 20), sorted.slice(0, 20));
  assertEquals(likeliest([-Infinity, 2], 2), [{ token: 1, logProbability: 0 }, {
    token: 0,
    logProbability: -Infinity,
  }]);
});

Deno.test("as many tokens as there are not, and logits that are no numbers, are refused", () => {
  for (const count of [0, -1, 1.5, 4, NaN]) {
    assertThrows(() => likeliest([1, 2, 3], count), RangeError, `there are 1 to 3: ${count}`);
  }
  assertThrows(() => likeliest([]), RangeError, "there are 1 to 0: 1");
  for (const logits of [[NaN, 1, 2], [1, NaN, 2], [1, 2, NaN], [1, Infinity], [-Infinity, -Infinity]]) {
    assertThrows(() => likeliest(logits), RangeError, "must be finite");
  }
});
