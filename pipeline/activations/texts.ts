/**
 * The text whose activations are written, as rows: rows that documents fill together, as an evaluation runs them, or a row
 * for each document.
 *
 * @module
 */
import type { Interventions } from "../circuits/interventions.ts";
import { batchCount } from "../text/batches.ts";
import type { Source } from "../text/data_files.ts";
import { hashSources, type Split, type Tokens } from "../text/tokenise.ts";
import { readDocumentRows } from "./document_rows.ts";
import { type ReadRow, readRows } from "./read_rows.ts";
import type { StoredForm } from "./stored_form.ts";
import { readWholeDocuments } from "./whole_documents.ts";

/** A part of a text, which has files of its own. */
export interface TextPart {
  /** What its files are called after. */
  name: Split | "documents";
  /** How many batches of so many rows it has. */
  batches(batch: number): number;
  /**
   * Runs the model over its rows.
   *
   * @param runs compiled for `batch` rows of the text's context
   */
  rows(
    runs: Interventions,
    forms: readonly StoredForm[],
    options: { batch: number; onBatch(done: number): void; signal: AbortSignal },
  ): AsyncGenerator<ReadRow>;
}

/** A text as rows of one length. */
export interface TextRows {
  /** What the data is called, with its commit on the hub. */
  data: string[];
  /** SHA-256 of the data. */
  sha256: string | undefined;
  /** Positions of a row. */
  context: number;
  /** How many rows there are; undefined where it does not matter. */
  rows?: number;
  parts: readonly TextPart[];
  /** What is further told of it where its activations are told of. */
  told: Readonly<Record<string, number>>;
}

/**
 * Rows that documents fill together.
 *
 * @param options `context`: positions of each; `limit`: tokens of each split, at most
 */
export function rowsOfSplits(
  { names, splits, tokens }: { names: string[]; splits: readonly Split[]; tokens: Tokens },
  { context, limit, endOfText }: { context: number; limit: number; endOfText: number },
): TextRows {
  return {
    data: names,
    sha256: tokens.test.metadata.get("sources"),
    context,
    parts: splits.map((split): TextPart => ({
      name: split,
      batches: (batch) => batchCount({ tokens: tokens[split], batch, context, limit }),
      rows: (runs, forms, options) =>
        readRows(runs, forms.map(({ name }) => name), {
          ...options,
          tokens,
          split,
          context,
          limit,
          endOfText,
        }),
    })),
    told: {},
  };
}

/**
 * A row for each document, as long as the longest; of one that is longer than the context the beginning.
 *
 * @param names what the sources are called
 * @param options as `readWholeDocuments`'; `onMessage` and `onWarning` are told what is not read
 * @throws {UserError} as `readWholeDocuments`
 */
export async function rowsOfDocuments(
  sources: readonly Source[],
  names: string[],
  { onMessage, onWarning, ...options }: Parameters<typeof readWholeDocuments>[1] & {
    onMessage(text: string): void;
    onWarning(text: string): void;
  },
): Promise<TextRows> {
  const sha256 = await hashSources(sources);
  const { documents, cut, empty, more } = await readWholeDocuments(sources, options);
  const { length } = documents;
  const { context: most, limit } = options;
  if (more) {
    onMessage(
      `${length} ${length === 1 ? "document is" : "documents are"} read: --tokens ${limit} holds no more`,
    );
  }
  if (empty > 0) onWarning(`${empty} ${empty === 1 ? "document has" : "documents have"} no token: left out`);
  if (cut > 0) {
    onWarning(
      `longer than ${most} tokens, of which the first ${most} are read: ${cut} of ${length} documents`,
    );
  }
  const context = documents.reduce((longest, { tokens }) => Math.max(longest, tokens.length), 0);
  return {
    data: names,
    sha256,
    context,
    rows: length,
    parts: [{
      name: "documents",
      batches: (batch) => Math.ceil(length / batch),
      rows: (runs, forms, options) => readDocumentRows(runs, forms, { ...options, documents, context }),
    }],
    told: { documents: length, cut },
  };
}
