/**
 * Byte-pair tokenizers of the families that are run, with words remembered: the ids of Hugging Face's tokenizers, many
 * times as fast as its JavaScript library, which does what is not known here.
 *
 * @module
 */
import { createBpe } from "./bpe.ts";
import { createCut, createFind, createNormalizer, type Place } from "./pieces.ts";
import { type AddedToken, type BpeModel, isBpe, type TokenizerJson } from "./tokenizer_json.ts";

/** Words that are remembered, and the characters of the longest. */
const MOST_WORDS = 1 << 18;
const LONGEST_WORD = 128;
/** Characters up to which a part of a string is a copy, and does not keep the whole in memory. */
const COPIED = 12;
/** Runs of ▁ with what follows them. */
const SPACED_WORDS = /^[^▁]+|▁+[^▁]*/g;

/** Encodes a text, with `NO_TOKEN` for what has no token; `continued`: its beginning was encoded before. */
export type Encode = (text: string, continued: boolean) => number[];

/**
 * An encoder of a tokenizer.json.
 *
 * @returns undefined where a part of it is not known here
 */
export function createFastEncoder(json: TokenizerJson): Encode | undefined {
  if (!isBpe(json)) return undefined;
  const normalize = createNormalizer(json.normalizer);
  const pre = createCut(json.pre_tokenizer);
  const added = json.added_tokens ?? [];
  const never = new Set(added.filter(({ special = true }) => special).map(({ id }) => id));
  const bpe = pre && createBpe(json.model as BpeModel, { byteLevel: pre.byteLevel, never });
  if (!normalize || !pre || !bpe) return undefined;
  const isNormalized = (token: AddedToken): boolean => token.normalized ?? token.special === false;
  const find = createFind(added.filter((token) => !isNormalized(token)));
  const findNormalized = createFind(
    added.filter(isNormalized).map((token) => ({ ...token, content: normalize(token.content, "start") })),
  );
  const remembered = new Map<string, number | readonly number[]>();

  function encodeWords(words: readonly string[], tokens: number[]): void {
    for (const word of words) {
      const known = remembered.get(word) ?? encodeWord(word);
      if (typeof known === "number") tokens.push(known);
      else for (const token of known) tokens.push(token);
    }
  }

  function encodeWord(word: string): number | readonly number[] {
    const encoded = bpe!.encode(word);
    const known = encoded.length === 1 ? encoded[0] : encoded;
    if (word.length <= LONGEST_WORD && remembered.size < MOST_WORDS) {
      remembered.set(word.length <= COPIED ? word : copyOf(word), known);
    }
    return known;
  }

  const words = bpe.cutsBeforeSpaces
    ? (text: string, place: Place) => pre.cut(text, place).flatMap((word) => word.match(SPACED_WORDS) ?? [])
    : pre.cut;

  return (text, continued) => {
    const tokens: number[] = [];
    let place: Place = continued ? "continued" : "start";
    for (const raw of find ? find(text) : [text]) {
      if (typeof raw === "number") tokens.push(raw);
      else if (raw !== "") {
        const normal = normalize(raw, place);
        for (const part of findNormalized ? findNormalized(normal) : [normal]) {
          if (typeof part === "number") tokens.push(part);
          else encodeWords(words(part, place), tokens);
          place = "inside";
        }
      }
      place = "inside";
    }
    return tokens;
  };
}

/** A string's characters anew. */
function copyOf(word: string): string {
  return String.fromCharCode(...Array.from({ length: word.length }, (_, at) => word.charCodeAt(at)));
}
