/** How the moments of what is trained are divided among ranks, and that a plan says what each then holds. */
import { elementsOf } from "../../../kernels/core/tensor.ts";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { memoryNeeds } from "../../../pipeline/model/needs.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, destroyParameters } from "../../../pipeline/model/parameters.ts";
import type { NetworkShape } from "../../../pipeline/model/plan.ts";
import { largestShare, piecesOf } from "../../../pipeline/model/shards.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { createExchange } from "../../../pipeline/parallel/exchange.ts";
import {
  LARGEST_BINDING_BYTES,
  type PlanAsked,
  planText,
  planTraining,
} from "../../../pipeline/report/training_plan.ts";
import { budgetMemory } from "../../../pipeline/training/memory_budget.ts";
import { createTrainer } from "../../../pipeline/training/trainer.ts";
import { gpuTest } from "../../support/gpu.ts";
import { RUN_CONFIG, RUN_SHAPE } from "../../support/prepared_run.ts";
import { ranksInProcess } from "../../support/ranks_in_process.ts";
import { GPT2 } from "../../support/gpt2.ts";

const BINDING = 1 << 27;

Deno.test("pieces cover every row of every parameter once, and begin where bindings can", () => {
  for (const ranks of [1, 2, 3, 8, 64]) {
    for (const config of [GPT2, RUN_CONFIG]) {
      const parameters = parametersOf(config);
      const pieces = piecesOf(parameters, ranks, BINDING);
      assertEquals(
        pieces.map(({ owner }) => owner),
        pieces.map(({ owner }) => owner).toSorted((a, b) => a - b),
      );
      for (const { name, shape } of parameters) {
        const of = pieces.filter((piece) => piece.name === name).toSorted((a, b) => a.start - b.start);
        const width = elementsOf(shape.slice(1));
        let next = 0;
        for (const { start, count, length } of of) {
          assertEquals(start, next, name);
          assertEquals(length, count * width, name);
          assertEquals(4 * start * width % 256, 0, `${name} from ${start} on`);
          assert(4 * length <= BINDING, name);
          next += count;
        }
        assertEquals(next, shape[0], name);
      }
    }
  }
});

Deno.test("ranks' shares of GPT-2 are alike to 3 %, and each layer is divided among all", () => {
  const parameters = parametersOf(GPT2);
  const total = parameters.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  for (const ranks of [2, 3, 4, 8, 16, 64]) {
    const pieces = piecesOf(parameters, ranks, BINDING);
    const largest = largestShare(pieces).reduce((sum, { length }) => sum + length, 0);
    assert(largest < 1.03 * total / ranks, `${ranks} ranks: ${largest} of ${total}`);
    const owners = new Set(pieces.filter(({ name }) => name.startsWith("h.5.")).map(({ owner }) => owner));
    assert(owners.size >= Math.min(ranks, 16), `${owners.size} of ${ranks} ranks have a part of a layer`);
  }
});

Deno.test("a plan of several ranks tells the moments of the one that has most, and what each sends", () => {
  const asked: PlanAsked = {
    batch: 8,
    context: 1024,
    accumulate: 8,
    dtype: "f32",
    recompute: false,
    distill: false,
    constraintEvery: 8,
    parts: { train: "all", frozen: "f32" },
  };
  const one = planTraining(GPT2, asked);
  assertEquals([one.ranks, one.sent_per_step], [undefined, undefined]);
  const whole = planTraining(GPT2, { ...asked, ranks: 8 });
  assertEquals([whole.moments, whole.total], [one.moments, one.total]);
  assertEquals(whole.sent_per_step, 2 * one.gradients * 7 / 8);
  const divided = planTraining(GPT2, { ...asked, ranks: 8, shardOptimizer: true });
  const pieces = piecesOf(parametersOf(GPT2), 8, LARGEST_BINDING_BYTES);
  assertEquals(divided.moments, 8 * largestShare(pieces).reduce((sum, { length }) => sum + length, 0));
  assertEquals(one.total - divided.total, one.moments - divided.moments);
  // Alone one divides nothing.
  assertEquals(planTraining(GPT2, { ...asked, shardOptimizer: true }).moments, one.moments);
  const text = planText(GPT2, divided, { ...asked, ranks: 8, shardOptimizer: true });
  assertStringIncludes(text, "Each of 8 ranks sends and receives 871 MB in a step; the moments are those");
});

gpuTest(
  "ranks that divide the moments hold what was planned",
  async (gpu) => {
    const shape: NetworkShape = { ...RUN_SHAPE, training: true };
    for (const size of [2, 3]) {
      const planned = memoryNeeds(RUN_CONFIG, { ...shape, shards: size }, gpu.maxBindingBytes);
      const whole = memoryNeeds(RUN_CONFIG, shape, gpu.maxBindingBytes);
      assert(planned.moments < whole.moments, "less than the whole");
      assertEquals(whole.total - planned.total, whole.moments - planned.moments);
      assertEquals(planned.buffers.reduce((a, b) => a + b, 0), planned.total);
      const settings = {
        ...RUN_SHAPE,
        recompute: false,
        dtype: "f32",
        memory: 1,
        shardOptimizer: true,
        accumulate: size,
      } as const;
      assertEquals(
        (await budgetMemory(gpu, RUN_CONFIG, settings, false, {}, size)).needs.moments,
        planned.moments,
      );
      assertEquals((await budgetMemory(gpu, RUN_CONFIG, settings)).needs.moments, whole.moments);
      const held: number[] = [];
      for (const transport of ranksInProcess(size)) {
        const network = await prepareNetwork(gpu, RUN_CONFIG, shape);
        const parameters = createParameters(gpu, parametersOf(RUN_CONFIG));
        const trainer = await createTrainer(gpu, {
          network,
          parameters,
          seed: 1,
          accumulate: size,
          exchange: createExchange(transport, { limit: 1 }),
          shardOptimizer: true,
          optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, clip: 1 },
        });
        const bytes = (tensors: Iterable<{ byteLength: number }>) =>
          [...tensors].reduce((sum, { byteLength }) => sum + byteLength, 0);
        held.push(bytes(trainer.firstMoments.values()) + bytes(trainer.secondMoments.values()));
        assertEquals(bytes(trainer.gradients.values()), planned.gradients);
        trainer.destroy();
        network.destroy();
        destroyParameters(gpu, parameters);
      }
      assertEquals(Math.max(...held), planned.moments);
      assertEquals(held.reduce((a, b) => a + b, 0), whole.moments);
    }
  },
);
