/**
 * Tasks that need edges of known places and lengths: rows of tokens with the edges that answering them takes.
 *
 * @module
 */
import type { RandomStream } from "../../kernels/core/random.ts";

/** An edge that is needed, from a position that looks to one that is looked at; of a layer, or of any. */
export interface NeededEdge {
  layer?: number;
  query: number;
  key: number;
}

/** An answer of a row. */
export interface Answer {
  /** Position whose next token it is. */
  query: number;
  /** Position of the token that tells it. */
  source: number;
}

/** A row of a task. */
export interface TaskRow {
  /** As the data has it: of each turn the completion alone counts. */
  turns: readonly { prompt: string; completion: string }[];
  answers: readonly Answer[];
  needed: readonly NeededEdge[];
}

/** A task that makes rows of one length. */
export interface LongRangeTask {
  name: string;
  title: string;
  /** Every character that a row may have, a token each. */
  characters: string;
  /** Positions T of a row; it has a token more. */
  context: number;
  /** Layers that it takes. */
  layers: number;
  /**
   * What the floor is: `each`, the needed edges are known one by one; `count`, at least so many are needed, and their keys are
   * known, but not who looks.
   */
  floor: "each" | "count";
  row(random: RandomStream): TaskRow;
  /** The best share of right answers where nothing farther back than this can be known. */
  ceiling(rows: readonly TaskRow[], reach: number): number;
}

const UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const LOWER = "abcdefghijklmnopqrstuvwxyz";
const DIGITS = "0123456789";
/** Letters that are copied. */
const COPIED = LOWER.slice(0, 16);
/** Keys of pairs that are a token each, and as many values. */
const JOINED = 4;
/** A character for each of these pairs: of the printable ones, what is no key, value or filler. */
const PAIRS = Array.from({ length: 94 }, (_, n) => String.fromCharCode(33 + n))
  .filter((character) =>
    ![UPPER.slice(0, JOINED), LOWER.slice(0, JOINED), DIGITS].join("").includes(character)
  )
  .slice(0, JOINED ** 2);

/** Some of the first numbers below `most`, each once, in random order. */
function choose(count: number, most: number, random: RandomStream): number[] {
  const all = Array.from({ length: most }, (_, n) => n);
  return Array.from({ length: count }, () => all.splice(random.below(all.length), 1)[0]);
}

/** One of the numbers below `weights`' length, each with its weight. */
function drawn(weights: readonly number[], random: RandomStream): number {
  let left = random.uniform() * weights.reduce((sum, weight) => sum + weight, 0);
  const found = weights.findIndex((weight) => (left -= weight) < 0);
  return found < 0 ? weights.findLastIndex((weight) => weight > 0) : found;
}

/** The share of answers whose source is within reach, and of the others those that are right by chance. */
function withinReach(chance: number): LongRangeTask["ceiling"] {
  return (rows, reach) => {
    const answers = rows.flatMap((row) => row.answers);
    const known = answers.filter(({ query, source }) => query - source <= reach).length / answers.length;
    return known + (1 - known) * chance;
  };
}

/**
 * Multi-query associative recall: pairs of a key and a value, then the keys again among filler, each with its value to be
 * told. Gaps follow a power law, but for one query, which stands at the end. Of a value that is asked for, the value's
 * position must look at its key (layer 0), and the query at the value (layer 1): two edges an answer. Where a pair is one
 * token, `joined`, the query must look at that, in whichever layer: one edge an answer.
 */
export function associativeRecall(
  { context, pairs, joined = false }: { context: number; pairs: number; joined?: boolean },
): LongRangeTask {
  const [keyLetters, valueLetters] = joined
    ? [UPPER.slice(0, JOINED), LOWER.slice(0, JOINED)]
    : [UPPER, LOWER];
  return {
    name: "recall",
    title: `Multi-query associative recall, ${pairs} pairs in ${context} positions`,
    characters: keyLetters + valueLetters + DIGITS + (joined ? PAIRS.join("") : ""),
    context,
    layers: 2,
    floor: "each",
    row(random) {
      const keys = choose(pairs, keyLetters.length, random);
      const values = Array.from({ length: pairs }, () => random.below(valueLetters.length));
      const tokens = keys.flatMap((key, n) =>
        joined ? [PAIRS[JOINED * key + values[n]]] : [UPPER[key], LOWER[values[n]]]
      );
      // Places for a query and its answer, the last of which ends the row.
      const places = Math.floor((context + 1 - tokens.length) / 2);
      const first = context + 1 - 2 * places;
      const weights = Array.from({ length: places - 1 }, (_, n) => 1 / (n + 1));
      const taken = [places - 1];
      while (taken.length < pairs) {
        const place = drawn(weights, random);
        weights[place] = 0;
        taken.push(place);
      }
      taken.sort((a, b) => a - b);
      const asked = choose(pairs, pairs, random);
      const turns: TaskRow["turns"][number][] = [];
      const answers: Answer[] = [];
      const needed: NeededEdge[] = [];
      let prompt = tokens.join("");
      let position = tokens.length;
      for (const [n, place] of taken.entries()) {
        const query = first + 2 * place;
        for (; position < query; position++) prompt += DIGITS[random.below(DIGITS.length)];
        const source = joined ? asked[n] : 2 * asked[n] + 1;
        turns.push({ prompt: prompt + UPPER[keys[asked[n]]], completion: LOWER[values[asked[n]]] });
        answers.push({ query, source });
        needed.push(
          ...joined
            ? [{ query, key: source }]
            : [{ layer: 0, query: source, key: source - 1 }, { layer: 1, query, key: source }],
        );
        [prompt, position] = ["", query + 2];
      }
      return { turns, answers, needed };
    },
    ceiling: withinReach(1 / pairs),
  };
}

/**
 * Selective copying: letters scattered among noise are to be told in their order behind a mark. Each answer needs an edge to
 * its letter, of whichever layer; how a model finds the letter's rank takes more, which is not counted.
 */
export function selectiveCopying({ context, letters }: { context: number; letters: number }): LongRangeTask {
  const mark = context - letters;
  return {
    name: "copying",
    title: `Selective copying, ${letters} letters in ${context} positions`,
    characters: COPIED + ".=",
    context,
    layers: 2,
    floor: "each",
    row(random) {
      const places = choose(letters, mark, random).sort((a, b) => a - b);
      const text = new Array<string>(mark).fill(".");
      for (const place of places) text[place] = COPIED[random.below(COPIED.length)];
      const answers = places.map((source, n) => ({ query: mark + n, source }));
      return {
        turns: [{ prompt: text.join("") + "=", completion: places.map((place) => text[place]).join("") }],
        answers,
        needed: answers.map(({ query, source }) => ({ query, key: source })),
      };
    },
    ceiling: withinReach(1 / COPIED.length),
  };
}

/**
 * Which of two letters stands in a row more often: the worst case, since every letter decides, and no answer is right
 * without an edge from each. Their number is the floor; who looks at whom is left to the model.
 */
export function majority({ context }: { context: number }): LongRangeTask {
  // An odd number, so that there is a majority.
  const letters = context - 1 - (context % 2);
  return {
    name: "majority",
    title: `Majority of ${letters} letters`,
    characters: "ab.=",
    context,
    layers: 2,
    floor: "count",
    row(random) {
      const text = Array.from({ length: letters }, () => random.below(2));
      const ones = text.reduce((sum, letter) => sum + letter, 0);
      const query = context - 1;
      const filler = ".".repeat(context - 1 - letters);
      return {
        turns: [{
          prompt: filler + text.map((letter) => "ab"[letter]).join("") + "=",
          completion: "ab"[Number(2 * ones > letters)],
        }],
        answers: [{ query, source: filler.length }],
        needed: text.map((_, n) => ({ query, key: filler.length + n })),
      };
    },
    ceiling(rows, reach) {
      const right = rows.map(({ turns: [{ prompt, completion }] }) => {
        const seen = reach < 1 ? "" : prompt.slice(0, -1).slice(-reach);
        const ones = [...seen].filter((letter) => letter === "b").length;
        const twos = [...seen].filter((letter) => letter === "a").length;
        if (ones === twos) return 0.5;
        return Number("ab"[Number(ones > twos)] === completion);
      });
      return right.reduce((sum, of) => sum + of, 0) / rows.length;
    },
  };
}
