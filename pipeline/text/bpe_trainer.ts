/**
 * Trains a byte-level BPE vocabulary, as GPT-2's (Sennrich et al., arXiv 1508.07909; Radford et al. 2019), and writes it
 * as a Hugging Face tokenizer.json.
 *
 * @module
 */

/**
 * GPT-2's pre-tokenisation: merges never cross the words it finds. White space is Unicode's, which JavaScript's \s is not:
 * it lacks U+0085 and has U+FEFF.
 */
export const GPT2_WORDS =
  /'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu;

/** The token that separates documents. */
export const END_OF_TEXT = "<|endoftext|>";

/** The printable character that stands for each byte in a vocabulary file, as in GPT-2's `bytes_to_unicode`. */
export function byteCharacters(): string[] {
  const printable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/** A tokenizer.json: a byte-level BPE with these entries, merges in order of rank, and the end-of-text token last. */
export function bpeTokenizerJson(entries: readonly string[], merges: readonly [string, string][]): unknown {
  const vocab = Object.fromEntries([...entries, END_OF_TEXT].map((entry, id) => [entry, id]));
  const special = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
  return {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [{ id: entries.length, content: END_OF_TEXT, ...special }],
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: "ByteLevel", add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: "BPE",
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: "",
      end_of_word_suffix: "",
      fuse_unk: false,
      byte_fallback: false,
      vocab,
      merges,
    },
  };
}

interface Word {
  symbols: number[];
  count: number;
}

/**
 * Learns merges until the vocabulary, the end-of-text token included, has `vocabularySize` entries or no pair occurs
 * twice. Of pairs that are equally frequent the one with the lower symbols is merged first, so that the result depends
 * on the text alone.
 *
 * @returns the tokenizer.json as a value
 * @throws {RangeError} when the vocabulary would not hold the 256 bytes and the end-of-text token
 */
export async function trainBpe(
  documents: AsyncIterable<string> | Iterable<string>,
  { vocabularySize }: { vocabularySize: number },
): Promise<unknown> {
  if (!Number.isInteger(vocabularySize) || vocabularySize < 257) {
    throw new RangeError(
      `Cannot train a vocabulary as it needs at least 257 entries, the bytes and ${END_OF_TEXT}: ${vocabularySize}`,
    );
  }
  const counts = new Map<string, number>();
  for await (const text of documents) {
    for (const [word] of text.matchAll(GPT2_WORDS)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  const encoder = new TextEncoder();
  const words: Word[] = [...counts].map(([word, count]) => ({ symbols: [...encoder.encode(word)], count }));
  const names = byteCharacters();
  const merges: [string, string][] = [];
  const pairs = new PairCounts(words);
  while (names.length + 1 < vocabularySize) {
    const best = pairs.mostFrequent();
    if (!best) break;
    const { left, right } = best;
    const merged = names.length;
    merges.push([names[left], names[right]]);
    names.push(names[left] + names[right]);
    pairs.merge(left, right, merged);
  }
  return bpeTokenizerJson(names, merges);
}

/** How often each pair of neighbouring symbols occurs, kept up to date while pairs are merged. */
class PairCounts {
  /** Pair key (left · 2²⁰ + right) to its count over all words. */
  readonly #counts = new Map<number, number>();
  /** Pair key to the words that held it at some time. */
  readonly #places = new Map<number, Set<number>>();
  /** A heap of [count, key], with entries that are out of date skipped when they surface. */
  readonly #heap: [number, number][] = [];

  constructor(private readonly words: Word[]) {
    words.forEach((word, index) => this.#countWord(word, index, 1));
    for (const [key, count] of this.#counts) this.#push(count, key);
  }

  static readonly #RADIX = 2 ** 20;

  #countWord({ symbols, count }: Word, index: number, sign: 1 | -1, touched?: Set<number>): void {
    for (let at = 0; at + 1 < symbols.length; at++) {
      const key = symbols[at] * PairCounts.#RADIX + symbols[at + 1];
      this.#counts.set(key, (this.#counts.get(key) ?? 0) + sign * count);
      touched?.add(key);
      if (sign === -1) continue;
      let places = this.#places.get(key);
      if (!places) this.#places.set(key, places = new Set());
      places.add(index);
    }
  }

  /** The pair that occurs most often, at least twice. */
  mostFrequent(): { left: number; right: number } | undefined {
    for (let top = this.#pop(); top; top = this.#pop()) {
      const [count, key] = top;
      if (this.#counts.get(key) !== count) continue;
      if (count < 2) return undefined;
      return { left: Math.floor(key / PairCounts.#RADIX), right: key % PairCounts.#RADIX };
    }
    return undefined;
  }

  /** Replaces every (left, right) by `merged`. */
  merge(left: number, right: number, merged: number): void {
    const touched = new Set<number>();
    for (const index of this.#places.get(left * PairCounts.#RADIX + right) ?? []) {
      const word = this.words[index];
      this.#countWord(word, index, -1, touched);
      const symbols: number[] = [];
      for (let at = 0; at < word.symbols.length; at++) {
        const match = word.symbols[at] === left && word.symbols[at + 1] === right;
        symbols.push(match ? merged : word.symbols[at]);
        if (match) at++;
      }
      word.symbols = symbols;
      this.#countWord(word, index, 1, touched);
    }
    for (const key of touched) {
      const count = this.#counts.get(key)!;
      if (count > 0) this.#push(count, key);
      else this.#counts.delete(key);
    }
  }

  #before(a: [number, number], b: [number, number]): boolean {
    return a[0] > b[0] || (a[0] === b[0] && a[1] < b[1]);
  }

  #push(count: number, key: number): void {
    const heap = this.#heap;
    let at = heap.push([count, key]) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#before(heap[at], heap[parent])) break;
      [heap[at], heap[parent]] = [heap[parent], heap[at]];
      at = parent;
    }
  }

  #pop(): [number, number] | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (heap.length === 0 || !last) return top;
    heap[0] = last;
    for (let at = 0;;) {
      let first = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < heap.length && this.#before(heap[child], heap[first])) first = child;
      }
      if (first === at) return top;
      [heap[at], heap[first]] = [heap[first], heap[at]];
      at = first;
    }
  }
}
