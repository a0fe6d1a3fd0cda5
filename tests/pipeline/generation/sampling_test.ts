import { assert, assertEquals, assertThrows } from "@std/assert";
import { createSampler, distribution, highest } from "../../../pipeline/generation/sampling.ts";

const LOGITS = Float32Array.of(1, 3, -2, 3, 0.5);

Deno.test("the highest is the first of equals, and what is not finite is none", () => {
  assertEquals(highest(LOGITS), 1);
  assertEquals(highest(Float32Array.of(-3, -Infinity, -2)), 2);
  for (const wrong of [[NaN], [NaN, NaN], [-Infinity], [1, Infinity]]) {
    assertThrows(() => highest(Float32Array.from(wrong)), RangeError, "must be finite");
  }
});

Deno.test("at top-p 1 every token has its softmax at the temperature", () => {
  for (const temperature of [0.5, 1, 2]) {
    const { tokens, probabilities } = distribution(LOGITS, { temperature, topP: 1 });
    assertEquals([...tokens], [0, 1, 2, 3, 4]);
    const weights = [...LOGITS].map((logit) => Math.exp(logit / temperature));
    const total = weights.reduce((a, b) => a + b);
    probabilities.forEach((probability, n) => assert(Math.abs(probability - weights[n] / total) < 1e-15));
  }
});

Deno.test("top-p keeps the fewest likely tokens that have it together, of equals the first, and they sum to 1", () => {
  // By 10ths: 0.1, 0.4, 0.05, 0.25, 0.2.
  const logits = [0.1, 0.4, 0.05, 0.25, 0.2].map(Math.log);
  const kept = (topP: number) => [...distribution(logits, { temperature: 1, topP }).tokens];
  assertEquals(kept(0.01), [1]);
  assertEquals(kept(0.39), [1]);
  assertEquals(kept(0.41), [1, 3]);
  assertEquals(kept(0.64), [1, 3]);
  assertEquals(kept(0.66), [1, 3, 4]);
  assertEquals(kept(0.949), [1, 3, 4, 0]);
  assertEquals(kept(0.951), [1, 3, 4, 0, 2]);
  assertEquals([...distribution([0, 0], { temperature: 1, topP: 0.5 }).tokens], [0], "just enough is enough");
  const { probabilities } = distribution(logits, { temperature: 1, topP: 0.66 });
  [0.4, 0.25, 0.2].forEach((share, n) => assert(Math.abs(probabilities[n] - share / 0.85) < 1e-12));
  // The temperature comes first: the more even, the more tokens there are.
  assertEquals([...distribution(logits, { temperature: 0.1, topP: 0.9 }).tokens], [1]);
  assertEquals(distribution(logits, { temperature: 100, topP: 0.9 }).tokens.length, 5);
  assertEquals([...distribution(LOGITS, { temperature: 1, topP: 0.4 }).tokens], [1]);
  assertEquals([...distribution(LOGITS, { temperature: 1, topP: 0.5 }).tokens], [1, 3]);
});

Deno.test("what top-p keeps of a large vocabulary is what sorting all of it keeps", () => {
  const logits = Float32Array.from({ length: 5000 }, (_, n) => 3 * Math.sin(n * n) + Math.cos(n));
  for (const topP of [0.05, 0.5, 0.95, 0.999999]) {
    const { tokens, probabilities } = distribution(logits, { temperature: 0.7, topP });
    const weights = [...logits].map((logit) => Math.exp(logit / 0.7));
    const order = [...logits.keys()].sort((a, b) => weights[b] - weights[a] || a - b);
    const total = weights.reduce((a, b) => a + b);
    let sum = 0;
    const count = order.findIndex((token) => (sum += weights[token] / total) >= topP) + 1;
    assertEquals([...tokens], order.slice(0, count), `${topP}`);
    assert(Math.abs(probabilities.reduce((a, b) => a + b) - 1) < 1e-12);
  }
});

Deno.test("draws are as frequent as their probabilities, the same for a seed and others for another", () => {
  const settings = { temperature: 1.3, topP: 0.9, seed: 4 };
  const { tokens, probabilities } = distribution(LOGITS, settings);
  assertEquals(tokens.length, 3);
  const draw = createSampler(settings);
  const COUNT = 20_000;
  const drawn = Array.from({ length: COUNT }, () => draw(LOGITS));
  tokens.forEach((token, n) => {
    const share = drawn.filter((each) => each === token).length / COUNT;
    // Four standard deviations: 0.014.
    assert(Math.abs(share - probabilities[n]) < 0.014, `token ${token}: ${share}, ${probabilities[n]}`);
  });
  assert(drawn.every((token) => tokens.includes(token)));
  const again = createSampler(settings);
  assertEquals(drawn.slice(0, 500).map(() => again(LOGITS)), drawn.slice(0, 500));
  const other = createSampler({ ...settings, seed: 5 });
  assert(drawn.slice(0, 50).map(() => other(LOGITS)).join() !== drawn.slice(0, 50).join());
  // Written down: a change of the numbers that a seed gives would change every text.
  assertEquals(drawn.slice(0, 12), [1, 1, 3, 3, 1, 3, 1, 1, 3, 3, 1, 3]);
});

Deno.test("at temperature 0 the highest is taken whatever the seed and top-p", () => {
  for (const seed of [0, 1]) {
    const draw = createSampler({ temperature: 0, topP: 0.5, seed });
    assertEquals([draw(LOGITS), draw([5, 6, 7])], [1, 2]);
  }
});

Deno.test("settings that mean nothing are refused", () => {
  const settings = { temperature: 1, topP: 1, seed: 1 };
  for (const temperature of [-0.1, NaN, Infinity]) {
    assertThrows(() => createSampler({ ...settings, temperature }), RangeError, "temperature");
  }
  for (const topP of [0, -1, 1.1, NaN]) {
    assertThrows(() => createSampler({ ...settings, topP }), RangeError, "top-p");
  }
  for (const seed of [-1, 0.5, NaN]) {
    assertThrows(() => createSampler({ ...settings, seed }), RangeError, "seed");
  }
});
