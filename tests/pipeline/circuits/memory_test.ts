/** An engine frees all that it held, and an analysis of a model leaves the device as it found it. */
import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { type CircuitModel, createCircuitEngine } from "../../../pipeline/circuits/engine.ts";
import { createGraph } from "../../../pipeline/circuits/graph.ts";
import { engineBytes } from "../../../pipeline/circuits/layout.ts";
import { analyseModel } from "../../../pipeline/circuits/model_analysis.ts";
import { faithfulness } from "../../../pipeline/circuits/metrics.ts";
import type { PromptSet } from "../../../pipeline/circuits/prompts.ts";
import { referenceLogits } from "../../support/reference_run.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { destroyParameters } from "../../../pipeline/model/parameters.ts";
import { randomModel, randomSet, TINY, type TwoSidedModel } from "../../support/circuit_models.ts";
import { assertLeavesNothing, watchBuffers } from "../../support/device_memory.ts";
import { gpuTest } from "../../support/gpu.ts";

const DENSE: ModelConfig = { ...TINY, layers: 1 };
const SPARSE: ModelConfig = { ...DENSE, gate: { bias: 0.3, temperature: 1 } };
const [PAIRS, POSITIONS] = [5, 6];

/** Pairs that the model does: its own first choice for the clean prompt is right, that for the corrupted one wrong. */
function doneSet({ config, reference }: TwoSidedModel): PromptSet {
  const position = POSITIONS - 1;
  const choice = (tokens: readonly number[]): number => {
    const logits = referenceLogits(reference, tokens).subarray(position * reference.vocabularySize);
    return logits.indexOf(Math.max(...logits));
  };
  const set = randomSet(config, { pairs: 40, positions: POSITIONS });
  const pairs = set.pairs.flatMap(({ clean, corrupted, template }) => {
    const [right, wrong] = [choice(clean), choice(corrupted)];
    return right === wrong
      ? []
      : [{ clean, corrupted, template, places: [{ position, right: [right], wrong: [wrong] }] }];
  });
  assert(pairs.length >= PAIRS);
  return { ...set, pairs: pairs.slice(0, PAIRS) };
}

/** A whole analysis, as the command does it for each model. */
async function analyseOnce(gpu: Gpu, config: ModelConfig): Promise<void> {
  const model = randomModel(gpu, config);
  const set = doneSet(model);
  const { findings, ablations, attention } = await analyseModel(gpu, model, {
    set,
    tokenizer: { spell: String },
    ablation: "resample",
    maxBytes: 1e9,
    method: { name: "eap-ig", steps: 2 },
    seed: 1,
  });
  assert(findings.circuit, "the model does the task");
  assertEquals(ablations.map(({ ablation }) => ablation), ["resample", "mean", "zero"]);
  // The circuit's own ablation gives it what it was scored with, on the pairs that did not choose it.
  const { edges, edgeLadder, bounds } = findings.circuit;
  const rung = edgeLadder.find(({ size }) => size === edges.value)!;
  assertAlmostEquals(ablations[0].faithfulness, faithfulness(rung.metrics, bounds), 1e-5);
  assertEquals(attention.tokens, set.pairs[0].clean.map(String));
  destroyParameters(gpu, model.parameters);
}

gpuTest("memory after ten analyses in one process is what it was after two", async (gpu) => {
  using buffers = watchBuffers(gpu);
  const held = () => ({
    bytes: gpu.allocatedBytes,
    buffers: buffers.live().length,
    bindGroups: gpu.bindGroups.size,
  });
  // A sparse and a dense model of one task are two analyses.
  const analyseBoth = async () => {
    for (const config of [DENSE, SPARSE]) await analyseOnce(gpu, config);
  };
  const before = held();
  await analyseBoth();
  const afterTwo = held();
  for (let n = 2; n < 10; n += 2) await analyseBoth();
  assertEquals(held(), afterTwo);
  assertEquals(afterTwo, before);
});

gpuTest("an analysis of a model makes one engine, whatever the ablations", async (gpu) => {
  using buffers = watchBuffers(gpu);
  await analyseOnce(gpu, SPARSE);
  // The first tensor of an engine.
  assertEquals(buffers.created.filter((label) => label === "delta").length, 1);
});

gpuTest("an engine frees all that it held, whatever it was used for", async (gpu) => {
  const model: CircuitModel = randomModel(gpu, SPARSE);
  const set = randomSet(SPARSE, { pairs: PAIRS, positions: POSITIONS });
  await assertLeavesNothing(gpu, async () => {
    const engine = await createCircuitEngine(gpu, model, { set });
    await engine.baselines();
    await engine.attribute({ name: "eap-ig", steps: 2 });
    await engine.patchNodes("denoising");
    for (const ablation of ["resample", "mean", "zero"] as const) {
      await engine.run(new Uint8Array(engine.graph.edges), ablation);
    }
    engine.destroy();
  });
});

Deno.test("a weight that circuits bind whole counts among what a binding must hold", async () => {
  const config = await readModelConfig(
    new URL("../../fixtures/configs/OLMo-7B-hf", import.meta.url).pathname,
  );
  const shape = { batch: 1, positions: 4, answers: 1 };
  const { largest } = engineBytes(config, createGraph(config), shape, 2 ** 27);
  assertEquals(largest, 4 * 4096 * (3 * 4096), "queries, keys and values of a layer");
});
