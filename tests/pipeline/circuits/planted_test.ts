/**
 * Circuits that are known because the weights were set by hand. The residual stream holds the token in dimensions 0 to
 * 7, which the logits are read from, another token in 8 to 15, and the position in 16 to 20. The heads that are no part
 * of the circuit, and the MLPs, write noise.
 */
import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { createCircuitEngine } from "../../../pipeline/circuits/engine.ts";
import { createGraph, edgeEnds } from "../../../pipeline/circuits/graph.ts";
import type { PromptSet } from "../../../pipeline/circuits/prompts.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { uploadModel } from "../../support/circuit_models.ts";
import { gpuTest } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const CONFIG: ModelConfig = gpt2Config({
  vocabularySize: 8,
  contextLength: 5,
  width: 32,
  layers: 2,
  heads: 2,
  mlpWidth: 64,
});
const SIZE = 16;
const GRAPH = createGraph(CONFIG);
const [TOKEN, OTHER, POSITION] = [0, 8, 16];
const QUERY = 0, KEY = 1, VALUE = 2;

/** Sets one element of a matrix whose rows have so many columns. */
type Set = (row: number, column: number, value: number) => void;

/** A model with noise everywhere but in the two heads of the circuit, which `plant` sets. */
function plantedWeights(
  plant: (head: (layer: number, head: number) => { read(part: number): Set; write: Set }) => void,
): Map<string, Float32Array> {
  const { width, vocabularySize, contextLength, mlpWidth } = CONFIG;
  const weights = new Map<string, Float32Array>();
  const matrix = (name: string, rows: number, columns: number, noise: number) => {
    const values = normals(weights.size, rows * columns, noise);
    weights.set(name, values);
    return values;
  };
  const wte = matrix("wte.weight", vocabularySize, width, 0);
  for (let token = 0; token < vocabularySize; token++) wte[token * width + TOKEN + token] = 1;
  const wpe = matrix("wpe.weight", contextLength, width, 0);
  for (let position = 0; position < contextLength; position++) {
    wpe[position * width + POSITION + position] = 1;
  }
  for (const layer of [0, 1]) {
    matrix(`h.${layer}.attn.c_attn.weight`, width, 3 * width, 0.02);
    matrix(`h.${layer}.attn.c_proj.weight`, width, width, 0.02);
    matrix(`h.${layer}.mlp.c_fc.weight`, width, mlpWidth, 0.02);
    matrix(`h.${layer}.mlp.c_proj.weight`, mlpWidth, width, 0.02);
  }
  plant((layer, head) => {
    const qkv = weights.get(`h.${layer}.attn.c_attn.weight`)!;
    const out = weights.get(`h.${layer}.attn.c_proj.weight`)!;
    for (let row = 0; row < width; row++) {
      for (const part of [QUERY, KEY, VALUE]) {
        const at = row * 3 * width + part * width + head * SIZE;
        qkv.fill(0, at, at + SIZE);
      }
    }
    out.fill(0, head * SIZE * width, (head + 1) * SIZE * width);
    return {
      read: (part) => (row, column, value) => {
        qkv[row * 3 * width + part * width + head * SIZE + column] = value;
      },
      write: (row, column, value) => {
        out[(head * SIZE + row) * width + column] = value;
      },
    };
  });
  return weights;
}

const TOKENS = [0, 1, 2, 3, 4, 5, 6, 7];

/**
 * Composition by values: head 1 of layer 0 takes the token of position 1 to position 2, head 0 of layer 1 takes it on to
 * position 3, where it is the answer.
 */
const BY_VALUES = plantedWeights((head) => {
  const first = head(0, 1);
  first.read(QUERY)(POSITION + 2, 0, 2);
  first.read(KEY)(POSITION + 1, 0, 2);
  const second = head(1, 0);
  second.read(QUERY)(POSITION + 3, 0, 2);
  second.read(KEY)(POSITION + 2, 0, 2);
  for (const token of TOKENS) {
    first.read(VALUE)(TOKEN + token, token, 1);
    first.write(token, OTHER + token, 1);
    second.read(VALUE)(OTHER + token, token, 1);
    second.write(token, TOKEN + token, 1);
  }
});

/**
 * Induction, composition by keys: head 1 of layer 0 takes every token to the position behind it, where head 0 of layer 1
 * finds it when the same token comes again, and says what stands there.
 */
const BY_KEYS = plantedWeights((head) => {
  const first = head(0, 1);
  for (let position = 0; position < CONFIG.contextLength; position++) {
    if (position > 0) first.read(QUERY)(POSITION + position, position - 1, 2);
    first.read(KEY)(POSITION + position, position, 2);
  }
  const second = head(1, 0);
  for (const token of TOKENS) {
    first.read(VALUE)(TOKEN + token, token, 1);
    first.write(token, OTHER + token, 0.5);
    second.read(QUERY)(TOKEN + token, token, 1.2);
    second.read(KEY)(OTHER + token, token, 1.2);
    second.read(VALUE)(TOKEN + token, token, 1);
    second.write(token, TOKEN + token, 1);
  }
});

const pairsOf = (
  pairs: [clean: number[], corrupted: number[], right: number, wrong: number][],
): PromptSet => ({
  task: "planted",
  metric: "logit_difference",
  pairs: pairs.map(([clean, corrupted, right, wrong]) => ({
    clean,
    corrupted,
    places: [{ position: clean.length - 1, right: [right], wrong: [wrong] }],
    template: "planted",
  })),
});

const PLANTED = {
  "composition by values": {
    weights: BY_VALUES,
    set: pairsOf([
      [[0, 1, 2, 3], [0, 4, 2, 3], 1, 4],
      [[5, 6, 7, 1], [5, 2, 7, 1], 6, 2],
      [[3, 3, 0, 5], [3, 7, 0, 5], 3, 7],
    ]),
    edges: ["embed > a0.h1.v", "a0.h1 > a1.h0.v", "a1.h0 > logits"],
    bias: -1,
  },
  "composition by keys": {
    weights: BY_KEYS,
    set: pairsOf([
      [[0, 1, 2, 3, 1], [0, 4, 2, 3, 1], 2, 3],
      [[5, 6, 7, 1, 6], [5, 2, 7, 1, 6], 7, 1],
      [[3, 4, 0, 5, 4], [3, 7, 0, 5, 4], 0, 5],
    ]),
    edges: ["embed > a0.h1.v", "a0.h1 > a1.h0.k", "a1.h0 > logits"],
    bias: -1,
  },
};

const nameOf = (edge: number): string => {
  const { source, input } = edgeEnds(GRAPH, edge);
  return `${source.name} > ${input.name}`;
};

const meanOf = (values: readonly ArrayLike<number>[], index: number): number =>
  values.reduce((sum, ofPair) => sum + ofPair[index], 0) / values.length;

async function discover(
  gpu: Gpu,
  config: ModelConfig,
  { weights, set }: typeof PLANTED[keyof typeof PLANTED],
) {
  const engine = await createCircuitEngine(gpu, uploadModel(gpu, config, weights), { set });
  const { clean, corrupted } = await engine.baselines();
  const total = meanOf([clean], 0) - meanOf([corrupted], 0);
  const scores = await engine.attribute({ name: "eap-ig", steps: 5 });
  const edges = Array.from({ length: GRAPH.edges }, (_, edge) => edge);
  const best = edges.toSorted((a, b) => Math.abs(meanOf(scores, b)) - Math.abs(meanOf(scores, a))).slice(
    0,
    10,
  );
  const exact = await engine.patchEdges(best);
  const found = best.filter((_, index) => meanOf(exact, index) > 0.1 * total);
  const nodes = await engine.patchNodes("noising");
  const heads = GRAPH.sources.filter(({ kind }, source) =>
    kind !== "embedding" && meanOf(nodes, source) > 0.1 * total
  );
  const keptOf = (edges: readonly number[]): Uint8Array => {
    const kept = new Uint8Array(GRAPH.edges);
    for (const edge of edges) kept[edge] = 1;
    return kept;
  };
  const alone = await engine.run(keptOf(found));
  const without = await engine.run(keptOf(edges.filter((edge) => !found.includes(edge))));
  engine.destroy();
  const share = (metrics: Float64Array): number =>
    metrics.reduce((sum, metric, pair) => sum + metric - corrupted[pair], 0) /
    clean.reduce((sum, metric, pair) => sum + metric - corrupted[pair], 0);
  return {
    clean,
    found: found.map(nameOf),
    heads: heads.map(({ name }) => name),
    alone: share(alone),
    without: share(without),
  };
}

for (const [name, planted] of Object.entries(PLANTED)) {
  for (const config of [CONFIG, { ...CONFIG, gate: { bias: planted.bias, temperature: 1 } }]) {
    const what = `${name}${config === CONFIG ? "" : ", gated"}`;
    gpuTest(`${what}: discovery returns exactly the edges and heads that were planted`, async (gpu) => {
      const { clean, found, heads, alone, without } = await discover(gpu, config, planted);
      assert(clean.every((metric) => metric > 0.5), `the model does the task: ${clean}`);
      assertEquals(new Set(found), new Set(planted.edges));
      assertEquals(heads, ["a0.h1", "a1.h0"]);
      // Measured: 0.9996 to 1.006 alone, 0.002 and less without it.
      assert(
        alone > 0.99 && alone < 1.01 && without < 0.01,
        `the circuit alone does ${alone}, the rest without it ${without}`,
      );
    });
  }
}
