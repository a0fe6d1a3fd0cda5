/**
 * Which document of the data each token of a split is of.
 *
 * @module
 */
import type { TokenSource } from "../text/batches.ts";
import { isSplitByDocument, type Split, splitOf, SPLITS, type Tokens } from "../text/tokenise.ts";

/** Counts documents as a split is gone through. */
export interface DocumentCounter {
  /**
   * The documents that the next tokens of the split are of, each by its place in the data from 0.
   *
   * @param tokens those behind the ones of the call before: of examples all of the next one
   */
  next(tokens: ArrayLike<number>): Int32Array;
}

/** Tokens that are looked at together. */
const PIECE = 1 << 16;

/**
 * Begins to count in a split. A document ends with the token that ends a text; examples follow each other without one.
 *
 * Where a split has documents of its own, their places follow from its name; where it is a part of all tokens, the documents
 * before it are counted.
 */
export async function countDocuments(
  tokens: Tokens,
  split: Split,
  endOfText: number,
): Promise<DocumentCounter> {
  const { exampleTokens } = tokens[split];
  const byDocument = isSplitByDocument(tokens);
  const before = byDocument ? [] : SPLITS.slice(0, SPLITS.indexOf(split)).map((other) => tokens[other]);
  let place = -1;
  const goOn = (): void => {
    do place++; while (byDocument && splitOf(place) !== split);
  };
  if (exampleTokens !== undefined) {
    const length = before.reduce((sum, { length }) => sum + length, 0);
    place += Math.floor(length / exampleTokens);
    return {
      next({ length }) {
        goOn();
        return new Int32Array(length).fill(place);
      },
    };
  }
  goOn();
  for (const other of before) place += await countEnds(other, endOfText);
  return {
    next: (tokens) =>
      Int32Array.from(tokens, (token) => {
        const of = place;
        if (token === endOfText) goOn();
        return of;
      }),
  };
}

async function countEnds(tokens: TokenSource, endOfText: number): Promise<number> {
  let count = 0;
  for (let start = 0; start < tokens.length; start += PIECE) {
    const piece = await tokens.window(start, Math.min(PIECE, tokens.length - start));
    for (let n = 0; n < piece.length; n++) if (piece[n] === endOfText) count++;
  }
  return count;
}
