/**
 * Requests as tokens, as lm-evaluation-harness makes them (lm_eval/api/model.py, lm_eval/models/huggingface.py, 0.4.13).
 *
 * @module
 */
import { dirname, join } from "node:path";
import { inputError } from "../errors.ts";
import { exists, isObject, readJson } from "../files.ts";
import { type Tokenizer, withStart } from "../text/tokenizer.ts";
import type { Request } from "./items.ts";
import { stripEnd } from "./tasks.ts";

/** Tokens of which the last ones count: the model reads all but the last, and is asked for each that counts. */
export interface Sequence {
  /** As many as a model has positions, and one more, at most. */
  tokens: readonly number[];
  /** How many of the last count. */
  counted: number;
  /** Whether there were more before them than the model has positions for. */
  cut?: true;
}

/** What texts are made of for one model. */
export interface Encoding {
  /** Text to tokens, and whether there is one before every text. */
  tokenizer: Pick<Tokenizer, "encode" | "startOfText">;
  /** Stands before a text that nothing stands before: {@link findPrefix}. */
  prefix: number;
  /** Positions that the model has. */
  contextLength: number;
}

/**
 * The token that stands before a text without a context: the tokenizer's `bos_token`, whether or not texts begin with it,
 * where there is none the model's `bos_token_id`, and for want of both what ends a text.
 *
 * @param named the model's `bos_token_id`
 */
export async function findPrefix(tokenizer: Tokenizer, named: number | undefined): Promise<number> {
  const path = join(dirname(tokenizer.path), "tokenizer_config.json");
  const json = await exists(path) ? await readJson(path) : {};
  const value = isObject(json) ? json.bos_token : undefined;
  const content = isObject(value) ? value.content : value;
  // There it says that there is none.
  if (value === null) return tokenizer.endOfText;
  if (typeof content !== "string") return tokenizer.startOfText ?? named ?? tokenizer.endOfText;
  const known = [tokenizer.startOfText, named, tokenizer.endOfText];
  const all = Array.from({ length: tokenizer.vocabularySize }, (_, id) => id);
  const found = [...known, ...all].find((id) => id !== undefined && tokenizer.spell(id) === content);
  return found ?? tokenizer.endOfText;
}

/**
 * The last tokens, so many that a model can read all but one of them.
 *
 * @throws {UserError} when those that count are more than that, which the harness refuses too
 */
function fitted(tokens: readonly number[], counted: number, contextLength: number): Sequence {
  if (counted > contextLength) {
    throw inputError(
      `Cannot measure a continuation of ${counted} tokens as the model's positions end at ${contextLength}`,
    );
  }
  const isCut = tokens.length > contextLength + 1;
  return { tokens: tokens.slice(-(contextLength + 1)), counted, ...(isCut ? { cut: true } : {}) };
}

/**
 * A request as tokens. White space at the end of the context goes to the continuation; a token across their border
 * belongs where the count of the context's own tokens puts it; what is too long is cut at its beginning.
 *
 * @throws {UserError} when the continuation alone is too long, or has a character without a token
 */
export function encodeRequest({ context, continuation }: Request, encoding: Encoding): Sequence {
  const { tokenizer, prefix, contextLength } = encoding;
  const before = stripEnd(context);
  const behind = context.slice(before.length) + continuation;
  if (before === "") {
    const tokens = tokenizer.encode(behind);
    return tokens[0] === prefix
      ? fitted(tokens, tokens.length - 1, contextLength)
      : fitted([prefix, ...tokens], tokens.length, contextLength);
  }
  const whole = withStart(tokenizer, tokenizer.encode(before + behind));
  const first = withStart(tokenizer, tokenizer.encode(before)).length;
  return fitted(whole, Math.max(0, whole.length - first), contextLength);
}

/**
 * A document in windows, each of whose tokens counts once. The first window stands behind the prefix and each other one
 * behind the last token of the one before; the last is filled up with what stands before it.
 */
export function encodeDocument(text: string, { tokenizer, prefix, contextLength }: Encoding): Sequence[] {
  const tokens = withStart(tokenizer, tokenizer.encode(text));
  if (tokens.length === 0) return [];
  const first = tokens.slice(0, contextLength);
  const windows: Sequence[] = [{ tokens: [prefix, ...first], counted: first.length }];
  for (let done = first.length; done < tokens.length;) {
    const counted = Math.min(tokens.length - done, contextLength);
    done += counted;
    windows.push({ tokens: tokens.slice(done - contextLength - 1, done), counted });
  }
  return windows;
}
