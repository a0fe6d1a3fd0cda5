/**
 * A model on rows of a task: which answers are right, and which edges are open.
 *
 * @module
 */
import { Gpu } from "../../kernels/core/gpu.ts";
import { readAttention } from "../model/attention_pattern.ts";
import { readModelConfig } from "../model/config_file.ts";
import { openWeights } from "../model/load_weights.ts";
import { hardGates } from "../model/gates.ts";
import { prepareNetwork } from "../model/network.ts";
import { loadParameters } from "../model/parameters.ts";
import { assertSelfCheck } from "../model/self_check.ts";
import { IGNORED } from "../../kernels/core/targets.ts";
import { loadTokenizer } from "../text/tokenizer.ts";
import type { TaskRow } from "./long_range_tasks.ts";

/** An edge that is open in so many heads of a layer. */
export interface OpenEdge {
  layer: number;
  query: number;
  key: number;
  heads: number;
}

/** What a model does on a row. */
export interface RowMeasure {
  /** Positions of the answers that it gives rightly, with the right ones before them. */
  right: ReadonlySet<number>;
  /** Undefined of a dense model. */
  edges?: readonly OpenEdge[];
}

/** In {@link Network.lossRows}: 1 where the target has the highest logit. */
const CORRECT = 1;
const LOSS_COLUMNS = 4;

/**
 * Measures the model of a folder.
 *
 * @param context T of the rows, which have a token more
 * @throws {UserError} on a model that cannot be read
 * @throws {AdapterError} when there is no adapter
 */
export async function measureRows(
  folder: string,
  rows: readonly TaskRow[],
  context: number,
  signal: AbortSignal,
): Promise<{ measures: RowMeasure[]; heads: number }> {
  const config = await readModelConfig(folder);
  const weights = await openWeights(folder, config);
  await weights.verify();
  const tokenizer = await loadTokenizer(folder, config);
  const gpu = await Gpu.open();
  try {
    await assertSelfCheck(gpu, { workload: { models: [config] } });
    const network = await prepareNetwork(gpu, config, { batch: 1, context, training: false });
    const parameters = await loadParameters(gpu, weights.parameters, (name) => weights.read(name));
    const bias = config.gate?.bias;
    const measures: RowMeasure[] = [];
    for (const { turns, answers } of rows) {
      signal.throwIfAborted();
      const tokens = tokenizer.encode(turns.map(({ prompt, completion }) => prompt + completion).join(""));
      const inputs = Uint32Array.from(tokens.slice(0, context));
      const targets = new Uint32Array(context).fill(IGNORED);
      for (const { query } of answers) targets[query] = tokens[query + 1];
      const edges = bias === undefined
        ? undefined
        : openEdges(await readAttention(gpu, network, parameters, [...inputs]), config.heads, context);
      network.upload(inputs, targets);
      network.configureRows(1);
      network.configureGates(hardGates(bias, 1));
      gpu.submit("answers", (recorder) => {
        network.forward(recorder, parameters, bias === undefined ? "dense" : "deterministic", {
          countEdges: false,
        });
        network.head(recorder, parameters);
      });
      const loss = await gpu.read(network.lossRows);
      const right = new Set(
        answers.map(({ query }) => query).filter((query) => loss[LOSS_COLUMNS * query + CORRECT] === 1),
      );
      measures.push({ right, edges });
    }
    return { measures, heads: config.heads };
  } finally {
    gpu.close();
  }
}

/** The edges that are open in any head. */
function openEdges(
  { layers }: Awaited<ReturnType<typeof readAttention>>,
  heads: number,
  length: number,
): OpenEdge[] {
  return layers.flatMap(({ gates }, layer) => {
    const found: OpenEdge[] = [];
    for (let query = 0; query < length; query++) {
      for (let key = 0; key <= query; key++) {
        let open = 0;
        for (let head = 0; head < heads; head++) {
          if (gates[(head * length + query) * length + key] > 0) open++;
        }
        if (open > 0) found.push({ layer, query, key, heads: open });
      }
    }
    return found;
  });
}
