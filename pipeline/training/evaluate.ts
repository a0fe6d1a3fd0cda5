/**
 * Measures a model on held-out tokens with hard gates: loss, and which edges are open.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { type GateMode, HEAD_SUMS } from "../../kernels/gated_attention/op.ts";
import { createDeviceLog } from "./device_log.ts";
import type { Network } from "../model/network.ts";
import type { Parameters } from "../model/parameters.ts";
import type { MicroBatch } from "./trainer.ts";
import { turn } from "../turn.ts";

/** A batch of held-out tokens of which only the first rows are real. */
export interface EvaluationBatch extends MicroBatch {
  /** Rows that are not padding. */
  rows: number;
}

/** Open edges a query from which on a head counts as live: one in a hundred queries. One in 65,536 is no use of a head. */
export const LIVE_EDGES = 0.01;

/** Heads that are live, by their open edges over so many queries. */
export function countLiveHeads(open: ArrayLike<number>, queries: number): number {
  return Array.from(open).filter((edges) => edges >= LIVE_EDGES * queries).length;
}

/** What is reported of a model. */
export interface Evaluation {
  /** Mean cross-entropy of the counted tokens, nats. */
  ce: number;
  /** exp(CE). */
  perplexity: number;
  /** Counted tokens. */
  tokens: number;
  /** Share of counted tokens whose target has the highest logit. */
  accuracy: number;
  /** Share of rows in which every counted token has: exact answers, where a row is one example. */
  exactRows: number;
  /** Open edges over causal pairs, all layers and heads; 1 for dense attention. */
  openFraction: number;
  /** Open edges of one head's query, on average. */
  edgesPerQuery: number;
  /** Share of queries (over layers and heads) with no open edge. */
  deadQueries: number;
  /** Heads with at least {@link LIVE_EDGES} open edges a query on these tokens. */
  liveHeads: number;
  /** Open fraction of each head (layer, head). */
  openByHead: number[][];
  /** Cross-entropy of each batch, nats, in order. */
  batchCe: number[];
}

const OPEN = HEAD_SUMS.indexOf("open");
const DEAD = HEAD_SUMS.indexOf("dead");

/**
 * Evaluates `parameters` with `mode` over `batches`.
 *
 * @param options `gateBias`: needed for deterministic gates; `onBatch`: told before the first batch and after each how many
 * are done; `signal`: aborted to end it before the next batch
 * @throws {RangeError} when there is no batch, and the signal's reason when it is aborted
 */
export async function evaluate(
  gpu: Gpu,
  network: Network,
  parameters: Parameters,
  options: {
    mode: Extract<GateMode, "dense" | "deterministic">;
    gateBias?: number;
    batches: Iterable<EvaluationBatch> | AsyncIterable<EvaluationBatch>;
    onBatch?(done: number): void;
    signal?: AbortSignal;
  },
): Promise<Evaluation> {
  const { mode, gateBias = 0, batches, onBatch, signal } = options;
  const { layers, heads } = network.config;
  const { context, batch } = network.shape;
  const { totals, headSums, lossRows } = network;
  const log = createDeviceLog(gpu, { totals, headSums, lossRows }, 2);
  network.configureGates({
    seed: 0,
    step: 0,
    firstRow: 0,
    bias: gateBias,
    temperature: 1,
    saturationWeight: 0,
    saturationBound: 0,
    batchRows: batch,
  });
  let loss = 0;
  let correct = 0;
  let tokens = 0;
  let rows = 0;
  let exact = 0;
  const open = new Float64Array(layers * heads);
  const dead = new Float64Array(layers * heads);
  const batchCe: number[] = [];
  const rowCounts: number[] = [];

  function take(logged: Awaited<ReturnType<typeof log.poll>>): void {
    for (const row of logged) {
      loss += row.totals[0];
      correct += row.totals[1];
      tokens += row.totals[3];
      batchCe.push(row.totals[0] / row.totals[3]);
      for (let head = 0; head < open.length; head++) {
        open[head] += row.headSums[head * HEAD_SUMS.length + OPEN];
        dead[head] += row.headSums[head * HEAD_SUMS.length + DEAD];
      }
      for (let r = 0; r < rowCounts[row.step]; r++) {
        let wrong = false;
        for (let t = 0; t < context; t++) {
          const at = 4 * (r * context + t);
          if (row.lossRows[at + 3] === 1 && row.lossRows[at + 1] === 0) wrong = true;
        }
        if (!wrong) exact++;
      }
    }
  }

  try {
    onBatch?.(0);
    for await (const { inputs, targets, rows: count } of batches) {
      await turn();
      signal?.throwIfAborted();
      network.upload(inputs, targets);
      network.configureRows(count);
      gpu.submit("evaluation", (recorder) => {
        recorder.clear(totals);
        recorder.clear(headSums);
        network.forward(recorder, parameters, mode);
        network.head(recorder, parameters);
        log.record(recorder, rowCounts.length);
      });
      rowCounts.push(count);
      rows += count;
      take(await log.poll());
      onBatch?.(rowCounts.length);
    }
    await turn();
    signal?.throwIfAborted();
    take(await log.drain());
  } finally {
    log.destroy();
  }
  if (tokens === 0) throw new RangeError("Cannot evaluate as at least one held-out token is needed: 0 given");
  const pairs = rows * context * (context + 1) / 2;
  const queries = rows * context;
  const sum = (values: Float64Array): number => values.reduce((a, b) => a + b, 0);
  const ce = loss / tokens;
  return {
    ce,
    perplexity: Math.exp(ce),
    tokens,
    accuracy: correct / tokens,
    exactRows: exact / rows,
    openFraction: sum(open) / (layers * heads * pairs),
    edgesPerQuery: sum(open) / (layers * heads * queries),
    deadQueries: sum(dead) / (layers * heads * queries),
    liveHeads: countLiveHeads(open, queries),
    openByHead: Array.from(
      { length: layers },
      (_, layer) => Array.from(open.subarray(layer * heads, (layer + 1) * heads), (edges) => edges / pairs),
    ),
    batchCe,
  };
}
