/**
 * What comes next, by the logits of one position.
 *
 * @module
 */

/** A token that comes next, and how likely. */
export interface LikelyToken {
  /** Its id. */
  token: number;
  /** Natural logarithm of its probability. */
  logProbability: number;
}

/**
 * The likeliest tokens by their logits, the likeliest first, of equals the one of the lower id.
 *
 * @example What a model says next
 * ```ts
 * import assert from "node:assert/strict";
 * import { likeliest, loadModel } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition");
 * const { logits } = await model.run("12+34=");
 * const [{ token, logProbability }, second] = likeliest(logits.values, 2);
 * assert(model.tokenizer.spell(token) === "6" && logProbability > second.logProbability);
 * ```
 *
 * @param logits of one position [V], or log-probabilities
 * @param count how many tokens, at most V
 * @throws {RangeError} when there are not so many tokens, or a logit is neither finite nor −∞
 */
export function likeliest(logits: ArrayLike<number>, count = 1): LikelyToken[] {
  if (!(Number.isInteger(count) && count >= 1 && count <= logits.length)) {
    throw new RangeError(`Cannot name the likeliest tokens as there are 1 to ${logits.length}: ${count}`);
  }
  const best: number[] = [];
  for (let token = 0; token < logits.length; token++) {
    if (best.length === count && !(logits[token] > logits[best[count - 1]])) continue;
    let place = best.length;
    while (place > 0 && logits[token] > logits[best[place - 1]]) place--;
    best.splice(place, 0, token);
    best.length = Math.min(best.length, count);
  }
  const highest = logits[best[0]];
  let total = 0;
  for (let token = 0; token < logits.length; token++) total += Math.exp(logits[token] - highest);
  if (!Number.isFinite(total)) {
    throw new RangeError("Cannot name the likeliest tokens as logits must be finite, or −∞: they are not");
  }
  return best.map((token) => ({ token, logProbability: logits[token] - highest - Math.log(total) }));
}
