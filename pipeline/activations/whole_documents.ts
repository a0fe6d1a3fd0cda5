/**
 * Documents for rows of their own: the first of the data, each as a prompt of the same text is read.
 *
 * @module
 */
import { inputError } from "../errors.ts";
import { shown } from "../files.ts";
import { filesOf, type Source, sourceName } from "../text/data_files.ts";
import { type Example, readDocuments, type TextPiece } from "../text/documents.ts";
import { encodeExample } from "../text/tokenise.ts";
import { type Tokenizer, withStart } from "../text/tokenizer.ts";

/** A document that is read whole, or as far as a context holds it. */
export interface WholeDocument {
  /** Its place in the data, from 0. */
  place: number;
  /** With the token before every text, where the model was trained with one, and none behind it. */
  tokens: Int32Array;
}

/** The first documents of some data. */
export interface WholeDocuments {
  /** Those with a token. */
  documents: WholeDocument[];
  /** How many of them were longer than the context, of which the end was cut off. */
  cut: number;
  /** How many had no token. */
  empty: number;
  /** Whether there are more, beyond the limit. */
  more: boolean;
}

/**
 * Reads documents from the beginning of the data. A file of text is one document, without the line end that ends it; an
 * example is its prompts and completions.
 *
 * @param options `context`: tokens of each, at most; `limit`: tokens of all, at most, but one document at least
 * @throws {UserError} on data that cannot be read, a character that the tokenizer has no token for, and where no document
 * has a token
 */
export async function readWholeDocuments(
  sources: readonly Source[],
  { textColumn, tokenizer, context, limit }: {
    textColumn: string;
    tokenizer: Tokenizer;
    context: number;
    limit: number;
  },
): Promise<WholeDocuments> {
  const found: WholeDocuments = { documents: [], cut: 0, empty: 0, more: false };
  let place = -1;
  let total = 0;
  for await (const file of filesOf(sources)) {
    for await (const tokens of encoded(readDocuments([file], { textColumn }), tokenizer, context)) {
      place++;
      const length = Math.min(tokens.length, context);
      if (length === 0) {
        found.empty++;
        continue;
      }
      if (found.documents.length > 0 && total + length > limit) return { ...found, more: true };
      total += length;
      if (tokens.length > context) found.cut++;
      found.documents.push({ place, tokens: Int32Array.from(tokens.slice(0, context)) });
    }
  }
  if (found.documents.length === 0) {
    throw inputError(`Cannot use ${sources.map(sourceName).join(", ")} as no document has a token`);
  }
  return found;
}

/** Each document's tokens; of one that is longer than a context perhaps not all, but more than that. */
async function* encoded(
  documents: AsyncIterable<TextPiece | Example>,
  tokenizer: Tokenizer,
  context: number,
): AsyncGenerator<number[]> {
  let before: number[] = [];
  for await (const document of documents) {
    if (document.kind === "example") {
      yield encodeExample(document, tokenizer).tokens;
      continue;
    }
    const { text, where, line, last } = document;
    // Only a file that is one text has pieces with lines.
    const whole = line !== undefined && last ? text.replace(/\r?\n$/, "") : text;
    if (before.length <= context) {
      const { tokens, lost, firstLost } = tokenizer.encodeKnown(whole, { continued: before.length > 0 });
      if (lost > 0) {
        throw inputError(`Cannot use ${where} as the tokenizer has no token for ${shown(firstLost)}`);
      }
      before = before.concat(tokens);
    }
    if (!last) continue;
    yield before.length === 0 ? [] : withStart(tokenizer, before);
    before = [];
  }
}
