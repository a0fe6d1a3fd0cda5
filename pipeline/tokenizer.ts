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
import { inputError } from "./errors.ts";
import { hashFile } from "./files.ts";

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
  encode(text: string): ArrayLike<number>;
  decode(tokens: Iterable<number>): string;
}

/** What we look at in a tokenizer.json. */
interface TokenizerJson {
  added_tokens?: { id: number; content: string }[];
  pre_tokenizer?: { type?: string; use_regex?: boolean; add_prefix_space?: boolean } | null;
  normalizer?: unknown;
  model?: { type?: string; vocab?: Record<string, number> };
}

const GPT2_ENTRIES = 50257;

/**
 * Loads a tokenizer.json, or the one in a folder.
 *
 * @throws {UserError} when there is none, or it has no end-of-text token
 */
export async function loadTokenizer(path: string): Promise<Tokenizer> {
  const file = (await Deno.stat(path).catch(() => undefined))?.isDirectory
    ? join(path, "tokenizer.json")
    : path;
  let json: TokenizerJson;
  try {
    json = JSON.parse(await Deno.readTextFile(file));
  } catch (error) {
    const what = error instanceof Deno.errors.NotFound ? "no such file" : (error as Error).message;
    throw inputError(`Cannot load the tokenizer ${file}: ${what}`);
  }
  let tokenizer: HuggingFaceTokenizer;
  try {
    tokenizer = new HuggingFaceTokenizer(json as Record<string, unknown>, {});
  } catch (error) {
    throw inputError(`Cannot load the tokenizer ${file}: ${(error as Error).message}`);
  }
  const entries = { ...json.model?.vocab };
  for (const { content, id } of json.added_tokens ?? []) entries[content] = id;
  const vocabularySize = 1 + Object.values(entries).reduce((highest, id) => Math.max(highest, id), -1);
  const endOfText = entries[END_OF_TEXT] ?? entries["</s>"] ?? entries["<eos>"];
  if (endOfText === undefined) {
    throw inputError(
      `Cannot use the tokenizer ${file} as it has no ${END_OF_TEXT}, </s> or <eos> to separate documents`,
    );
  }
  const shared = {
    path: file,
    vocabularySize,
    endOfText,
    hash: await hashFile(file),
    decode: (tokens: Iterable<number>) => tokenizer.decode([...tokens]),
  };
  if (isGpt2(entries)) return { ...shared, encode: await gpt2Encoder() };
  return {
    ...shared,
    encode: encoderOf(json, tokenizer, (json.added_tokens ?? []).map(({ content }) => content)),
  };
}

/** Whether the vocabulary is GPT-2's: its size, and entries from its beginning, its middle and its end. */
function isGpt2(entries: Record<string, number>): boolean {
  return Object.keys(entries).length === GPT2_ENTRIES && entries["!"] === 0 && entries["Ġthe"] === 262 &&
    entries["Ġgazed"] === 50255 && entries[END_OF_TEXT] === 50256;
}

async function gpt2Encoder(): Promise<Tokenizer["encode"]> {
  const { encode } = await import("gpt-tokenizer/encoding/r50k_base");
  // With its defaults it throws on a special token's text past position 0 and takes it as special at position 0.
  const asText = { allowedSpecial: new Set<string>(), disallowedSpecial: new Set<string>() };
  return (text) => encode(text, asText);
}

function encoderOf(
  json: TokenizerJson,
  tokenizer: HuggingFaceTokenizer,
  special: string[],
): Tokenizer["encode"] {
  const plain = (text: string): number[] => tokenizer.encode(text, { add_special_tokens: false }).ids;
  const { pre_tokenizer: pre, normalizer } = json;
  const byWords = pre?.type === "ByteLevel" && pre.use_regex !== false && !pre.add_prefix_space &&
    !normalizer;
  // Words are encoded one by one and remembered: merges never cross them, and text repeats its words.
  const encodeWords = byWords ? cachedWords(plain) : plain;
  const spelled = special.filter((token) => token.length > 1);
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
    return pieces.flatMap((piece) => [...encodeWords(piece)]);
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
