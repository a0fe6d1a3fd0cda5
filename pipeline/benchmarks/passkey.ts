/**
 * Passkey: does a model find a number that was told far back in a text of filler? Filler, needle and question are ours:
 * figures are not those of another passkey.
 *
 * @module
 */
import { randomStream } from "../../kernels/core/random.ts";
import { inputError, usageError } from "../errors.ts";
import type { Making, Request, WordItem } from "./items.ts";

/** Sentences that say nothing of a number or a key. */
const FILLER: readonly string[] = [
  "The baker sweeps the floor before the shop opens.",
  "A grey cat sleeps on the wall behind the school.",
  "Rain fell on the roofs until late in the evening.",
  "Two boats lie at the pier, and nobody is on board.",
  "The train to the coast leaves from the far platform.",
  "My neighbour paints her fence green every spring.",
  "There are apples in the basket and pears on the table.",
  "The river is low in summer, and children walk across it.",
  "An old clock hangs in the hall and runs a little slow.",
  "Snow lies on the hills, but the road is free.",
  "The gardener waters the beans early in the morning.",
  "Somebody left an umbrella on the bench in the park.",
  "The library closes at noon, and its lamps go out.",
  "Bees come to the lavender as soon as the sun is up.",
  "The carpenter planes a board and whistles a song.",
  "A letter for the house next door lay on the mat.",
];

/** Stands before all else: a number in the very first sentence is another task (docs/log.md). */
const LEAD = "Somewhere in this text there is a pass key, and all else is beside the point.";

/** Ends with the number, from which on the distance counts. */
const needleOf = (number: string): string =>
  `The pass key is ${number}. Keep it in mind, for it will be asked for: ${number}`;

const QUESTION = "What is the pass key? The pass key is";

/** Numbers have five digits, the first of which is not 0. */
const LOWEST = 10_000;
const NUMBERS = 90_000;

/** Share of the filler that stands before the needle, %. */
const DEPTHS: readonly number[] = [0, 25, 50, 75, 100];

/** Items of each length and depth. */
const COPIES = 20;

/** Lengths that are tried where none are given: the powers of two between these. */
const SHORTEST = 128;
const LONGEST = 1024;

/**
 * Lengths as they are given, the shortest first.
 *
 * @throws {UserError} on what is no whole number, and on a length that is given twice
 */
export function parseLengths(text: string): number[] {
  const lengths = text.split(",").map((each) => /^\s*[1-9]\d{0,8}\s*$/.test(each) ? Number(each) : NaN);
  if (lengths.some(Number.isNaN)) {
    throw usageError(
      `Cannot use --lengths as they must be whole numbers of tokens with commas between them: ${text}`,
    );
  }
  const twice = lengths.find((length, n) => lengths.indexOf(length) !== n);
  if (twice !== undefined) throw usageError(`Cannot use --lengths as ${twice} is given twice: ${text}`);
  return lengths.toSorted((a, b) => a - b);
}

/**
 * Lengths that all models can read.
 *
 * @param given left out: the powers of two from 128 to 1024, as far as the models go, and of shorter ones all they have
 * @throws {UserError} naming a model that is shorter than one of them
 */
export function lengthsFor(
  models: readonly { name: string; contextLength: number }[],
  given: readonly number[] | undefined,
): readonly number[] {
  const shortest = models.reduce((a, b) => b.contextLength < a.contextLength ? b : a);
  const { name, contextLength } = shortest;
  if (given) {
    const long = given.find((length) => length > contextLength);
    if (long === undefined) return given;
    throw inputError(
      `Cannot make items of ${long} tokens for passkey as the positions of ${name} end at ${contextLength}`,
    );
  }
  const lengths: number[] = [];
  for (let length = SHORTEST; length <= Math.min(LONGEST, contextLength); length *= 2) lengths.push(length);
  return lengths.length > 0 ? lengths : [contextLength];
}

/**
 * The items, so many of each length and depth. Whatever the limit, no length and no depth has more than one more than
 * another. An item is the same whatever other lengths there are.
 *
 * @throws {UserError} when a length has no room for needle, question and a sentence of filler
 */
export function passkeyItems({ lengths, limit, seed, encode }: Making): WordItem[] {
  const cells = lengths.length * DEPTHS.length;
  // Behind so many items each length comes again with the depth that it had: from there on it gets the next.
  const turn = lengths.length % DEPTHS.length === 0 ? lengths.length : cells;
  return Array.from({ length: Math.min(limit, COPIES * cells) }, (_, n) => {
    const length = lengths[n % lengths.length];
    const depth = DEPTHS[(n + Math.floor(n / turn)) % DEPTHS.length];
    const random = randomStream(seed, length, depth, Math.floor(n / cells));
    return itemOf({ length, depth }, random.below, encode);
  });
}

/** One item, as full of filler as whole sentences allow. */
function itemOf(
  { length, depth }: { length: number; depth: number },
  below: (n: number) => number,
  encode: Making["encode"],
): WordItem {
  const number = String(LOWEST + below(NUMBERS));
  const filler: string[] = [];
  const partsWith = (sentences: number): Parts => {
    while (filler.length < sentences) filler.push(FILLER[below(FILLER.length)]);
    return partsOf(number, filler.slice(0, sentences), depth);
  };
  const requestWith = (sentences: number): Request => requestOf(number, partsWith(sentences));
  const sentences = mostThat((count) => readOf(requestWith(count), encode) <= length);
  if (sentences === 0) {
    throw inputError(
      `Cannot make items of ${length} tokens for passkey as needle, question and a sentence of filler take up to ${
        roomForAny(encode)
      }`,
    );
  }
  const request = requestWith(sentences);
  const { toNeedle, behind } = partsWith(sentences);
  const distance = encode({ context: toNeedle, continuation: behind + request.continuation }).counted -
    encode(request).counted;
  return { kind: "word", requests: [request], needle: { length, depth, distance } };
}

/** A text's halves: what ends with the number where it is told, and what ends with the question. */
interface Parts {
  toNeedle: string;
  behind: string;
}

function partsOf(number: string, filler: readonly string[], depth: number): Parts {
  const before = Math.round(filler.length * depth / 100);
  return {
    toNeedle: [LEAD, ...filler.slice(0, before), needleOf(number)].join(" "),
    behind: `. ${[...filler.slice(before), QUESTION].join(" ")}`,
  };
}

const requestOf = (number: string, { toNeedle, behind }: Parts): Request => ({
  context: toNeedle + behind,
  continuation: ` ${number}`,
});

/** Tokens that a model reads of a request: the last is not read, but only asked for. */
const readOf = (request: Request, encode: Making["encode"]): number => encode(request).tokens.length - 1;

/**
 * Tokens that hold needle, question and a sentence of filler whatever is drawn: of the number that takes most tokens by
 * itself, and of whichever sentence, before it or behind it.
 */
function roomForAny(encode: Making["encode"]): number {
  let [widest, most] = ["", 0];
  for (let number = LOWEST; number < LOWEST + NUMBERS; number++) {
    const { length } = encode({ context: "", continuation: ` ${number}` }).tokens;
    if (length > most) [widest, most] = [String(number), length];
  }
  const rooms = FILLER.flatMap((sentence) =>
    DEPTHS.map((depth) => readOf(requestOf(widest, partsOf(widest, [sentence], depth)), encode))
  );
  return Math.max(...rooms);
}

/** The largest count that is allowed, 0 where 1 is not; of which all smaller ones are. */
function mostThat(isAllowed: (count: number) => boolean): number {
  let tooMany = 1;
  while (isAllowed(tooMany)) tooMany *= 2;
  let most = Math.floor(tooMany / 2);
  while (tooMany - most > 1) {
    const middle = Math.floor((most + tooMany) / 2);
    if (isAllowed(middle)) most = middle;
    else tooMany = middle;
  }
  return most;
}
