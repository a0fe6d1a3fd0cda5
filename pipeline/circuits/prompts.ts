/**
 * What circuits are looked for with: pairs of a prompt and a corrupted one, and a metric that tells them apart.
 *
 * @module
 */

/** One place in a prompt at which the model answers. */
export interface AnswerPlace {
  /** Position whose logits are the answer. */
  position: number;
  /** Tokens that are right for the clean prompt. */
  right: readonly number[];
  /** Tokens that are wrong there, most often those that are right for the corrupted prompt. */
  wrong: readonly number[];
}

/** A prompt and its corruption, of the same number of tokens. */
export interface PromptPair {
  /** Tokens of the prompt. */
  clean: readonly number[];
  /** Tokens of its corruption. */
  corrupted: readonly number[];
  /** Where the model answers. */
  places: readonly AnswerPlace[];
  /** Which template it is from: circuits are compared across templates. */
  template: string;
}

/**
 * Halves of the pairs, by index: circuits are ranked on one and scored on the other. Every template's pairs are dealt out
 * in turn, in their order, to the half that has fewer; those of one clean prompt go together. The choosing half has the
 * odd one. One pair alone is both.
 *
 * @throws {RangeError} when all have one clean prompt, so that none is left to score on
 */
export function splitPairs(pairs: readonly PromptPair[]): { choosing: number[]; scoring: number[] } {
  if (pairs.length === 1) return { choosing: [0], scoring: [0] };
  const byTemplate = [...Map.groupBy(pairs.keys(), (n) => pairs[n].template).values()].flat();
  const byPrompt = Map.groupBy(byTemplate, (n) => pairs[n].clean.join());
  if (byPrompt.size < 2) {
    throw new RangeError(
      `Cannot split pairs in those that choose a circuit and those that score it as they have ${byPrompt.size} clean ` +
        `prompt: at least 2 are needed`,
    );
  }
  const [choosing, scoring]: number[][] = [[], []];
  for (const group of byPrompt.values()) {
    (scoring.length < choosing.length ? scoring : choosing).push(...group);
  }
  return { choosing: choosing.sort((a, b) => a - b), scoring: scoring.sort((a, b) => a - b) };
}

/**
 * How an answer is scored; a pair's metric is its mean over the places.
 *
 * - `logit_difference`: mean logit of the right tokens less that of the wrong ones.
 * - `probability_difference`: probability of the right tokens together less that of the wrong ones.
 */
export type MetricName = "logit_difference" | "probability_difference";

/** What a task's generator makes, or a user's file holds. */
export interface PromptSet {
  /** `copy`, `ioi`, `greater-than`, `docstring`, `addition`, the name of a file, or `prompt` of a pair given by flags. */
  task: string;
  /** How answers are scored. */
  metric: MetricName;
  /** All of one number of tokens T. */
  pairs: readonly PromptPair[];
  /** How many further pairs the file has that these are from; 0 when left out. */
  leftOut?: number;
  /** How many of the pairs before those are left out as their prompts have another length; 0 when left out. */
  otherLengths?: number;
}

/** Prompts behind a token that stands before every text. */
export function withStartToken(set: PromptSet, startOfText: number): PromptSet {
  const pairs = set.pairs.map((pair) => ({
    ...pair,
    clean: [startOfText, ...pair.clean],
    corrupted: [startOfText, ...pair.corrupted],
    places: pair.places.map((place) => ({ ...place, position: place.position + 1 })),
  }));
  return { ...set, pairs };
}

/** The metric at one place, and its gradient by the logits. */
export function placeMetric(
  metric: MetricName,
  logits: ArrayLike<number>,
  { right, wrong }: AnswerPlace,
): { value: number; gradient: Float64Array } {
  const gradient = new Float64Array(logits.length);
  if (metric === "logit_difference") {
    let value = 0;
    for (const [tokens, sign] of [[right, 1], [wrong, -1]] as const) {
      for (const token of tokens) {
        value += sign * logits[token] / tokens.length;
        gradient[token] += sign / tokens.length;
      }
    }
    return { value, gradient };
  }
  let highest = -Infinity;
  for (let v = 0; v < logits.length; v++) highest = Math.max(highest, logits[v]);
  let total = 0;
  for (let v = 0; v < logits.length; v++) total += Math.exp(logits[v] - highest);
  const probability = (token: number): number => Math.exp(logits[token] - highest) / total;
  let value = 0;
  for (const token of right) value += probability(token);
  for (const token of wrong) value -= probability(token);
  // d p_t / d logit_v = p_t (1[t = v] - p_v)
  for (let v = 0; v < logits.length; v++) gradient[v] = -value * probability(v);
  for (const token of right) gradient[token] += probability(token);
  for (const token of wrong) gradient[token] -= probability(token);
  return { value, gradient };
}
