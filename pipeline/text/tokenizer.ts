/**
 * Tokenizers: any Hugging Face tokenizer.json. Byte-pair encoding with the parts that models of the families have is our
 * own, with the ids of Hugging Face's tokenizers; its JavaScript library does the rest, and at loading says whether it
 * comes to the same.
 *
 * Text is data: a literal `<|endoftext|>` in it becomes the tokens that spell it, never the token that separates
 * documents.
 *
 * @module
 */
import { dirname, join } from "node:path";
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { inputError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import { digestOf, exists, MAX_JSON_BYTES, parseJson, readText, reasonOf, shown } from "../files.ts";
import { NO_TOKEN } from "./bpe.ts";
import { createDecoder } from "./decoder.ts";
import { createFastEncoder, type Encode } from "./fast_tokenizer.ts";
import { findSpecialTokens, type SpecialTokens } from "./special_tokens.ts";
import { entriesOf, isBpe, type TokenizerJson } from "./tokenizer_json.ts";

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
export interface Tokenizer extends SpecialTokens {
  /** Path of its tokenizer.json. */
  readonly path: string;
  /** Entries, special tokens included. */
  readonly vocabularySize: number;
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
   * @param options `continued`: the text goes on with one that was encoded before, and gets no space that some
   * vocabularies put before a text
   * @throws {UserError} when a whole word has no token, of a vocabulary of words
   */
  encodeKnown(text: string, options?: { continued?: boolean }): KnownTokens;
  /** The text that tokens spell, every space of it but the one that some vocabularies put before a text. */
  decode(tokens: Iterable<number>): string;
  /** What a token spells inside a text, with the space before it. */
  spell(token: number): string;
}

/**
 * Tokens as a model that was trained with a token before every text wants them: behind that token, where there is one.
 */
export function withStart(
  { startOfText }: Pick<Tokenizer, "startOfText">,
  tokens: readonly number[],
): number[] {
  return startOfText === undefined ? [...tokens] : [startOfText, ...tokens];
}

/** How a tokenizer.json encodes. */
function encoderFrom(
  json: TokenizerJson,
  library: ReturnType<typeof openLibrary>,
  { file, tell }: { file: string; tell(message: string): void },
): Tokenizer["encodeKnown"] {
  const fast = fastEncoderOf(json, library);
  if ("not" in fast) {
    tell(`${file} is encoded by Hugging Face's JavaScript library, several times as slowly, as ${fast.not}`);
  }
  return knownEncoderOf("not" in fast ? encoderOf(json, library, file) : fast.encode);
}

/**
 * Encodes as a tokenizer.json says that has been loaded elsewhere.
 *
 * @param text of the tokenizer.json
 * @param file what messages call it
 */
export function openEncoder(text: string, file: string): Tokenizer["encodeKnown"] {
  const json = parseJson(text, file) as TokenizerJson;
  return encoderFrom(json, openLibrary(json, entriesOf(json, file), file), { file, tell() {} });
}

/**
 * Loads a tokenizer.json, or the one in a folder.
 *
 * @param named `endOfText` and `startOfText` are the ids that the model's config.json names; what stands beside the
 * tokenizer.json may name others ({@link SpecialTokens})
 * @param tell is told where the library encodes, and why
 * @throws {UserError} when there is none, it cannot encode, or has no end-of-text token
 */
export async function loadTokenizer(
  path: string,
  named: { endOfText?: number; startOfText?: number } = {},
  tell: (message: string) => void = () => {},
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
  const byId = new Map<number, string>();
  for (const [entry, id] of entries) byId.set(id, entry);
  const library = openLibrary(json, entries, file);
  const encodeKnown = encoderFrom(json, library, { file, tell });
  const specialTokens = await findSpecialTokens(json, { entries, folder: dirname(file), file, named });
  return {
    path: file,
    vocabularySize: 1 + byId.keys().reduce((highest, id) => Math.max(highest, id), -1),
    ...specialTokens,
    hash: digestOf(text),
    ...decodersOf(json, library, byId),
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

/**
 * Hugging Face's JavaScript library with a tokenizer.
 *
 * @throws {UserError} where it cannot encode
 */
function openLibrary(
  json: TokenizerJson,
  entries: ReadonlyMap<string, number>,
  file: string,
): HuggingFaceTokenizer {
  try {
    const library = new HuggingFaceTokenizer(tellingWhatIsLost(json, entries), {});
    // What is wrong with merges, normalizers and decoders shows itself only when they are used.
    // A vocabulary need not cover it: some models have no token for a word that they do not know.
    const ids = library.encode(TRIAL, { add_special_tokens: false }).ids.filter(Number.isInteger);
    if (ids.length > 0) library.decode(ids, AS_IT_IS);
    return library;
  } catch (error) {
    throw inputError(`Cannot use the tokenizer ${file} as it cannot encode: ${reasonOf(error)}`);
  }
}

/** No space is taken away before a full stop, and no token is left out. */
const AS_IT_IS = { clean_up_tokenization_spaces: false, skip_special_tokens: false };

/** Our own encoder, or why not: it must know the tokenizer's parts, and come to what the library comes to. */
function fastEncoderOf(
  json: TokenizerJson,
  library: HuggingFaceTokenizer,
): { encode: Encode } | { not: string } {
  const encode = createFastEncoder(json);
  if (!encode) return { not: "a part of it is not known here" };
  const expected = library.encode(TRIAL, { add_special_tokens: false }).ids;
  const found = encode(TRIAL, false);
  const agree = found.length === expected.length &&
    found.every((id, n) => id === (Number.isInteger(expected[n]) ? expected[n] : NO_TOKEN));
  return agree ? { encode } : { not: "our own encoder and the library come to other tokens" };
}

/** Our own decoder where it knows the tokenizer's parts, else the library's. */
function decodersOf(
  { decoder }: TokenizerJson,
  library: HuggingFaceTokenizer,
  byId: ReadonlyMap<number, string>,
): Pick<Tokenizer, "decode" | "spell"> {
  const own = createDecoder(decoder);
  if (!own) {
    const decode = (tokens: Iterable<number>): string => {
      const ids = [...tokens];
      return ids.length === 0 ? "" : library.decode(ids, AS_IT_IS);
    };
    return { decode, spell: (token) => decode([token]) };
  }
  return {
    decode(tokens) {
      const entries: string[] = [];
      for (const token of tokens) {
        // A row of padding has no entry.
        const entry = byId.get(token);
        if (entry !== undefined) entries.push(entry);
      }
      return own.decode(entries);
    },
    spell: (token) => own.inside(byId.get(token) ?? ""),
  };
}

/** BPE leaves out what it has no token for; given an unknown token that has no id, it shows where. */
function tellingWhatIsLost(
  json: TokenizerJson,
  entries: ReadonlyMap<string, number>,
): Record<string, unknown> {
  const { model } = json;
  if (!isBpe(json) || (model!.unk_token ?? null) !== null || entries.has("")) {
    return json as Record<string, unknown>;
  }
  return { ...json, model: { ...model, unk_token: "", fuse_unk: false } };
}

/** Takes out and counts what has no token. */
function knownEncoderOf(encode: Encode): Tokenizer["encodeKnown"] {
  /** Whether a character, by itself, has no token. */
  const unknown = new Map<string, boolean>();
  const isUnknown = (character: string): boolean => {
    let known = unknown.get(character);
    if (known === undefined) {
      unknown.set(character, known = encode(character, true).includes(NO_TOKEN));
    }
    return known;
  };
  return (text, { continued = false } = {}) => {
    const all = encode(text, continued);
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
  if (digestOf(await readText(file, MAX_JSON_BYTES)) === tokenizer.hash) return;
  const own = await loadTokenizer(file, { endOfText: tokenizer.endOfText });
  for (let id = 0; id < Math.min(own.vocabularySize, tokenizer.vocabularySize); id++) {
    const [expected, found] = [own.spell(id), tokenizer.spell(id)];
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

/** Encodes by the library, with {@link NO_TOKEN} for what BPE has no token for. */
function encoderOf(json: TokenizerJson, library: HuggingFaceTokenizer, file: string): Encode {
  const plain = (text: string): number[] => {
    const { ids } = library.encode(text, { add_special_tokens: false });
    if (!ids.every(Number.isInteger)) {
      if (isBpe(json)) return ids.map((id) => Number.isInteger(id) ? id : NO_TOKEN);
      throw inputError(
        `Cannot encode as the tokenizer ${file} has no token for a part of the text, nor an unknown one`,
      );
    }
    return ids;
  };
  const added = json.added_tokens ?? [];
  const spelled = added.filter(({ content, special }) => special !== false && content.length > 1)
    .map(({ content }) => content);
  return (text) => {
    if (!spelled.some((token) => text.includes(token))) return plain(text);
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
    return pieces.flatMap(plain);
  };
}
