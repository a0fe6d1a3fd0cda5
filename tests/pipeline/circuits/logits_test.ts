/** Logits taken apart and the logit lens, of a tiny model of every family, against float64. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { createGraph } from "../../../pipeline/circuits/graph.ts";
import { prepareInterventions } from "../../../pipeline/circuits/interventions.ts";
import { attributedActivations, attributeLogit } from "../../../pipeline/circuits/logit_attribution.ts";
import { lensOf } from "../../../pipeline/circuits/logit_lens.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { destroyParameters } from "../../../pipeline/model/parameters.ts";
import { referenceModel } from "../../../pipeline/model/reference_model.ts";
import { stepIn, trace } from "../../../pipeline/model/trace.ts";
import {
  FAMILY_MODELS,
  familyModel,
  randomModel,
  TINY,
  type TwoSidedModel,
} from "../../support/circuit_models.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { referenceRun } from "../../support/reference_run.ts";

const TOKENS = [3, 1, 4, 1, 5];
const [ANSWER, WRONG] = [7, 2];
const POSITION = 3;
const GATE: ModelConfig["gate"] = { bias: 0.1, temperature: 1 };

const MODELS: [name: string, open: (gpu: Gpu) => TwoSidedModel | Promise<TwoSidedModel>][] = [
  ["gpt2", (gpu) => randomModel(gpu, TINY)],
  ["gpt2, gated", (gpu) => randomModel(gpu, { ...TINY, gate: GATE })],
  ...FAMILY_MODELS.map((name): (typeof MODELS)[number] => [name, (gpu) => familyModel(gpu, name)]),
  ["qwen3, gated", (gpu) => familyModel(gpu, "qwen3", GATE)],
];

/** A row of a matrix. */
const row = (matrix: ArrayLike<number>, n: number, width: number): number[] =>
  Array.from({ length: width }, (_, d) => matrix[n * width + d]);

/** What is added to the difference of two logits, by component, in float64. */
function partsInFloat64({ config, reference }: TwoSidedModel): Map<string, number> {
  const { width, norm: { kind, epsilon } } = config;
  const { weights } = reference;
  const model = trace(config, { batch: 1, context: TOKENS.length });
  const { final } = model;
  const pass = { gateBias: config.gate?.bias };
  const x = row(
    referenceModel(model, weights, TOKENS, pass).values.get(final.reads.x.name)!,
    POSITION,
    width,
  );
  const meanOf = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / width;
  const centred = (values: readonly number[]) =>
    kind === "rms" ? values : values.map((value) => value - meanOf(values));
  const scale = Math.sqrt(meanOf(centred(x).map((value) => value ** 2)) + epsilon);
  const head = weights.get(model.head.name)!;
  const [right, wrong] = [ANSWER, WRONG].map((token) => row(head, token, width));
  const ofFinal = (role: string) => {
    const parameter = final.parameters[role];
    return parameter && weights.get(parameter.name)!;
  };
  const along = (values: readonly number[]) =>
    values.reduce((sum, value, d) => sum + value * (right[d] - wrong[d]), 0);
  const written = (values: readonly number[]) =>
    along(centred(values).map((value, d) => value / scale * (ofFinal("weight")?.[d] ?? 1)));

  const { outputs } = referenceRun(reference, TOKENS);
  const graph = createGraph(config);
  const parts = new Map<string, number>();
  graph.sources.forEach(({ name, kind, layer }, source) => {
    const output = row(outputs[source], POSITION, width);
    const branch = model.branches.find((branch) => branch.kind === "mlp" && branch.layer === layer);
    const bias = kind === "mlp" ? stepIn(branch!, "out").parameters.bias : undefined;
    parts.set(name, written(output) - (bias ? written(row(weights.get(bias.name)!, 0, width)) : 0));
  });
  for (const branch of model.branches) {
    const { bias } = stepIn(branch, "out").parameters;
    const name = `${branch.kind === "mlp" ? "m" : "a"}${branch.layer}.bias`;
    if (bias) parts.set(name, written(row(weights.get(bias.name)!, 0, width)));
  }
  const ofBias = ofFinal("bias");
  if (ofBias) parts.set("ln_final.bias", along(row(ofBias, 0, width)));
  return parts;
}

for (const [name, open] of MODELS) {
  gpuTest(
    `${name}: what each component adds to a logit is float64's, and is all that there is`,
    async (gpu) => {
      const model = await open(gpu);
      const { config: { vocabularySize } } = model;
      const runs = await prepareInterventions(gpu, model, { batch: 1, positions: TOKENS.length });
      const { activations, logits } = await runs.run([TOKENS], {
        read: attributedActivations(model.config),
        at: [POSITION],
      });
      const rowOf = (name: string): number[] => {
        const values = activations.get(name)!;
        return row(values, POSITION, values.length / TOKENS.length);
      };
      const parts = await attributeLogit(gpu, model, rowOf, { answer: ANSWER, wrong: WRONG });
      const expected = partsInFloat64(model);
      assertEquals(parts.map(({ component }) => component).toSorted(), [...expected.keys()].toSorted());
      const found = parts.map(({ value }) => value);
      // Measured: 1.6e-6.
      assertClose(found, parts.map(({ component }) => expected.get(component)!), { tolerance: 5e-6, name });
      // A head whose gates are closed adds nothing.
      for (const { component, value } of parts) assert(model.config.gate || value !== 0, component);
      const sum = found.reduce((sum, value) => sum + value, 0);
      const largest = Math.max(...found.map(Math.abs), ...logits.map(Math.abs));
      const off = Math.abs(sum - (logits[ANSWER] - logits[WRONG])) / largest;
      // Measured: 4.2e-7.
      assert(off < 2e-6, `${off} of the largest part or logit`);

      const one = await attributeLogit(gpu, model, rowOf, { answer: ANSWER });
      const ofOne = one.reduce((sum, { value }) => sum + value, 0);
      assert(Math.abs(ofOne - logits[ANSWER]) / largest < 2e-6, "a logit by itself");
      assertEquals(logits.length, vocabularySize);
      runs.destroy();
      destroyParameters(gpu, model.parameters);
    },
  );

  gpuTest(
    `${name}: the lens' tokens and their log-probabilities are float64's, behind every layer`,
    async (gpu) => {
      const model = await open(gpu);
      const { config, reference: { weights } } = model;
      const { vocabularySize, width, layers } = config;
      const runs = await prepareInterventions(gpu, model, { batch: 1, positions: TOKENS.length });
      const spell = (token: number) => `<${token}>`;
      const read = async (names: readonly string[]) => {
        const { activations } = await runs.run([TOKENS], { read: names, at: [] });
        return new Map(Array.from(activations, ([name, values]) => [name, { values }]));
      };
      const lens = await lensOf(runs, { config, spell }, read, { top: vocabularySize, at: [0, -1] });
      const traced = trace(config, { batch: 1, context: TOKENS.length });
      const pass = { gateBias: config.gate?.bias };
      const { values } = referenceModel(traced, weights, TOKENS, pass);
      assertEquals(lens.map(({ activation }) => activation), [
        "blocks.0.hook_resid_pre",
        ...Array.from({ length: layers }, (_, layer) => `blocks.${layer}.hook_resid_post`),
      ]);
      const streams = [
        ...traced.branches.filter(({ kind }) => kind === "attention").map(({ stream }) => stream),
      ];
      for (const [n, { activation, positions }] of lens.entries()) {
        const x = values.get((streams[n] ?? traced.final.reads.x).name)!;
        const parameters = Object.entries(traced.final.parameters).map(([role, { name }]) =>
          [role, weights.get(name)!] as const
        );
        const y = traced.final.op.reference!.forward({ x, ...Object.fromEntries(parameters) }, pass);
        const head = weights.get(traced.head.name)!;
        assertEquals(positions.length, 2);
        for (const [place, position] of [0, TOKENS.length - 1].entries()) {
          const ofRow = row(y, position, width);
          const logits = Array.from(
            { length: vocabularySize },
            (_, token) => row(head, token, width).reduce((sum, value, d) => sum + value * ofRow[d], 0),
          );
          const total = Math.log(logits.reduce((sum, logit) => sum + Math.exp(logit), 0));
          const tokens = positions[place];
          assertEquals(new Set(tokens.map(({ token }) => token)).size, vocabularySize);
          // Measured: below 5e-7.
          assertClose(
            tokens.map(({ logProbability }) => logProbability),
            tokens.map(({ token }) => logits[token] - total),
            {
              tolerance: 2e-6,
              name: `${activation} at ${position}`,
            },
          );
          tokens.forEach(({ text, token, logProbability }, n) => {
            assertEquals(text, spell(token));
            assert(n === 0 || logProbability <= tokens[n - 1].logProbability, "the likeliest first");
          });
        }
      }
      const [first] = await lensOf(runs, { config, spell }, read, { top: 3, at: [0] });
      assertEquals(first.positions, [lens[0].positions[0].slice(0, 3)]);
      for (const top of [0, 1.5, vocabularySize + 1]) {
        await assertRejects(
          () => lensOf(runs, { config, spell }, read, { top, at: [0] }),
          RangeError,
          `there are 1 to ${vocabularySize}: ${top}`,
        );
      }
      await assertRejects(() => runs.logitsOfStream(new Float32Array(3), [0]), RangeError, "elements: 3");
      runs.destroy();
      destroyParameters(gpu, model.parameters);
    },
  );
}
