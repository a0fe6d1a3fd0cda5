/**
 * Byte-pair encoding as Hugging Face's tokenizers does it (Sennrich et al., arXiv 1508.07909): of all neighbours in a word
 * the pair of the lowest rank is merged, the leftmost of equals, until none is left that the vocabulary merges.
 *
 * @module
 */
import { byteCharacters } from "./bpe_trainer.ts";
import type { BpeModel } from "./tokenizer_json.ts";

/** Stands among tokens for what a vocabulary has none for. */
export const NO_TOKEN = -1;

/** The rank of a pair that is not merged. */
const NEVER = 0x7fffffff;
/** Symbols of a word up to which a scan for the lowest rank is faster than a heap. */
const SHORT = 64;
/** A rank times this, plus a place in the word, is exact in a number: words have fewer symbols. */
const PLACES = 2 ** 28;

/** Ranks by pair, in a table of open addresses: a Map of such pairs takes five times as long. */
class Ranks {
  readonly #lefts: Int32Array;
  readonly #rights: Int32Array;
  readonly #ranks: Int32Array;
  readonly #mask: number;

  constructor(pairs: readonly (readonly [left: number, right: number])[]) {
    const size = 2 ** Math.ceil(Math.log2(2 * pairs.length + 2));
    this.#mask = size - 1;
    this.#lefts = new Int32Array(size).fill(-2);
    this.#rights = new Int32Array(size);
    this.#ranks = new Int32Array(size).fill(NEVER);
    for (const [rank, [left, right]] of pairs.entries()) {
      const slot = this.#slot(left, right);
      this.#lefts[slot] = left;
      this.#rights[slot] = right;
      // Of a pair that is listed twice the last holds.
      this.#ranks[slot] = rank;
    }
  }

  /** The rank of a pair, or {@link NEVER}. */
  of(left: number, right: number): number {
    return this.#ranks[this.#slot(left, right)];
  }

  /** Where a pair stands, or the empty place where it would. */
  #slot(left: number, right: number): number {
    let hash = Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b);
    hash ^= hash >>> 15;
    let slot = hash & this.#mask;
    while (this.#lefts[slot] !== -2 && (this.#lefts[slot] !== left || this.#rights[slot] !== right)) {
      slot = (slot + 1) & this.#mask;
    }
    return slot;
  }
}

/** Numbers, of which the lowest is taken first. */
class Heap {
  readonly #values: number[] = [];

  get size(): number {
    return this.#values.length;
  }

  push(value: number): void {
    const values = this.#values;
    let at = values.push(value) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (values[parent] <= value) break;
      values[at] = values[parent];
      at = parent;
    }
    values[at] = value;
  }

  pop(): number {
    const values = this.#values;
    const top = values[0];
    const last = values.pop()!;
    if (values.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= values.length) break;
      if (child + 1 < values.length && values[child + 1] < values[child]) child++;
      if (values[child] >= last) break;
      values[at] = values[child];
      at = child;
    }
    values[at] = last;
    return top;
  }
}

/** Two entries that become a third, and how it is spelled. */
interface Merge {
  left: number;
  right: number;
  made: number;
  text: string;
}

/** A vocabulary and its merges, ready to encode. */
export interface Bpe {
  /** Tokens of a word, with {@link NO_TOKEN} for each character that has none, nor an unknown one. */
  encode(word: string): number[];
  /** Whether no merge reaches over a place where ▁ follows another character, so that words may be cut there. */
  readonly cutsBeforeSpaces: boolean;
}

/**
 * Prepares a model of a tokenizer.json.
 *
 * @param options `byteLevel`: the vocabulary spells bytes, as GPT-2's does, not characters; `never` are ids that no text
 * may become, as those of special tokens
 * @returns undefined where it has something that is not known here
 */
export function createBpe(
  model: BpeModel,
  { byteLevel, never }: { byteLevel: boolean; never: ReadonlySet<number> },
): Bpe | undefined {
  const { vocab, unk_token, fuse_unk = false, byte_fallback = false, ignore_merges = false } = model;
  if (model.dropout || model.continuing_subword_prefix || model.end_of_word_suffix) return undefined;
  const ids = new Map(Object.entries(vocab));
  const merges = mergesOf(model, ids);
  const unknown = unk_token == null ? NO_TOKEN : ids.get(unk_token);
  if (!merges || unknown === undefined) return undefined;
  const ranks = new Ranks(merges.map(({ left, right, made }) => never.has(made) ? [-3, -3] : [left, right]));
  const made = Int32Array.from(merges, (merge) => merge.made);

  const bytes = byteCharacters();
  const byteIds = Int32Array.from(bytes, (character) => ids.get(character) ?? NO_TOKEN);
  const fallback = Array.from(
    { length: 256 },
    (_, byte) => ids.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`),
  );
  if (byte_fallback && (byteLevel || fallback.includes(undefined))) return undefined;

  const encoder = new TextEncoder();
  let room = 1024;
  let utf8 = new Uint8Array(3 * room);
  let symbols = new Int32Array(3 * room);
  let pairs = new Int32Array(3 * room);

  /** Puts what a word is made of into `symbols`, and returns how many these are. */
  function begin(word: string): number {
    if (word.length > room) {
      room = 2 * word.length;
      [utf8, symbols, pairs] = [new Uint8Array(3 * room), new Int32Array(3 * room), new Int32Array(3 * room)];
    }
    let count = 0;
    let fuses = false;
    const addUnknown = (): void => {
      if (!fuses) symbols[count++] = unknown!;
      fuses = fuse_unk && unknown !== NO_TOKEN;
    };
    if (byteLevel) {
      const { written } = encoder.encodeInto(word, utf8);
      for (let at = 0; at < written; at++) {
        const id = byteIds[utf8[at]];
        if (id < 0) addUnknown();
        else {
          symbols[count++] = id;
          fuses = false;
        }
      }
      return count;
    }
    for (const character of word) {
      const id = ids.get(character);
      if (id !== undefined) symbols[count++] = id;
      else if (byte_fallback) {
        const { written } = encoder.encodeInto(character, utf8);
        for (let at = 0; at < written; at++) symbols[count++] = fallback[utf8[at]]!;
      } else {
        addUnknown();
        continue;
      }
      fuses = false;
    }
    return count;
  }

  function mergeShort(count: number): number {
    for (let at = 0; at < count - 1; at++) pairs[at] = ranks.of(symbols[at], symbols[at + 1]);
    for (;;) {
      let best = 0;
      let rank = NEVER;
      for (let at = 0; at < count - 1; at++) {
        if (pairs[at] < rank) rank = pairs[best = at];
      }
      if (rank === NEVER) return count;
      count--;
      symbols[best] = made[rank];
      for (let at = best + 1; at < count; at++) {
        symbols[at] = symbols[at + 1];
        pairs[at] = pairs[at + 1];
      }
      if (best > 0) pairs[best - 1] = ranks.of(symbols[best - 1], symbols[best]);
      if (best < count - 1) pairs[best] = ranks.of(symbols[best], symbols[best + 1]);
    }
  }

  function mergeLong(count: number): number {
    const next = Int32Array.from({ length: count }, (_, at) => at + 1);
    const before = Int32Array.from({ length: count }, (_, at) => at - 1);
    const heap = new Heap();
    const look = (at: number): void => {
      pairs[at] = next[at] < count ? ranks.of(symbols[at], symbols[next[at]]) : NEVER;
      if (pairs[at] !== NEVER) heap.push(pairs[at] * PLACES + at);
    };
    for (let at = 0; at < count; at++) look(at);
    while (heap.size > 0) {
      const lowest = heap.pop();
      const at = lowest % PLACES;
      const rank = (lowest - at) / PLACES;
      // Either symbol may have been merged with another since.
      if (pairs[at] !== rank) continue;
      const gone = next[at];
      symbols[at] = made[rank];
      pairs[gone] = NEVER;
      next[at] = next[gone];
      if (next[at] < count) before[next[at]] = at;
      look(at);
      if (before[at] >= 0) look(before[at]);
    }
    let left = 0;
    for (let at = 0; at < count; at = next[at]) symbols[left++] = symbols[at];
    return left;
  }

  return {
    encode(word) {
      if (ignore_merges) {
        const whole = ids.get(byteLevel ? spelled(word) : word);
        if (whole !== undefined && !never.has(whole)) return [whole];
      }
      let count = begin(word);
      count = count <= SHORT ? mergeShort(count) : mergeLong(count);
      const tokens: number[] = [];
      for (let at = 0; at < count; at++) tokens.push(symbols[at]);
      return tokens;
    },
    cutsBeforeSpaces: !byteLevel && ids.has("▁") &&
      merges.every(({ text }) => !/[^▁]▁/.test(text)),
  };

  /** A word as a vocabulary of bytes spells it. */
  function spelled(word: string): string {
    return Array.from(encoder.encode(word), (byte) => bytes[byte]).join("");
  }
}

/** Merges in order of rank, or undefined where one names what the vocabulary has not. */
function mergesOf({ merges }: BpeModel, ids: ReadonlyMap<string, number>): Merge[] | undefined {
  if (!Array.isArray(merges)) return undefined;
  const found: Merge[] = [];
  for (const merge of merges) {
    const parts: unknown = typeof merge === "string" ? merge.split(" ") : merge;
    if (!Array.isArray(parts) || parts.length !== 2) return undefined;
    const text = `${parts[0]}${parts[1]}`;
    const [left, right, made] = [ids.get(parts[0]), ids.get(parts[1]), ids.get(text)];
    if (left === undefined || right === undefined || made === undefined) return undefined;
    found.push({ left, right, made, text });
  }
  return found;
}
