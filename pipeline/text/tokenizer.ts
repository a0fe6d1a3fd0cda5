/**
 * Tokenizers: any Hugging Face tokenizer.json, and GPT-2's own BPE at full speed.
 *
 * Text is data: a literal `<|endoftext|>` in it becomes the tokens that spell it, never the token that separates
 * documents.
 *
 * @module
 */
import { join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { END_OF_TEXT, GPT2_WORDS } from "./bpe_trainer.ts";
import { inputError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import {
  digestOf,
  exists,
  isObject,
  MAX_JSON_BYTES,
  parseJson,
  readText,
  reasonOf,
  shown,
} from "../files.ts";

/** Tokens of a text, and what of it they leave out. */
export interface KnownTokens {
  /** Of what is known. */
  tokens: number[];
  /** Characters of the text that the vocabulary has no token for, nor one for what is unknown. */
  lost: number;
  /** The first of them. */
  firstLost?: string;
}

/** Text to tokens and back. */
export interface Tokenizer {
  /** Path of its tokenizer.json. */
  readonly path: string;
  /** Entries, special tokens included. */
  readonly vocabularySize: number;
  /** The token that separates documents. */
  readonly endOfText: number;
  /** SHA-256 of the tokenizer.json. */
  readonly hash: string;
  /**
   * Tokens of a text, without any that begin or end one.
   *
   * @throws {UserError} naming the first character that the vocabulary has no token for, nor one for what is unknown
   */
  encode(text: string): number[];
  /**
   * As {@link Tokenizer.encode}, without such characters, which are counted.
   *
   * @throws {UserError} when a whole word has no token, of a vocabulary of words
   */
  encodeKnown(text: string): KnownTokens;
  /** The text that tokens spell, every space of it. */
  decode(tokens: Iterable<number>): string;
}

/** What we look at in a tokenizer.json. */
interface TokenizerJson {
  added_tokens?: { id: number; content: string; special?: boolean }[];
  pre_tokenizer?: { type?: string; use_regex?: boolean; add_prefix_space?: boolean } | null;
  normalizer?: unknown;
  model?: { type?: string; vocab?: unknown; unk_token?: string | null };
}

const GPT2_ENTRIES = 50257;

/**
 * Loads a tokenizer.json, or the one in a folder.
 *
 * @param options `endOfText` is the id that the model's config.json names; left out, or where the tokenizer has no such
 * entry, an entry of a usual name is taken
 * @throws {UserError} when there is none, or it has no end-of-text token
 */
export async function loadTokenizer(
  path: string,
  { endOfText: wanted }: { endOfText?: number } = {},
): Promise<Tokenizer> {
  const file = (await Deno.stat(path).catch(() => undefined))?.isDirectory
    ? join(path, "tokenizer.json")
    : path;
  if (file !== path && !await exists(file) && await exists(join(path, "vocab.json"))) {
    throw inputError(
      `Cannot read ${file}: no such file; where vocab.json and merges.txt stand, Python's transformers makes it: ` +
        `AutoTokenizer.from_pretrained(${shown(path)}).save_pretrained(${shown(path)})`,
    );
  }
  const text = await readText(file, MAX_JSON_BYTES);
  const json = parseJson(text, file) as TokenizerJson;
  const entries = entriesOf(json, file);
  let tokenizer: HuggingFaceTokenizer;
  try {
    tokenizer = new HuggingFaceTokenizer(tellingWhatIsLost(json, entries), {});
    // What is wrong with merges, normalizers and decoders shows itself only when they are used.
    // A vocabulary need not cover it: some models have no token for a word that they do not know.
    const ids = tokenizer.encode(TRIAL, { add_special_tokens: false }).ids.filter(Number.isInteger);
    if (ids.length > 0) tokenizer.decode(ids);
  } catch (error) {
    throw inputError(`Cannot use the tokenizer ${file} as it cannot encode: ${reasonOf(error)}`);
  }
  const vocabularySize = 1 + entries.values().reduce((highest, id) => Math.max(highest, id), -1);
  const named = wanted !== undefined && entries.values().some((id) => id === wanted) ? wanted : undefined;
  const endOfText = named ?? entries.get(END_OF_TEXT) ?? entries.get("</s>") ?? entries.get("<eos>");
  if (endOfText === undefined) {
    throw inputError(
      `Cannot use the tokenizer ${file} as it has no ${END_OF_TEXT}, </s> or <eos> to separate documents, nor does a ` +
        `config.json name another by eos_token_id`,
    );
  }
  const shared = {
    path: file,
    vocabularySize,
    endOfText,
    hash: digestOf(text),
    // As it is: no space is taken away before a full stop, and no token is left out.
    decode: (tokens: Iterable<number>) => {
      const ids = [...tokens];
      const asIs = { clean_up_tokenization_spaces: false, skip_special_tokens: false };
      return ids.length === 0 ? "" : tokenizer.decode(ids, asIs);
    },
  };
  if (isGpt2(entries, json)) {
    const encode = await gpt2Encoder();
    return { ...shared, encode, encodeKnown: (text) => ({ tokens: encode(text), lost: 0 }) };
  }
  const encodeKnown = knownEncoderOf(encoderOf(json, tokenizer, file));
  return {
    ...shared,
    encodeKnown,
    encode(text) {
      const { tokens, lost, firstLost } = encodeKnown(text);
      if (lost === 0) return tokens;
      throw inputError(
        `Cannot encode as the tokenizer ${file} has no token for ${shown(firstLost)}, nor an unknown one`,
      );
    },
  };
}

/** Stands among tokens for what a vocabulary has none for. */
const NO_TOKEN = -1;

/** BPE leaves out what it has no token for; given an unknown token that has no id, it shows where. */
function tellingWhatIsLost(
  json: TokenizerJson,
  entries: ReadonlyMap<string, number>,
): Record<string, unknown> {
  const { model } = json;
  if (!losesText(json) || (model!.unk_token ?? null) !== null || entries.has("")) {
    return json as Record<string, unknown>;
  }
  return { ...json, model: { ...model, unk_token: "", fuse_unk: false } };
}

const losesText = ({ model }: TokenizerJson): boolean => (model?.type ?? "BPE") === "BPE";

/** Takes out and counts what has no token. */
function knownEncoderOf(encodeAll: (text: string) => number[]): Tokenizer["encodeKnown"] {
  /** Whether a character, by itself, has no token. */
  const unknown = new Map<string, boolean>();
  const isUnknown = (character: string): boolean => {
    let known = unknown.get(character);
    if (known === undefined) {
      unknown.set(character, known = encodeAll(character).includes(NO_TOKEN));
    }
    return known;
  };
  return (text) => {
    const all = encodeAll(text);
    if (!all.includes(NO_TOKEN)) return { tokens: all, lost: 0 };
    const tokens = all.filter((token) => token !== NO_TOKEN);
    let characters = 0;
    let firstLost: string | undefined;
    for (const character of text) {
      if (!isUnknown(character)) continue;
      characters++;
      firstLost ??= character;
    }
    // A character is lost by its bytes, of which there are more, or whole, unless it has a token beside others only.
    const lost = Math.max(1, Math.min(characters, all.length - tokens.length));
    return { tokens, lost, firstLost: firstLost ?? text };
  };
}

/** Share of a model's embedding rows that its tokenizer must have tokens for: the rest is padding. */
const NAMED_ROWS = 0.8;

/**
 * Checks that a tokenizer can be the model's. A vocabulary may be padded, as 50,257 entries to 50,304.
 *
 * @param label what error messages call the model
 * @throws {UserError} when it has more entries than the model has rows, or far fewer
 */
export function checkTokenizer(
  { path, vocabularySize }: Tokenizer,
  config: ModelConfig,
  label: string,
): void {
  const rows = config.vocabularySize;
  if (vocabularySize <= rows && vocabularySize >= NAMED_ROWS * rows) return;
  throw inputError(
    `Cannot use ${path} with ${label} as the model's vocabulary has ${rows} entries: ${vocabularySize}; it is not ` +
      `the tokenizer that the model was trained with`,
  );
}

/**
 * Checks a tokenizer that is to stand in for the one in a model's folder, where that has one: entries of both must be the
 * same, though either may have more.
 *
 * @throws {UserError} naming the first entry that differs
 */
export async function checkOwnTokenizer(tokenizer: Tokenizer, folder: string): Promise<void> {
  const file = join(folder, "tokenizer.json");
  if (!await exists(file)) return;
  const own = await loadTokenizer(file, { endOfText: tokenizer.endOfText });
  if (own.hash === tokenizer.hash) return;
  for (let id = 0; id < Math.min(own.vocabularySize, tokenizer.vocabularySize); id++) {
    const [expected, found] = [own.decode([id]), tokenizer.decode([id])];
    if (expected === found) continue;
    throw inputError(
      `Cannot use ${tokenizer.path} with ${folder} as token ${id} is ${shown(expected)} there: ${
        shown(found)
      }; it is ` +
        `not the tokenizer that the model was trained with`,
    );
  }
}

/** Text in which most parts of a tokenizer have something to do. */
const TRIAL = "The 12 quick brown foxes, it's said, jump\n\n  over a naïve café. 日本";
/** Types of models that are known; old files name none and are BPE. */
const MODELS: readonly unknown[] = ["BPE", "Unigram", "WordLevel", "WordPiece"];
/** Ids beyond this are a slip, and would ask for an embedding that nothing can hold. */
const LARGEST_ID = 2 ** 24;

/**
 * Every entry with its id, added tokens included.
 *
 * @throws {UserError} naming the entry whose id is none
 */
function entriesOf(json: TokenizerJson, file: string): Map<string, number> {
  if (!isObject(json) || !isObject(json.model)) {
    throw inputError(`Cannot use the tokenizer ${file} as it has no model`);
  }
  const { type, vocab = {} } = json.model;
  if (type !== undefined && !MODELS.includes(type)) {
    throw inputError(
      `Cannot use the tokenizer ${file} as its model's type must be one of ${MODELS.join(", ")}: ${
        shown(type)
      }`,
    );
  }
  // Unigram models list pieces with their scores; an id is a place in the list.
  const listed = type === "Unigram" && Array.isArray(vocab) && vocab.every(Array.isArray);
  if (!listed && !isObject(vocab)) {
    throw inputError(`Cannot use the tokenizer ${file} as its vocabulary must be an object`);
  }
  const added = json.added_tokens ?? [];
  if (!Array.isArray(added) || !added.every(isObject)) {
    throw inputError(`Cannot use the tokenizer ${file} as its added_tokens must be a list of objects`);
  }
  const entries = new Map<string, number>();
  const put = (content: unknown, id: unknown): void => {
    if (typeof content !== "string" || !Number.isSafeInteger(id) || (id as number) < 0) {
      throw inputError(
        `Cannot use the tokenizer ${file} as the id of ${shown(content)} must be a whole number from 0: ${
          shown(id)
        }`,
      );
    }
    if ((id as number) > LARGEST_ID) {
      throw inputError(
        `Cannot use the tokenizer ${file} as the id of ${
          shown(content)
        } must be at most ${LARGEST_ID}: ${id}`,
      );
    }
    entries.set(content, id as number);
  };
  if (listed) (vocab as unknown[][]).forEach(([piece], id) => put(piece, id));
  else for (const [content, id] of Object.entries(vocab)) put(content, id);
  for (const { content, id } of added) put(content, id);
  return entries;
}

/**
 * Whether it is GPT-2's: the vocabulary's size and entries from its beginning, its middle and its end, and text that
 * reaches it as it is.
 */
function isGpt2(entries: ReadonlyMap<string, number>, json: TokenizerJson): boolean {
  const { normalizer, pre_tokenizer: before } = json as {
    normalizer?: unknown;
    pre_tokenizer?: { type?: unknown; add_prefix_space?: unknown };
  };
  const plain = !normalizer && before?.type === "ByteLevel" && before.add_prefix_space !== true;
  return plain && entries.size === GPT2_ENTRIES && entries.get("!") === 0 && entries.get("Ġthe") === 262 &&
    entries.get("Ġgazed") === 50255 && entries.get(END_OF_TEXT) === 50256;
}

async function gpt2Encoder(): Promise<(text: string) => number[]> {
  const { encode } = await import("gpt-tokenizer/encoding/r50k_base");
  // With its defaults it throws on a special token's text past position 0 and takes it as special at position 0.
  const asText = { allowedSpecial: new Set<string>(), disallowedSpecial: new Set<string>() };
  return (text) => encode(text, asText);
}

/** Encodes, with {@link NO_TOKEN} for what BPE has no token for. */
function encoderOf(
  json: TokenizerJson,
  tokenizer: HuggingFaceTokenizer,
  file: string,
): (text: string) => number[] {
  const plain = (text: string): number[] => {
    const { ids } = tokenizer.encode(text, { add_special_tokens: false });
    if (!ids.every(Number.isInteger)) {
      if (losesText(json)) return ids.map((id) => Number.isInteger(id) ? id : NO_TOKEN);
      throw inputError(
        `Cannot encode as the tokenizer ${file} has no token for a part of the text, nor an unknown one`,
      );
    }
    return ids;
  };
  const { pre_tokenizer: pre, normalizer } = json;
  const byWords = pre?.type === "ByteLevel" && pre.use_regex !== false && !pre.add_prefix_space &&
    !normalizer;
  // Words are encoded one by one and remembered: merges never cross them, and text repeats its words.
  const words = byWords ? cachedWords(plain) : plain;
  const added = json.added_tokens ?? [];
  const spelled = added.filter(({ content, special }) => special !== false && content.length > 1)
    .map(({ content }) => content);
  // Tokens that were added and are not special are part of the text, and may hold several words.
  const ordinary = added.filter(({ special }) => special === false).map(({ content }) => content);
  const encodeWords = (text: string): number[] =>
    (ordinary.some((token) => text.includes(token)) ? plain : words)(text);
  return (text) => {
    if (!spelled.some((token) => text.includes(token))) return encodeWords(text);
    // A special token's text is cut after its first character, so that neither half is recognised as special.
    let pieces = [text];
    for (const token of spelled) {
      pieces = pieces.flatMap((piece) => {
        const parts = piece.split(token);
        return parts.flatMap((part, n) => {
          const before = n > 0 ? token.slice(1) : "";
          const after = n < parts.length - 1 ? token[0] : "";
          return [before + part + after];
        });
      });
    }
    return pieces.flatMap(encodeWords);
  };
}

const MAX_CACHED_WORDS = 1 << 18;

function cachedWords(plain: (text: string) => number[]): (text: string) => number[] {
  const cache = new Map<string, number[]>();
  return (text) => {
    const tokens: number[] = [];
    for (const [word] of text.matchAll(GPT2_WORDS)) {
      let encoded = cache.get(word);
      if (!encoded) {
        encoded = plain(word);
        if (cache.size < MAX_CACHED_WORDS) cache.set(word, encoded);
      }
      for (const token of encoded) tokens.push(token);
    }
    return tokens;
  };
}
