/** Held-out figures against float64: what is counted, over what, and that nothing is drawn at random. */
import type { Batch } from "../../../pipeline/text/batches.ts";
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { evaluate } from "../../../pipeline/training/evaluate.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters } from "../../../pipeline/model/parameters.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import {
  headTotal,
  joinRows,
  randomWeights,
  referenceLosses,
  type Rows,
} from "../../support/reference_training.ts";
import { seeded } from "../../support/seeded.ts";

const CONFIG: ModelConfig = gpt2Config({
  vocabularySize: 5,
  contextLength: 6,
  width: 12,
  layers: 2,
  heads: 3,
  mlpWidth: 20,
});
const CONTEXT = 5;
const BATCH = 3;
const BIAS = -1.5;
const IGNORED = 0xffffffff;
const WEIGHTS = randomWeights(CONFIG, 7);
// The last head's queries are 0, so that its gates are all closed.
for (const name of ["h.1.attn.c_attn.weight", "h.1.attn.c_attn.bias"]) {
  const values = WEIGHTS.get(name)!;
  values.forEach((_, n) => {
    if (n % (3 * CONFIG.width) >= 8 && n % (3 * CONFIG.width) < 12) values[n] = 0;
  });
}
const HEADS = CONFIG.layers * CONFIG.heads;

/** Three batches of three rows, the last with one row and two of padding, whose inputs are tokens all the same. */
const BATCHES: Batch[] = [3, 3, 1].map((rows, n) => {
  const random = seeded(40 + n);
  const token = () => random.integer(CONFIG.vocabularySize);
  const length = BATCH * CONTEXT;
  return {
    inputs: Uint32Array.from({ length }, token),
    targets: Uint32Array.from(
      { length },
      (_, at) => at >= rows * CONTEXT || random.uniform() < 0.6 ? IGNORED : token(),
    ),
    rows,
  };
});

/** The rows of a batch that are no padding. */
const real = ({ inputs, targets, rows }: Batch): Rows => ({
  inputs: inputs.subarray(0, rows * CONTEXT),
  targets: targets.subarray(0, rows * CONTEXT),
});

async function withModel(
  gpu: Gpu,
  body: (
    measure: (mode: "dense" | "deterministic", batches?: Batch[]) => ReturnType<typeof evaluate>,
  ) => Promise<void>,
): Promise<void> {
  const parameters = createParameters(gpu, parametersOf(CONFIG));
  for (const [name, tensor] of parameters) gpu.write(tensor, WEIGHTS.get(name)!);
  const network = await prepareNetwork(gpu, CONFIG, { batch: BATCH, context: CONTEXT, training: false });
  await body((mode, batches = BATCHES) =>
    evaluate(gpu, network, parameters, { mode, gateBias: BIAS, batches })
  );
  network.destroy();
}

for (const [mode, gate] of [["dense", undefined], ["deterministic", { bias: BIAS }]] as const) {
  gpuTest(
    `${mode}: every figure of an evaluation is float64's over the rows that are no padding`,
    async (gpu) => {
      await withModel(gpu, async (measure) => {
        const found = await measure(mode);
        const reference = { config: CONFIG, weights: WEIGHTS, context: CONTEXT, gate };
        const rows = joinRows(BATCHES.map(real));
        const expected = referenceLosses(reference, rows);
        assert(expected.margin > 1e-4, `a gate stands ${expected.margin} from its threshold`);
        const queries = rows.inputs.length;
        const pairs = queries * (CONTEXT + 1) / 2;
        const batchCe = BATCHES.map((batch) => referenceLosses(reference, real(batch)).ce);
        // Measured: 1.5e-7.
        assertClose([found.ce, found.perplexity], [expected.ce, Math.exp(expected.ce)], {
          tolerance: 1e-6,
          name: "loss and perplexity",
        });
        assertClose(found.batchCe, batchCe, { tolerance: 1e-6, name: "loss of each batch" });
        const likelihoods = expected.rowLosses.map((loss) => Math.exp(-loss));
        assertClose([found.expectedExact], [likelihoods.reduce((sum, of) => sum + of, 0) / 7], {
          tolerance: 1e-5,
          name: "expected share of exact rows",
        });
        const open = headTotal(expected.heads, "open");
        const dead = headTotal(expected.heads, "dead");
        const exact = expected.exact.reduce((sum, value) => sum + value, 0);
        const { tokens, accuracy, exactRows, openFraction, edgesPerQuery, deadQueries, liveHeads } = found;
        assertEquals({ tokens, accuracy, exactRows, openFraction, edgesPerQuery, deadQueries, liveHeads }, {
          tokens: expected.counted,
          accuracy: expected.correct / expected.counted,
          exactRows: exact / 7,
          openFraction: open / (HEADS * pairs),
          edgesPerQuery: open / (HEADS * queries),
          deadQueries: dead / (HEADS * queries),
          liveHeads: mode === "dense" ? 6 : 5,
        });
        assertEquals(
          found.openByHead,
          [[0, 1, 2], [3, 4, 5]].map((layer) => layer.map((head) => expected.heads[head].open / pairs)),
        );
        // The figures are such that one cannot stand for another.
        assert(exact > 0 && exact < 7, `exact rows: ${exact}`);
        if (mode === "dense") return assertEquals([openFraction, edgesPerQuery, deadQueries], [1, 3, 0]);
        assert(openFraction > 0.2 && openFraction < 0.8, `share of open edges: ${openFraction}`);
        assert(deadQueries > 0.1, `queries without an edge: ${deadQueries}`);
      });
    },
  );
}

gpuTest("an evaluation leaves no trace in the next, and needs a token that counts", async (gpu) => {
  await withModel(gpu, async (measure) => {
    const first = await measure("deterministic");
    await measure("dense");
    assertEquals(await measure("deterministic"), first);
    await assertRejects(() => measure("dense", []), RangeError, "at least one held-out token");
  });
});

gpuTest("an evaluation tells its batches, and ends before its next batch when it is to stop", async (gpu) => {
  const network = await prepareNetwork(gpu, CONFIG, { batch: BATCH, context: CONTEXT, training: false });
  const parameters = createParameters(gpu, parametersOf(CONFIG));
  for (const stopAt of [1, 3]) {
    const stop = new AbortController();
    const told: number[] = [];
    const evaluation = evaluate(gpu, network, parameters, {
      mode: "dense",
      batches: BATCHES,
      signal: stop.signal,
      onBatch(done) {
        told.push(done);
        // By a task of the event loop, as a signal of the system comes.
        if (done === stopAt) setTimeout(() => stop.abort());
      },
    });
    const error = await evaluation.then(() => undefined, (error) => error);
    assertEquals([told, error === stop.signal.reason], [[0, 1, 2, 3].slice(0, stopAt + 1), true]);
  }
  network.destroy();
});
