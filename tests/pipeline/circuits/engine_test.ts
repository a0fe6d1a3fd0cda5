import { assert, assertEquals, assertRejects } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { type Ablation, createCircuitEngine } from "../../../pipeline/circuits/engine.ts";
import { createGraph } from "../../../pipeline/circuits/graph.ts";
import type { PromptSet } from "../../../pipeline/circuits/prompts.ts";
import { type ReferenceModel, referenceRun } from "../../support/reference_run.ts";
import { readAttention } from "../../../pipeline/model/attention_pattern.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { randomModel, randomSet, referenceMetric, TINY, uploadModel } from "../../support/circuit_models.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { seeded } from "../../support/seeded.ts";

const GATED: ModelConfig = { ...TINY, gate: { bias: 0.3, temperature: 1 } };
const GRAPH = createGraph(TINY);
const EDGES = Array.from({ length: GRAPH.edges }, (_, edge) => edge);
const SET = randomSet(TINY, { pairs: 5, positions: 6 });

/** What each source writes under an ablation, by pair. */
function ablatedOutputs(model: ReferenceModel, set: PromptSet, ablation: Ablation): Float64Array[][] {
  const outputs = set.pairs.map(({ corrupted }) => referenceRun(model, corrupted).outputs);
  if (ablation === "resample") return outputs;
  const mean = outputs[0].map((first, source) =>
    first.map((_, n) =>
      ablation === "zero" ? 0 : outputs.reduce((sum, of) => sum + of[source][n], 0) / outputs.length
    )
  );
  return outputs.map(() => mean);
}

/** Metric of each pair in float64 when these edges are kept. */
function referenceMetrics(
  model: ReferenceModel,
  set: PromptSet,
  kept: Uint8Array,
  ablation: Ablation = "resample",
): Float64Array {
  const ablated = ablatedOutputs(model, set, ablation);
  return Float64Array.from(
    set.pairs,
    ({ clean, places }, pair) =>
      referenceMetric(model, set.metric, clean, places, {
        ablated: ablated[pair],
        kept: (input, source) => kept[GRAPH.inputs[input].firstEdge + source],
      }),
  );
}

/** Drop of each pair's metric in float64 when one edge is corrupted, [pair][edge]. */
function exactEffects(model: ReferenceModel): number[][] {
  const runWithout = (edge?: number): Float64Array =>
    referenceMetrics(model, SET, Uint8Array.from(EDGES, (other) => other === edge ? 0 : 1));
  const [whole, without] = [runWithout(), EDGES.map(runWithout)];
  return SET.pairs.map((_, pair) => without.map((metrics) => whole[pair] - metrics[pair]));
}

/** Each edge kept with even odds. */
function randomEdges(seed: number): Uint8Array {
  const random = seeded(seed);
  return Uint8Array.from({ length: GRAPH.edges }, () => random.integer(2));
}

async function withEngine(
  gpu: Gpu,
  config: ModelConfig,
  options: Parameters<typeof createCircuitEngine>[2],
  body: (
    engine: Awaited<ReturnType<typeof createCircuitEngine>>,
    reference: ReferenceModel,
  ) => Promise<void>,
): Promise<void> {
  const model = randomModel(gpu, config);
  const engine = await createCircuitEngine(gpu, model, options);
  try {
    await body(engine, model.reference);
  } finally {
    engine.destroy();
  }
}

for (const [name, config] of [["dense", TINY], ["gated", GATED]] as const) {
  for (const ablation of ["resample", "mean", "zero"] as const) {
    gpuTest(`${name}, ${ablation}: a run with any edges kept equals float64`, async (gpu) => {
      await withEngine(gpu, config, { set: SET, ablation }, async (engine, reference) => {
        for (const seed of [1, 2]) {
          const kept = randomEdges(seed);
          const expected = referenceMetrics(reference, SET, kept, ablation);
          // Measured: 2.1e-7.
          assertClose(await engine.run(kept), expected, { tolerance: 1e-6, name: `edges ${seed}` });
        }
      });
    });
  }

  gpuTest(`${name}: all edges give the clean run and none the corrupted one`, async (gpu) => {
    await withEngine(gpu, config, { set: SET }, async (engine, reference) => {
      const { clean, corrupted } = await engine.baselines();
      for (const [fill, side, values] of [[1, "clean", clean], [0, "corrupted", corrupted]] as const) {
        const expected = Float64Array.from(
          SET.pairs,
          ({ places, ...pair }) => referenceMetric(reference, SET.metric, pair[side], places),
        );
        // Measured: 2.9e-7.
        assertClose(values, expected, { tolerance: 1e-6, name: `${side} baseline` });
        const run = await engine.run(new Uint8Array(GRAPH.edges).fill(fill));
        assertClose(run, expected, { tolerance: 1e-6, name: side });
        // No gate can open or close by a rounding where nothing is kept.
        if (fill === 0) assertEquals(run, corrupted);
        assert(new Set(expected).size === SET.pairs.length);
      }
    });
  });

  gpuTest(`${name}: patched nodes and edges have the effects of float64, both ways`, async (gpu) => {
    await withEngine(gpu, config, { set: SET }, async (engine, reference) => {
      const noising = await engine.patchNodes("noising");
      const denoising = await engine.patchNodes("denoising");
      SET.pairs.forEach(({ clean, corrupted, places }, pair) => {
        const ofSides = {
          clean: referenceRun(reference, clean),
          corrupted: referenceRun(reference, corrupted),
        };
        for (
          const [found, prompt, other, sign] of [
            [noising, clean, "corrupted", 1],
            [denoising, corrupted, "clean", -1],
          ] as const
        ) {
          const whole = referenceMetric(reference, SET.metric, prompt, places);
          const expected = GRAPH.sources.map((_, source) => {
            const replaced = new Map([[source, ofSides[other].outputs[source]]]);
            const patch = { ablated: ofSides[other].outputs, kept: () => 1, replaced };
            return sign * (whole - referenceMetric(reference, SET.metric, prompt, places, patch));
          });
          // Effects are differences of metrics, whose rounding they keep. Measured: 3e-6.
          assertClose(found[pair], expected, { tolerance: 1e-5, name: `nodes of pair ${pair}` });
        }
      });
      const edges = Array.from({ length: GRAPH.edges }, (_, edge) => edge);
      const runWithout = (edge?: number): Float64Array =>
        referenceMetrics(reference, SET, Uint8Array.from(edges, (other) => other === edge ? 0 : 1));
      const [whole, without] = [runWithout(), edges.map(runWithout)];
      (await engine.patchEdges(edges)).forEach((effects, pair) => {
        const expected = without.map((metrics) => whole[pair] - metrics[pair]);
        // Measured: 4.1e-6.
        assertClose(effects, expected, { tolerance: 1e-5, name: `edges of pair ${pair}` });
      });
    });
  });

  for (
    const [metric, ablation] of [
      ["logit_difference", "resample"],
      ["probability_difference", "resample"],
      ["logit_difference", "mean"],
      ["logit_difference", "zero"],
    ] as const
  ) {
    gpuTest(`${name}, ${ablation}: EAP is the slope of the ${metric} along every edge`, async (gpu) => {
      const set = randomSet(TINY, { pairs: 2, positions: 6, metric, seed: 4 });
      await withEngine(gpu, config, { set, ablation }, async (engine, reference) => {
        const scores = await engine.attribute({ name: "eap" });
        const ablated = ablatedOutputs(reference, set, ablation);
        set.pairs.forEach(({ clean, places }, pair) => {
          const step = 1e-4;
          const expected = GRAPH.inputs.flatMap(({ sources }, input) =>
            Array.from({ length: sources }, (_, source) => {
              const [above, below] = [1 + step, 1 - step].map((share) =>
                referenceMetric(reference, metric, clean, places, {
                  ablated: ablated[pair],
                  kept: (i, s) => i === input && s === source ? share : 1,
                })
              );
              return (above - below) / (2 * step);
            })
          );
          // Measured: 9.4e-7.
          assertClose(scores[pair], expected, { tolerance: 1e-5, name: `scores of pair ${pair}` });
        });
      });
    });
  }
}

gpuTest("of the gated model's edges some are open and some are closed", async (gpu) => {
  const { parameters } = randomModel(gpu, GATED);
  const network = await prepareNetwork(gpu, GATED, { batch: 1, context: 6, training: false });
  let open = 0;
  for (const { clean } of SET.pairs) {
    const { layers } = await readAttention(gpu, network, parameters, clean);
    open += layers.reduce((sum, { weights }) => sum + weights.filter((weight) => weight > 0).length, 0);
  }
  const share = open / (SET.pairs.length * TINY.layers * TINY.heads * 21);
  assert(share > 0.2 && share < 0.8, `share of open edges: ${share}`);
});

/**
 * EAP-IG in float64, [edge]: on the way from the ablated embedding to the clean one, at the end of each of `steps` parts
 * of equal length, the slope of the metric along what the edge's source writes for the clean prompt less what it writes
 * under the ablation; the mean of these.
 */
function integratedGradients(
  model: ReferenceModel,
  { metric, pairs: [{ clean, places }] }: PromptSet,
  ablated: readonly Float64Array[],
  steps: number,
): number[] {
  const written = referenceRun(model, clean).outputs;
  const scores = new Array<number>(GRAPH.edges).fill(0);
  for (let step = 1; step <= steps; step++) {
    const share = step / steps;
    const embedding = written[0].map((value, n) => share * value + (1 - share) * ablated[0][n]);
    const replaced = new Map([[0, embedding]]);
    const patch = { ablated, kept: () => 1, replaced };
    const here = referenceRun(model, clean, patch).outputs;
    // An edge of which 1 + h is kept then carries its source's output here and h times the direction.
    const directed = here.map((output, source) =>
      output.map((value, n) => value - (written[source][n] - ablated[source][n]))
    );
    const h = 1e-4;
    GRAPH.inputs.forEach(({ sources, firstEdge }, input) => {
      for (let source = 0; source < sources; source++) {
        const [above, below] = [1 + h, 1 - h].map((share) =>
          referenceMetric(model, metric, clean, places, {
            ablated: directed,
            kept: (i, s) => i === input && s === source ? share : 1,
            replaced,
          })
        );
        scores[firstEdge + source] += (above - below) / (2 * h) / steps;
      }
    });
  }
  return scores;
}

for (const [name, config] of [["dense", TINY], ["gated", GATED]] as const) {
  for (const [steps, ablation] of [[2, "resample"], [3, "resample"], [3, "mean"]] as const) {
    gpuTest(`${name}, ${ablation}: EAP-IG in ${steps} steps is float64's for every edge`, async (gpu) => {
      const set = randomSet(TINY, { pairs: 2, positions: 6, seed: 6 });
      await withEngine(gpu, config, { set, ablation }, async (engine, reference) => {
        const scores = await engine.attribute({ name: "eap-ig", steps });
        const ablated = ablatedOutputs(reference, set, ablation);
        set.pairs.forEach((pair, n) => {
          const expected = integratedGradients(reference, { ...set, pairs: [pair] }, ablated[n], steps);
          // Measured: 7e-7.
          assertClose(scores[n], expected, { tolerance: 1e-5, name: `scores of pair ${n}` });
        });
      });
    });
  }
}

gpuTest("EAP-IG's scores of the embedding's edges sum to the whole effect as steps grow", async (gpu) => {
  await withEngine(gpu, TINY, { set: SET }, async (engine) => {
    const { clean, corrupted } = await engine.baselines();
    // Sums by rectangles: the error halves as steps double. Measured: 0.127, 0.065, 0.033.
    const errors: number[] = [];
    for (const steps of [8, 16, 32]) {
      const scores = await engine.attribute({ name: "eap-ig", steps });
      const sums = scores.map((ofPair) =>
        GRAPH.inputs.reduce((sum, { firstEdge }) => sum + ofPair[firstEdge], 0)
      );
      const difference = sums.reduce((sum, value, n) => sum + Math.abs(value - (clean[n] - corrupted[n])), 0);
      errors.push(difference / clean.reduce((sum, value, n) => sum + Math.abs(value - corrupted[n]), 0));
    }
    assert(errors[1] < 0.6 * errors[0] && errors[2] < 0.6 * errors[1], `errors ${errors}`);
  });
});

/** Random weights of a model that is linear if its layer norms' epsilon is 1e10. */
function linearWeights(random: ReferenceModel["weights"]): Map<string, Float32Array> {
  return new Map([...random].map(([name, values]) => {
    const isValue = (n: number): boolean => n % (3 * TINY.width) >= 2 * TINY.width;
    const changed = Float32Array.from(values, (value, n) => {
      // Such a layer norm only centres.
      if (/ln_\w+\.weight$/.test(name)) return 1e5;
      // Queries and keys of 0 attend to all alike.
      if (name.includes("c_attn")) return isValue(n) ? value : 0;
      // Far above 0 GELU is the identity.
      if (name.endsWith("c_fc.weight")) return value / 10;
      return name.endsWith("c_fc.bias") ? 8 : value;
    });
    return [name, changed];
  }));
}

gpuTest("on a linear model EAP and EAP-IG are the exact effect of every edge", async (gpu) => {
  const weights = linearWeights(randomModel(gpu, TINY).reference.weights);
  const model = uploadModel(gpu, { ...TINY, norm: { ...TINY.norm, epsilon: 1e10 } }, weights);
  const exact = exactEffects(model.reference);
  const engine = await createCircuitEngine(gpu, model, { set: SET });
  for (
    const method of [{ name: "eap" }, { name: "eap-ig", steps: 2 }, { name: "eap-ig", steps: 5 }] as const
  ) {
    (await engine.attribute(method)).forEach((scores, pair) => {
      // Measured: 1.3e-5, of what is left of the layer norms' curvature.
      assertClose(scores, exact[pair], { tolerance: 1e-4, name: `${method.name} of pair ${pair}` });
    });
  }
  engine.destroy();
});

gpuTest("batches that adapt to memory change no value, and bytes are what is held", async (gpu) => {
  const kept = randomEdges(3);
  const whole = await createCircuitEngine(gpu, randomModel(gpu, GATED), { set: SET, ablation: "mean" });
  const model = randomModel(gpu, GATED);
  const before = gpu.allocatedBytes;
  const parts = await createCircuitEngine(gpu, model, {
    set: SET,
    ablation: "mean",
    maxBytes: whole.bytes / 2,
  });
  assertEquals([whole.batch, parts.batch], [5, 2]);
  assertEquals(gpu.allocatedBytes - before, parts.bytes);
  assert(parts.bytes <= whole.bytes / 2);
  const [one, two] = [await whole.run(kept), await parts.run(kept)];
  assertClose(two, one, { tolerance: 1e-6, name: "metrics" });
  const [first, second] = [
    await whole.attribute({ name: "eap-ig", steps: 2 }),
    await parts.attribute({ name: "eap-ig", steps: 2 }),
  ];
  second.forEach((scores, pair) => assertClose(scores, first[pair], { tolerance: 1e-5, name: "scores" }));
  whole.destroy();
  parts.destroy();
});

gpuTest(
  "after denoising, which patches with the clean run, an engine's own ablation is back",
  async (gpu) => {
    const kept = randomEdges(4);
    for (const ablation of ["resample", "mean", "zero"] as const) {
      await withEngine(gpu, TINY, { set: SET, ablation }, async (engine) => {
        const before = await engine.run(kept);
        const embedding = (await engine.patchNodes("denoising")).map((effects) => effects[0]);
        assertEquals(await engine.run(kept), before);
        // A clean embedding makes a corrupted run a clean one.
        const { clean, corrupted } = await engine.baselines();
        assertClose(embedding, clean.map((metric, pair) => metric - corrupted[pair]), {
          tolerance: 1e-5,
          name: "effect of the embedding",
        });
      });
    }
  },
);

gpuTest("one engine runs under every ablation what engines of their own run, to the bit", async (gpu) => {
  const kept = randomEdges(7);
  const own = new Map<Ablation, Float64Array>();
  for (const ablation of ["resample", "mean", "zero"] as const) {
    await withEngine(gpu, GATED, { set: SET, ablation }, async (engine) => {
      own.set(ablation, await engine.run(kept));
    });
  }
  assertEquals(new Set([...own.values()].map(String)).size, 3);
  await withEngine(gpu, GATED, { set: SET }, async (engine) => {
    for (const ablation of ["mean", "resample", "zero", "mean", "zero", "resample"] as const) {
      assertEquals(await engine.run(kept, ablation), own.get(ablation), ablation);
    }
    await engine.run(kept, "zero");
    assertEquals(await engine.run(kept), own.get("resample"), "its own, where none is named");
  });
});

gpuTest("what is asked for together is done one behind the other, as it was at each call", async (gpu) => {
  const [kept, other] = [randomEdges(8), randomEdges(9)];
  await withEngine(gpu, GATED, { set: SET }, async (engine) => {
    const changed = kept.slice();
    const asked = [
      () => engine.patchNodes("noising"),
      () => engine.patchNodes("denoising"),
      () => engine.run(changed),
      () => engine.run(kept, "zero"),
      () => engine.attribute({ name: "eap" }),
      () => engine.baselines(),
      () => engine.attribute({ name: "eap-ig", steps: 2 }),
      () => engine.runEach([kept, other]),
      () => engine.patchEdges([3, 0]),
    ];
    const alone: unknown[] = [];
    for (const ask of asked) alone.push(await ask());
    const order: number[] = [];
    const together = asked.map((ask, n) => ask().finally(() => order.push(n)));
    // What fails keeps no other waiting, and what is changed behind a call is not what it was called with.
    const refused = assertRejects(() => engine.run(new Uint8Array(1)), RangeError, "edges: 1");
    changed.fill(0);
    assertEquals(await Promise.all(together), alone);
    assertEquals(order, [...asked.keys()]);
    await refused;
  });
});

gpuTest("a run that fails keeps none behind it from being done", async (gpu) => {
  await withEngine(gpu, TINY, { set: SET }, async (engine) => {
    const kept = randomEdges(10);
    const alone = await engine.run(kept);
    const fails = engine.runEach([kept], () => {
      throw new Error("not told");
    });
    const behind = engine.run(kept);
    await assertRejects(() => fails, Error, "not told");
    assertEquals(await behind, alone);
  });
});

gpuTest("sizes that are no multiples of 4 are as exact", async (gpu) => {
  const config = { ...TINY, width: 6, mlpWidth: 10, vocabularySize: 11, gate: { bias: 0.3, temperature: 1 } };
  const set = randomSet(config, { pairs: 3, positions: 5 });
  const kept = randomEdges(5);
  await withEngine(gpu, config, { set }, async (engine, reference) => {
    // Measured: 5e-8, and 8e-7 below.
    const expected = referenceMetrics(reference, set, kept);
    assertClose(await engine.run(kept), expected, { tolerance: 1e-5, name: "metrics" });
    const scores = await engine.attribute({ name: "eap" });
    const ablated = ablatedOutputs(reference, set, "resample");
    set.pairs.forEach(({ clean, places }, pair) => {
      const at = (share: number) =>
        referenceMetric(reference, set.metric, clean, places, {
          ablated: ablated[pair],
          kept: () => share,
        });
      // The slope along all edges at once is the sum of the scores.
      const slope = (at(1 + 1e-5) - at(1 - 1e-5)) / 2e-5;
      const sum = scores[pair].reduce((a, b) => a + b, 0);
      assertClose([sum], [slope], { tolerance: 1e-4, name: `sum of scores of pair ${pair}` });
    });
  });
});

gpuTest("an adapter with small bindings gives the same values in smaller batches", async (gpu) => {
  const config = { ...TINY, vocabularySize: 200 };
  const small = await Gpu.open({ maxBindingBytes: 8192 });
  const kept = randomEdges(6);
  const set = randomSet(config, { pairs: 5, positions: 6 });
  const results: { batch: number; metrics: Float64Array; scores: Float32Array[] }[] = [];
  for (const device of [gpu, small]) {
    await withEngine(device, config, { set }, async (engine) => {
      results.push({
        batch: engine.batch,
        metrics: await engine.run(kept),
        scores: await engine.attribute({ name: "eap" }),
      });
    });
  }
  small.close();
  const [whole, sliced] = results;
  assert(sliced.batch < whole.batch, `${sliced.batch} pairs in a batch`);
  assertClose(sliced.metrics, whole.metrics, { tolerance: 1e-6, name: "metrics" });
  sliced.scores.forEach((scores, pair) =>
    assertClose(scores, whole.scores[pair], { tolerance: 1e-5, name: `scores of pair ${pair}` })
  );
});

gpuTest("a set that cannot be run is refused, and memory that is too small", async (gpu) => {
  const model = randomModel(gpu, TINY);
  const [pair] = SET.pairs;
  const refused = (pairs: PromptSet["pairs"], message: string, maxBytes?: number) =>
    assertRejects(
      () => createCircuitEngine(gpu, model, { set: { ...SET, pairs }, maxBytes }),
      RangeError,
      message,
    );
  await refused([], "at least one pair");
  await refused([{ ...pair, corrupted: [1] }], "tokens of the first: 1");
  await refused([{ ...pair, places: [] }], "a place");
  await refused([{ ...pair, places: [{ position: 6, right: [1], wrong: [2] }] }], "below 6: 6");
  await refused([{ ...pair, places: [{ position: 1, right: [13], wrong: [2] }] }], "below 13: 13");
  await refused([{ ...pair, clean: pair.clean.map(() => 13) }], "tokens below 13: 13");
  await refused([{ ...pair, corrupted: pair.clean.map(() => 0.5) }], "tokens below 13: 0.5");
  await refused([pair], "one pair must fit 1000 bytes", 1000);
  const engine = await createCircuitEngine(gpu, model, { set: SET });
  await assertRejects(() => engine.run(new Uint8Array(3)), RangeError, "edges: 3");
  await assertRejects(() => engine.patchEdges([-1]), RangeError, "edge -1");
  await assertRejects(
    () => engine.attribute({ name: "eap-ig", steps: 0 }),
    RangeError,
    "positive integer: 0",
  );
  engine.destroy();
});
