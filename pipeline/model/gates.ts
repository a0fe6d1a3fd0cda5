/** What the gates of a network see. @module */
import type { GateSettings } from "../../kernels/gated_attention/op.ts";

/** What the gates see; what an edge weighs in the sparsity loss follows from `batchRows`, the rows of a whole batch. */
export type NetworkGates = Omit<GateSettings, "edgeWeight"> & {
  /** Rows of all micro-batches of a step together. */
  batchRows: number;
};

/** What a network takes for gates without noise, as a trained model is run: open or closed. */
export function hardGates(bias: number | undefined, batchRows: number): NetworkGates {
  return {
    seed: 0,
    step: 0,
    firstRow: 0,
    bias: bias ?? 0,
    temperature: 1,
    saturationWeight: 0,
    saturationBound: 0,
    batchRows,
  };
}
