/**
 * What is done with a text before its words are encoded, as Hugging Face's tokenizers does it: added tokens are found, the
 * rest is normalised, and cut into the words that merges never cross.
 *
 * @module
 */
import { SplitPreTokenizer } from "@huggingface/tokenizers";
import { isObject } from "../files.ts";
import { GPT2_WORDS } from "./bpe_trainer.ts";
import type { AddedToken, Part } from "./tokenizer_json.ts";

/**
 * Where a part of a text stands: at its start, behind another part of it, or, as `continued`, at the start of what goes on
 * with a text whose beginning was encoded before. What is put before a text is put before no continuation.
 */
export type Place = "start" | "inside" | "continued";

/** Changes a text. */
export type Normalize = (text: string, place: Place) => string;

/** Cuts a text into pieces; what it leaves out is gone. */
export type Cut = (text: string, place: Place) => string[];

/** What is numeric to Rust, of which JavaScript's \d knows only ASCII's. */
const DIGIT = /\p{N}/gu;
const DIGITS = /\p{N}+/gu;
const FORMS: readonly unknown[] = ["NFC", "NFD", "NFKC", "NFKD"];

/** A normalizer, or undefined where it is of a kind that is not known here. */
export function createNormalizer(part: Part | null | undefined): Normalize | undefined {
  if (part == null) return (text) => text;
  if (FORMS.includes(part.type)) return (text) => text.normalize(part.type as string);
  if (part.type === "Prepend" && typeof part.prepend === "string") {
    const { prepend } = part;
    return (text, place) => place === "continued" || text === "" ? text : prepend + text;
  }
  if (part.type === "Replace" && typeof part.content === "string") {
    const { content, pattern } = part as { content: string; pattern?: { String?: unknown } };
    const plain = pattern?.String;
    return typeof plain === "string" && plain !== ""
      ? (text) => text.replaceAll(plain, () => content)
      : undefined;
  }
  if (part.type !== "Sequence" || !Array.isArray(part.normalizers)) return undefined;
  const steps = part.normalizers.map(createNormalizer);
  if (!steps.every((step) => step !== undefined)) return undefined;
  return (text, place) => steps.reduce((before, step) => step(before, place), text);
}

/** A pre-tokenizer, and whether words go on as bytes; undefined where it is of a kind that is not known here. */
export function createCut(part: Part | null | undefined): { cut: Cut; byteLevel: boolean } | undefined {
  if (part == null) return { cut: (text) => [text], byteLevel: false };
  const parts = part.type === "Sequence" && Array.isArray(part.pretokenizers) ? part.pretokenizers : [part];
  const cuts: Cut[] = [];
  for (const [n, each] of parts.entries()) {
    if (!isObject(each)) return undefined;
    // Behind it a text is none any more, but spells bytes.
    if (each.type === "ByteLevel" && n < parts.length - 1) return undefined;
    const cut = cutOf(each);
    if (!cut) return undefined;
    cuts.push(cut);
  }
  const byteLevel = parts.at(-1)?.type === "ByteLevel";
  const [first, ...rest] = cuts;
  if (!first) return undefined;
  return {
    cut: rest.length === 0 ? first : (text, place) => inTurn(first(text, place), rest, place),
    byteLevel,
  };
}

function inTurn(pieces: string[], cuts: readonly Cut[], place: Place): string[] {
  for (const cut of cuts) {
    const next: string[] = [];
    for (const [n, piece] of pieces.entries()) {
      for (const word of cut(piece, n === 0 ? place : "inside")) next.push(word);
    }
    pieces = next;
  }
  return pieces;
}

function cutOf(part: Part): Cut | undefined {
  const { type } = part;
  if (type === "ByteLevel") {
    const { add_prefix_space = true, use_regex = true } = part;
    const words: Cut = use_regex ? (text) => matchesAndRests(text, GPT2_WORDS) : (text) => [text];
    if (!add_prefix_space) return words;
    return (text, place) => words(text.startsWith(" ") || place === "continued" ? text : " " + text, place);
  }
  if (type === "Digits") {
    const pattern = part.individual_digits === true ? DIGIT : DIGITS;
    return (text) => matchesAndRests(text, pattern);
  }
  if (type === "Metaspace") return metaspace(part);
  if (type === "Split") return splitOf(part);
  return undefined;
}

function metaspace(part: Part): Cut | undefined {
  const { replacement = "▁", split = true, add_prefix_space } = part;
  const scheme = part.prepend_scheme ?? (add_prefix_space === false ? "never" : "always");
  if (typeof replacement !== "string" || [...replacement].length !== 1) return undefined;
  return (text, place) => {
    let spaced = text.replaceAll(" ", () => replacement);
    const prepends = scheme === "always" ? place !== "continued" : scheme === "first" && place === "start";
    if (prepends && !spaced.startsWith(replacement)) spaced = replacement + spaced;
    return split ? cutBefore(spaced, replacement) : [spaced];
  };
}

/** Cuts a text before each of a character. */
function cutBefore(text: string, character: string): string[] {
  const pieces: string[] = [];
  let from = 0;
  for (let at = text.indexOf(character, 1); at >= 0; at = text.indexOf(character, at + 1)) {
    pieces.push(text.slice(from, at));
    from = at;
  }
  pieces.push(text.slice(from));
  return pieces;
}

function splitOf(part: Part): Cut | undefined {
  const { behavior, invert = false, pattern } = part as {
    behavior?: unknown;
    invert?: unknown;
    pattern?: { Regex?: unknown; String?: unknown };
  };
  const regex = regexOf(pattern);
  if (!regex) return undefined;
  if (behavior === "Isolated") return (text) => matchesAndRests(text, regex);
  if (behavior === "Removed" && invert) {
    return (text) => (text.match(regex) ?? []).filter((word) => word !== "");
  }
  if (behavior === "Removed") return (text) => text.split(regex).filter((word) => word !== "");
  if (behavior !== "MergedWithPrevious" && behavior !== "MergedWithNext" || invert) return undefined;
  const isPrevious = behavior === "MergedWithPrevious";
  return (text) => {
    const pieces: string[] = [];
    let from = 0;
    for (const { 0: match, index } of text.matchAll(regex)) {
      const to = isPrevious ? index + match.length : index;
      if (to > from) pieces.push(text.slice(from, to));
      from = to;
    }
    if (from < text.length) pieces.push(text.slice(from));
    return pieces;
  };
}

/** A pattern as JavaScript's; the library knows Oniguruma's syntax, in which it is written. */
function regexOf(pattern: { Regex?: unknown; String?: unknown } | undefined): RegExp | undefined {
  if (typeof pattern?.String === "string" && pattern.String !== "") {
    return new RegExp(RegExp.escape(pattern.String), "gu");
  }
  if (typeof pattern?.Regex !== "string") return undefined;
  const { pattern: translated } = new SplitPreTokenizer(
    { type: "Split", pattern: { Regex: pattern.Regex }, behavior: "isolated", invert: false } as never,
  );
  if (!translated) return undefined;
  // It folds ASCII only: to Oniguruma (?i:s) is ſ too, and (?i:k) the sign of kelvin.
  const source = translated.source.replaceAll("[sS]", "[sSſ]").replaceAll("[kK]", "[kK\u212a]");
  return new RegExp(source, "gu");
}

/** Every match, and what stands between them, in order. */
function matchesAndRests(text: string, pattern: RegExp): string[] {
  const words = text.match(pattern) ?? [];
  let length = 0;
  for (const word of words) length += word.length;
  if (length === text.length) return words;
  const pieces: string[] = [];
  let from = 0;
  for (const { 0: match, index } of text.matchAll(pattern)) {
    if (index > from) pieces.push(text.slice(from, index));
    if (match !== "") pieces.push(match);
    from = index + match.length;
  }
  if (from < text.length) pieces.push(text.slice(from));
  return pieces;
}

/** Parts of a text: what is not a token yet, and ids of added tokens, in order. */
export type Find = (text: string) => (string | number)[];

const WORD = "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\u200c\\u200d]";
const ENDS_WITH_WORD = new RegExp(`${WORD}$`, "u");
const STARTS_WITH_WORD = new RegExp(`^${WORD}`, "u");
const SPACES_AT_END = /\p{White_Space}*$/u;
const SPACES_AT_START = /^\p{White_Space}*/u;

/**
 * Finds added tokens in a text, the leftmost and of these the longest. Special ones are spelled, not found, since text is
 * data; but where one is spelled, no other that it overlaps is found.
 *
 * @returns undefined where none can be found
 */
export function createFind(tokens: readonly AddedToken[]): Find | undefined {
  const byContent = new Map(tokens.map((token) => [token.content, token]));
  byContent.delete("");
  if (byContent.values().every(({ special = true }) => special)) return undefined;
  const longestFirst = [...byContent.keys()].sort((a, b) => b.length - a.length);
  const pattern = new RegExp(longestFirst.map((content) => RegExp.escape(content)).join("|"), "gu");
  return (text) => {
    const parts: (string | number)[] = [];
    let from = 0;
    for (const { 0: content, index } of text.matchAll(pattern)) {
      const { id, special = true, single_word, lstrip, rstrip } = byContent.get(content)!;
      if (special) continue;
      let [start, end] = [index, index + content.length];
      // Code points, so that no half of one is looked at.
      const inWord = (): boolean =>
        ENDS_WITH_WORD.test(text.slice(Math.max(0, start - 2), start)) ||
        STARTS_WITH_WORD.test(text.slice(end, end + 2));
      if (single_word && inWord()) continue;
      if (lstrip) start = Math.max(from, SPACES_AT_END.exec(text.slice(from, start))!.index + from);
      if (rstrip) end += SPACES_AT_START.exec(text.slice(end))![0].length;
      if (start > from) parts.push(text.slice(from, start));
      parts.push(id);
      from = end;
    }
    if (from < text.length) parts.push(text.slice(from));
    return parts;
  };
}
