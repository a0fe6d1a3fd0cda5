/**
 * Measures a model on held-out tokens with hard gates: loss, and which edges are open.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { type GateMode, HEAD_SUMS } from "../../kernels/gated_attention/op.ts";
import { createDeviceLog } from "./device_log.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { hardGates } from "../model/gates.ts";
import type { Network } from "../model/network.ts";
import type { Parameters } from "../model/parameters.ts";
import { type Exchange, sharersOf } from "../parallel/exchange.ts";
import { preparePipeline } from "./pipeline.ts";
import { type Batch, cutBatch } from "../text/batches.ts";
import { UnmeasurableError } from "../errors.ts";
import { turn } from "../turn.ts";

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
  /**
   * Mean probability of a row's counted tokens together: the share of rows that would be exact were each drawn at temperature 1.
   */
  expectedExact: number;
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

/**
 * Refuses a model whose weights are finite, and whose loss is not.
 *
 * @throws {UnmeasurableError} naming the model
 */
export function checkLoss({ ce, tokens }: Pick<Evaluation, "ce" | "tokens">, model: string): void {
  if (Number.isFinite(ce)) return;
  throw new UnmeasurableError(
    `Cannot measure ${model} as its loss on ${tokens} tokens must be finite: ${ce}; its weights may be too large for float32`,
  );
}

const OPEN = HEAD_SUMS.indexOf("open");
const DEAD = HEAD_SUMS.indexOf("dead");

/** What one batch gives, or a part of one. */
interface MeasuredPart {
  loss: number;
  correct: number;
  tokens: number;
  exact: number;
  expected: number;
  /** By head. */
  open: Float32Array;
  dead: Float32Array;
}

/** Batches of more rows than a network has, in parts. */
async function* partsOf(
  batches: Iterable<Batch> | AsyncIterable<Batch>,
  shape: Network["shape"],
): AsyncGenerator<{ part: Batch; batchIndex: number }> {
  let batchIndex = 0;
  for await (const whole of batches) {
    for (const part of cutBatch(whole, shape)) yield { part, batchIndex };
    batchIndex++;
  }
}

/**
 * Evaluates `parameters` with `mode` over `batches`.
 *
 * @example The loss of prompts and their answers, of which the answer alone counts
 * ```ts
 * import assert from "node:assert/strict";
 * import { evaluate, IGNORED, loadModel } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition", { context: 8 });
 * const tokens = model.tokenizer.encode("12+34=46");
 * const inputs = new Uint32Array(8), targets = new Uint32Array(8).fill(IGNORED);
 * inputs.set(tokens);
 * targets.set(tokens.slice(6, 7), 5);
 * const { ce, tokens: counted } = await evaluate(model.gpu, model.network, model.parameters, {
 *   mode: "dense",
 *   batches: [{ inputs, targets, rows: 1 }],
 * });
 * assert(counted === 1 && ce > 0);
 * ```
 *
 * @param options `gateBias`: needed for deterministic gates; `onBatch`: told before the first batch and after each how many
 * are done; `signal`: aborted to end it before the next batch; `exchange`: the other ranks, with which the batches are
 * shared out, to the same result at each; `signal` is then the exchange's
 * @throws {RangeError} when there is no batch, and the signal's reason when it is aborted
 */
export async function evaluate(
  gpu: Gpu,
  network: Network,
  parameters: Parameters,
  options: {
    mode: Extract<GateMode, "dense" | "deterministic">;
    gateBias?: number;
    batches: Iterable<Batch> | AsyncIterable<Batch>;
    onBatch?(done: number): void;
    signal?: AbortSignal;
    exchange?: Exchange;
  },
): Promise<Evaluation> {
  const { mode, gateBias, batches, onBatch, signal, exchange } = options;
  const { layers, heads } = network.config;
  const { context, batch } = network.shape;
  const { totals, headSums, lossRows, stage } = network;
  const stages = exchange?.stages;
  const pipeline = stages && preparePipeline(gpu, network, stages);
  const log = createDeviceLog(gpu, { totals, headSums, lossRows }, 2);
  network.configureGates(hardGates(gateBias, batch));
  let loss = 0;
  let correct = 0;
  let tokens = 0;
  let rows = 0;
  let exact = 0;
  let expected = 0;
  const open = new Float64Array(layers * heads);
  const dead = new Float64Array(layers * heads);
  const batchSums: { loss: number; tokens: number }[] = [];
  /** What this rank measured, in order. */
  const measured: MeasuredPart[] = [];
  const rowCounts: number[] = [];

  function keep(logged: Awaited<ReturnType<typeof log.poll>>): void {
    for (const row of logged) {
      const ofHeads = (sum: number): Float32Array =>
        Float32Array.from(open, (_, head) => row.headSums[head * HEAD_SUMS.length + sum]);
      let exactRows = 0;
      let expectedRows = 0;
      for (let r = 0; stage.hasHead && r < rowCounts[row.step]; r++) {
        let wrong = false;
        let rowLoss = 0;
        for (let t = 0; t < context; t++) {
          const at = 4 * (r * context + t);
          if (row.lossRows[at + 3] === 1 && row.lossRows[at + 1] === 0) wrong = true;
          rowLoss += row.lossRows[at];
        }
        if (!wrong) exactRows++;
        expectedRows += Math.exp(-rowLoss);
      }
      const [partLoss, partCorrect, , counted] = row.totals;
      measured.push({
        loss: partLoss,
        correct: partCorrect,
        tokens: counted,
        exact: exactRows,
        expected: expectedRows,
        open: ofHeads(OPEN),
        dead: ofHeads(DEAD),
      });
    }
  }

  function add(part: MeasuredPart, batchIndex: number): void {
    loss += part.loss;
    correct += part.correct;
    tokens += part.tokens;
    exact += part.exact;
    expected += part.expected;
    const ofBatch = batchSums[batchIndex] ??= { loss: 0, tokens: 0 };
    ofBatch.loss += part.loss;
    ofBatch.tokens += part.tokens;
    for (let head = 0; head < open.length; head++) {
      open[head] += part.open[head];
      dead[head] += part.dead[head];
    }
  }

  const { rank, size } = sharersOf(exchange);
  /** Ranks that measure a part together, each something of it, and whose parts these are by turns. */
  const { count = 1 } = stages ?? {};
  /** Of each part, which batch it is of. */
  const batchOf: number[] = [];
  try {
    onBatch?.(0);
    for await (
      const { part: { inputs, targets, rows: rowsOfPart }, batchIndex } of partsOf(batches, network.shape)
    ) {
      const turnOf = batchOf.length % size;
      // Where all wait for each other no stage is ahead of the next.
      if (batchOf.length % (size * count) === 0) await exchange?.agree();
      await turn();
      signal?.throwIfAborted();
      batchOf.push(batchIndex);
      rows += rowsOfPart;
      if (turnOf === rank) {
        network.upload(inputs, targets);
        network.configureRows(rowsOfPart);
        const record = (recorder: Recorder): void => {
          recorder.clear(totals);
          recorder.clear(headSums);
          network.forward(recorder, parameters, mode);
          if (stage.hasHead) network.head(recorder, parameters);
          log.record(recorder, rowCounts.length);
        };
        if (pipeline) await pipeline.forward("evaluation", record);
        else gpu.submit("evaluation", record);
        rowCounts.push(rowsOfPart);
        keep(await log.poll());
      }
      onBatch?.(batchIndex + 1);
    }
    await pipeline?.end();
    await exchange?.agree();
    await turn();
    signal?.throwIfAborted();
    keep(await log.drain());
  } finally {
    log.destroy();
    pipeline?.destroy();
  }
  // In the order of the batches, so that ranks that evaluate by turns get what one would.
  const ofRanks = await exchange?.gather(measured, "an evaluation") ?? [measured];
  batchOf.forEach((batchIndex, part) => {
    const first = part % size * count;
    for (const ofStage of ofRanks.slice(first, first + count)) {
      add(ofStage[Math.floor(part / size)], batchIndex);
    }
  });
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
    expectedExact: expected / rows,
    openFraction: sum(open) / (layers * heads * pairs),
    edgesPerQuery: sum(open) / (layers * heads * queries),
    deadQueries: sum(dead) / (layers * heads * queries),
    liveHeads: countLiveHeads(open, queries),
    openByHead: Array.from(
      { length: layers },
      (_, layer) => Array.from(open.subarray(layer * heads, (layer + 1) * heads), (edges) => edges / pairs),
    ),
    batchCe: batchSums.map((sums) => sums.loss / sums.tokens),
  };
}
