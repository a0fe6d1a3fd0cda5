/**
 * Activations of a model over a text, row by row: the rows are those that an evaluation of the text runs, and a row is read
 * as a prompt is.
 *
 * @module
 */
import type { Interventions } from "../circuits/interventions.ts";
import { sequentialBatches } from "../text/batches.ts";
import type { Split, Tokens } from "../text/tokenise.ts";
import { turn } from "../turn.ts";
import { countDocuments } from "./documents.ts";

/** One row of a text as the model saw it. */
export interface ReadRow {
  /** What the model read (position). */
  tokens: Int32Array;
  /** Which document each is of, by its place in the data. */
  documents: Int32Array;
  /** Positions of the row, of which there are more than tokens where it is padded behind them. */
  positions: number;
  /**
   * What was read, by name, in the activation's own shape without the batch, and without the positions that pad the row; but
   * queries and keys are all of the row's.
   */
  activations: ReadonlyMap<string, Float32Array>;
}

/**
 * Reads a split's rows, as many as `limit` tokens hold and one at least.
 *
 * @param runs compiled for `batch` prompts of `context` tokens
 * @param options `onBatch`: told before the first batch and after each how many are done
 * @throws the signal's reason when it is aborted
 */
export async function* readRows(
  runs: Interventions,
  names: readonly string[],
  { tokens, split, batch, context, limit, endOfText, onBatch, signal }: {
    tokens: Tokens;
    split: Split;
    batch: number;
    context: number;
    limit: number;
    endOfText: number;
    onBatch(done: number): void;
    signal: AbortSignal;
  },
): AsyncGenerator<ReadRow> {
  const source = tokens[split];
  const stride = source.exampleTokens ?? context;
  const documents = await countDocuments(tokens, split, endOfText);
  let start = 0;
  let done = 0;
  onBatch(done);
  for await (const { inputs, rows } of sequentialBatches({ tokens: source, batch, context, limit })) {
    await turn();
    signal.throwIfAborted();
    const prompts = Array.from(
      { length: batch },
      (_, row) => [...inputs.subarray(row * context, (row + 1) * context)],
    );
    const { activations } = await runs.run(prompts, { read: names, at: [] });
    for (let row = 0; row < rows; row++) {
      const window = await source.window(start, stride);
      start += stride;
      const ofWindow = documents.next(window);
      // A token that begins every text may stand before the window.
      const before = prompts[row][0] === window[0] ? 0 : 1;
      yield {
        tokens: Int32Array.from(prompts[row]),
        documents: Int32Array.from({ length: context }, (_, t) => ofWindow[Math.max(0, t - before)]),
        positions: context,
        activations: new Map(
          Array.from(activations, ([name, values]) => {
            const length = values.length / batch;
            return [name, values.subarray(row * length, (row + 1) * length)];
          }),
        ),
      };
    }
    onBatch(++done);
  }
}
