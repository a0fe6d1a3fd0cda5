/**
 * Activations of a model over documents, each in a row of its own.
 *
 * @module
 */
import type { Interventions } from "../circuits/interventions.ts";
import { turn } from "../turn.ts";
import type { ReadRow } from "./read_rows.ts";
import type { StoredForm } from "./stored_form.ts";
import type { WholeDocument } from "./whole_documents.ts";

/**
 * Reads documents' rows, without what pads them.
 *
 * @param runs compiled for up to `batch` prompts of up to `context` tokens, as many as the longest document has
 * @param options `onBatch`: told before the first batch and after each how many are done
 * @throws the signal's reason when it is aborted
 */
export async function* readDocumentRows(
  runs: Pick<Interventions, "run">,
  forms: readonly StoredForm[],
  { documents, batch, context, onBatch, signal }: {
    documents: readonly WholeDocument[];
    batch: number;
    context: number;
    onBatch(done: number): void;
    signal: AbortSignal;
  },
): AsyncGenerator<ReadRow> {
  const read = forms.map(({ name }) => name);
  onBatch(0);
  for (let first = 0; first < documents.length; first += batch) {
    await turn();
    signal.throwIfAborted();
    const part = documents.slice(first, first + batch);
    const { activations } = await runs.run(part.map(({ tokens }) => Array.from(tokens)), { read, at: [] });
    for (const [row, { place, tokens }] of part.entries()) {
      yield {
        tokens,
        documents: new Int32Array(tokens.length).fill(place),
        positions: context,
        activations: new Map(forms.map(({ name, kind }) => {
          const all = activations.get(name)!;
          const length = all.length / part.length;
          // A map has queries behind its heads.
          const kept = kind === "values" ? length / context * tokens.length : length;
          return [name, all.subarray(row * length, row * length + kept)];
        })),
      };
    }
    onBatch(first / batch + 1);
  }
}
