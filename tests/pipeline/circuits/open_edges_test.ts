/** Open edges of random models, whose gates are open and closed in every layer, against attention worked out in float64. */
import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { prepareInterventions } from "../../../pipeline/circuits/interventions.ts";
import { openEdgesOf } from "../../../pipeline/circuits/open_edges.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { type LayerPattern, readAttention } from "../../../pipeline/model/attention_pattern.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { familyModel, randomModel, TINY, type TwoSidedModel } from "../../support/circuit_models.ts";
import { gpuTest } from "../../support/gpu.ts";

const TOKENS = [3, 1, 4, 1, 5];
const { length } = TOKENS;
const spell = (token: number) => `<${token}>`;

const MODELS: [name: string, open: (gpu: Gpu) => TwoSidedModel | Promise<TwoSidedModel>][] = [
  ["gpt2", (gpu) => randomModel(gpu, { ...TINY, gate: { bias: 0.3, temperature: 1 } })],
  ["qwen3, of fewer key heads", (gpu) => familyModel(gpu, "qwen3", { bias: 0, temperature: 1 })],
];

/** Whether an open edge leads on from a position before a layer to an answer, found by walking along all of them. */
function reaches(
  seen: readonly LayerPattern[],
  layer: number,
  position: number,
  answers: readonly number[],
): boolean {
  if (layer === seen.length) return answers.includes(position);
  const { gates } = seen[layer];
  const queries = Array.from({ length: gates.length / length }, (_, row) => row)
    .filter((row) => row % length >= position && gates[row * length + position] > 0)
    .map((row) => row % length);
  return [position, ...queries].some((query) => reaches(seen, layer + 1, query, answers));
}

for (const [name, open] of MODELS) {
  gpuTest(`${name}: open edges are those whose gates are open, by layer, with their paths`, async (gpu) => {
    const model = await open(gpu);
    const { config, parameters } = model;
    const network = await prepareNetwork(gpu, config, { batch: 1, context: length, training: false });
    const { layers: seen } = await readAttention(gpu, network, parameters, TOKENS);
    const runs = await prepareInterventions(gpu, model, { batch: 1, positions: length });
    const listed = (answers: readonly number[], leastWeight?: number) =>
      openEdgesOf(runs, { config, spell }, TOKENS, { answers, leastWeight });
    for (const [answers, positions] of [[[-1], [4]], [[1, -2], [1, 3]], [[], []]]) {
      const edges = await listed(answers);
      const found = edges.values();
      for (let layer = 0; layer < config.layers; layer++) {
        let ofLayer = 0;
        for (let head = 0; head < config.heads; head++) {
          for (let query = 0; query < length; query++) {
            for (let key = 0; key <= query; key++) {
              const at = (head * length + query) * length + key;
              if (!(seen[layer].gates[at] > 0)) continue;
              ofLayer++;
              const { weight, onPath, mayMatter, ...edge } = found.next().value!;
              assertEquals(edge, {
                layer,
                head,
                query,
                key,
                queryToken: spell(TOKENS[query]),
                keyToken: spell(TOKENS[key]),
              });
              // Measured: 1.8e-7.
              assertAlmostEquals(weight, seen[layer].weights[at], 1e-6);
              const isOnPath = reaches(seen, layer + 1, query, positions);
              assertEquals(onPath, isOnPath, `${JSON.stringify(edge)} to ${positions}`);
              assert(mayMatter || !onPath);
            }
          }
        }
        assert(ofLayer > 3 && ofLayer < config.heads * 15, `${ofLayer} edges of layer ${layer} are open`);
      }
      assert(found.next().done);
    }
    const all = await listed([-1]);
    assert(all.some(({ onPath }) => onPath) && all.some(({ onPath }) => !onPath));
    assertEquals(await listed([-1], 0), all);
    const least = all.map(({ weight }) => weight).toSorted((a, b) => a - b)[Math.floor(all.length / 2)];
    const heavy = all.filter(({ weight }) => weight >= least);
    assert(heavy.length < all.length);
    assertEquals(await listed([-1], least), heavy, "of the least weight too");
    await assertRejects(() => listed([5]), RangeError, "position 5 as the prompt has 5 tokens");
    runs.destroy();
    network.destroy();
  });
}

gpuTest("of a dense model all edges are open, and are listed where a least weight is given", async (gpu) => {
  const model = randomModel(gpu, TINY);
  const runs = await prepareInterventions(gpu, model, { batch: 1, positions: length });
  const listed = (leastWeight?: number) =>
    openEdgesOf(runs, { config: model.config, spell }, TOKENS, { answers: [-1], leastWeight });
  await assertRejects(() => listed(), UserError, "without gates all 60 of the prompt are open");
  const all = await listed(0);
  assertEquals(all.length, 60);
  // The last layer's of the answer's own queries, and all below.
  assertEquals(all.filter(({ onPath }) => onPath).length, 2 * 5 + 30);
  const heavy = await listed(0.5);
  assert(heavy.length > 0 && heavy.length < 60);
  assertEquals(heavy, all.filter(({ weight }) => weight >= 0.5));
  runs.destroy();
});
