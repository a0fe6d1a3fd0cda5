/** Circuits of a tiny model of every family (tests/fixtures/families), dense and gated, against float64. */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { createCircuitEngine } from "../../../pipeline/circuits/engine.ts";
import { createGraph, edgeEnds } from "../../../pipeline/circuits/graph.ts";
import { prepareInterventions } from "../../../pipeline/circuits/interventions.ts";
import { placeMetric } from "../../../pipeline/circuits/prompts.ts";
import { UserError } from "../../../pipeline/errors.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { referenceModel } from "../../../pipeline/model/reference_model.ts";
import { stepsOf, trace } from "../../../pipeline/model/trace.ts";
import { destroyParameters } from "../../../pipeline/model/parameters.ts";
import {
  FAMILY_MODELS,
  familyModel,
  randomModel,
  randomSet,
  referenceMetric,
} from "../../support/circuit_models.ts";
import { assertClose, maxAbsoluteError } from "../../support/compare.ts";
import { assertLeavesNothing } from "../../support/device_memory.ts";
import { gpuTest } from "../../support/gpu.ts";
import { referenceLogits, referenceRun } from "../../support/reference_run.ts";
import { seeded } from "../../support/seeded.ts";

const POSITIONS = 5;
/**
 * Largest error of a metric, in parts of the logits' root mean square: it is a difference of logits, whose rounding it
 * keeps where they are alike. Measured: 1.9e-6.
 */
const METRICS = 4e-6;
const ABLATIONS = ["resample", "mean", "zero"] as const;

/** A family's model on both sides, and pairs of prompts for it. */
async function open(gpu: Gpu, name: string, gate?: ModelConfig["gate"]) {
  const { reference, ...model } = await familyModel(gpu, name, gate);
  const { config } = model;
  return {
    model,
    reference,
    graph: createGraph(config),
    set: randomSet(config, { pairs: 3, positions: POSITIONS }),
  };
}

for (const name of FAMILY_MODELS) {
  for (const [kind, gate] of [["dense", undefined], ["gated", { bias: 0.1, temperature: 1 }]] as const) {
    gpuTest(
      `${name}, ${kind}: runs with any edges kept, nodes and slopes of all edges are float64's`,
      async (gpu) => {
        const { model, reference, graph, set } = await open(gpu, name, gate);
        const { pairs, metric } = set;
        const corrupted = pairs.map((pair) => referenceRun(reference, pair.corrupted).outputs);
        const ablated = {
          resample: corrupted,
          mean: pairs.map(() =>
            corrupted[0].map((first, source) =>
              first.map((_, n) => corrupted.reduce((sum, of) => sum + of[source][n] / pairs.length, 0))
            )
          ),
          zero: pairs.map(() => corrupted[0].map((of) => new Float64Array(of.length))),
        };
        const logits = pairs.flatMap(({ clean }) => [...referenceLogits(reference, clean)]);
        const scale = Math.sqrt(logits.reduce((sum, logit) => sum + logit ** 2, 0) / logits.length);
        const assertMetrics = (found: ArrayLike<number>, expected: ArrayLike<number>, what: string): void => {
          const error = maxAbsoluteError(found, expected) / scale;
          assert(error <= METRICS, `${what}: an error of ${error} of the logits`);
        };
        await assertLeavesNothing(gpu, async () => {
          const before = gpu.allocatedBytes;
          const engine = await createCircuitEngine(gpu, model, { set });
          assertEquals(gpu.allocatedBytes - before, engine.bytes);

          // The unpatched model, from its steps alone.
          const { clean, corrupted: ofCorrupted } = await engine.baselines();
          for (const [side, fill, found] of [["clean", 1, clean], ["corrupted", 0, ofCorrupted]] as const) {
            const expected = pairs.map((pair) => {
              const logits = referenceLogits(reference, pair[side]);
              const V = reference.vocabularySize;
              const values = pair.places.map((place) =>
                placeMetric(metric, logits.subarray(place.position * V, (place.position + 1) * V), place)
                  .value
              );
              return values.reduce((sum, value) => sum + value, 0) / values.length;
            });
            assertMetrics(found, expected, `${side} baseline`);
            const run = await engine.run(new Uint8Array(graph.edges).fill(fill));
            assertMetrics(run, expected, `${fill === 1 ? "all" : "no"} edges`);
          }

          const random = seeded(8);
          const kept = Uint8Array.from({ length: graph.edges }, () => random.integer(2));
          for (const ablation of ABLATIONS) {
            const expected = pairs.map(({ clean, places }, pair) =>
              referenceMetric(reference, metric, clean, places, {
                ablated: ablated[ablation][pair],
                kept: (input, source) => kept[graph.inputs[input].firstEdge + source],
              })
            );
            assertMetrics(await engine.run(kept, ablation), expected, ablation);
          }

          const noising = await engine.patchNodes("noising");
          pairs.forEach(({ clean, places }, pair) => {
            const metricOf = (left: number): number =>
              referenceMetric(reference, metric, clean, places, {
                ablated: corrupted[pair],
                kept: (_, source) => source === left ? 0 : 1,
              });
            const expected = graph.sources.map((_, source) => metricOf(-1) - metricOf(source));
            // Measured: 3e-6.
            assertClose(noising[pair], expected, { tolerance: 1e-5, name: `nodes of pair ${pair}` });
          });

          const [scores] = await engine.attribute({ name: "eap" });
          const step = 1e-4;
          const slopes = Array.from({ length: graph.edges }, (_, edge) => {
            const { source, input } = edgeEnds(graph, edge);
            const [above, below] = [1 + step, 1 - step].map((share) =>
              referenceMetric(reference, metric, pairs[0].clean, pairs[0].places, {
                ablated: corrupted[0],
                kept: (i, s) => graph.inputs[i] === input && graph.sources[s] === source ? share : 1,
              })
            );
            return (above - below) / (2 * step);
          });
          // Measured: 3e-6.
          assertClose(scores, slopes, { tolerance: 1e-5, name: "scores" });
          engine.destroy();
        });
        destroyParameters(gpu, model.parameters);
      },
    );
  }

  gpuTest(`${name}: its activations are read and replaced, and its logits are float64's`, async (gpu) => {
    const { model, reference, set } = await open(gpu, name);
    const prompts = set.pairs.slice(0, 2).map(({ clean }) => clean);
    const run = await prepareInterventions(gpu, model, { batch: 2, positions: POSITIONS });
    const at = Array.from({ length: POSITIONS }, (_, position) => position);
    const { logits, activations } = await run.run(prompts, { at, read: [...run.names.keys()] });
    const expected = prompts.flatMap((tokens) => [...referenceLogits(reference, tokens)]);
    // Measured: 6.6e-7.
    assertClose(logits, expected, { tolerance: 2e-6, name: "logits" });
    const model64 = trace(model.config, { batch: 1, context: POSITIONS });
    const values64 = prompts.map((tokens) => referenceModel(model64, reference.weights, tokens).values);
    for (const { op, reads: { x }, writes: { statistics } } of stepsOf(model64)) {
      if (op.kind !== "norm") continue;
      const scales = values64.flatMap((values) =>
        Array.from({ length: POSITIONS }, (_, position) => {
          const { width, norm: { kind, epsilon } } = model.config;
          const row = values.get(x.name)!.subarray(position * width, (position + 1) * width);
          const mean = kind === "rms" ? 0 : row.reduce((sum, value) => sum + value, 0) / width;
          return Math.sqrt(row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width + epsilon);
        })
      );
      const name = statistics.name.replace("statistics", "hook_scale");
      // Measured: 3.9e-7.
      assertClose(activations.get(name)!, scales, { tolerance: 1e-6, name });
    }
    for (const [activation, values] of activations) {
      if (activation.endsWith("hook_scale")) continue;
      for (const [what, by] of [["itself", { values }], ["zeros", "zero"]] as const) {
        const again = await run.run(prompts, { at, replace: [{ activation, by }] });
        if (what === "zeros") assertNotEquals(again.logits, logits, activation);
        else assertEquals(again.logits, logits, activation);
      }
    }
    run.destroy();
    destroyParameters(gpu, model.parameters);
  });
}

gpuTest(
  "keys and values are inputs of each key head, and a parallel MLP reads no head of its layer",
  async (gpu) => {
    const names = async (name: string) => {
      const { graph, model } = await open(gpu, name);
      destroyParameters(gpu, model.parameters);
      return Array.from({ length: graph.edges }, (_, edge) => {
        const { source, input } = edgeEnds(graph, edge);
        return `${source.name}->${input.name}`;
      });
    };
    const [qwen3, neox] = [await names("qwen3"), await names("gpt_neox")];
    assertEquals(qwen3.filter((name) => /->a1\.\w+\.k$/.test(name) && name.startsWith("a0.h3")), [
      "a0.h3->a1.g0.k",
      "a0.h3->a1.g1.k",
    ]);
    assert(qwen3.includes("a0.h3->m0") && !neox.includes("a0.h2->m0") && neox.includes("a0.h2->m1"));
  },
);

gpuTest("what no head owns before a norm is refused", async (gpu) => {
  const config = await readModelConfig(new URL("../../fixtures/families/olmo2", import.meta.url).pathname);
  const model = randomModel(gpu, { ...config, biases: { qkv: false, other: true } });
  const set = randomSet(config, { pairs: 2, positions: POSITIONS });
  await assertRejects(() => createCircuitEngine(gpu, model, { set }), UserError, "no head owns");
  destroyParameters(gpu, model.parameters);
});
