/** What ranks of each stage hold on their device and send in a step, beside what the plan says. */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { memoryNeeds } from "../../../pipeline/model/needs.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, destroyParameters } from "../../../pipeline/model/parameters.ts";
import { inFlightOf } from "../../../pipeline/model/stage.ts";
import { createExchange } from "../../../pipeline/parallel/exchange.ts";
import { pipelinesOf } from "../../../pipeline/parallel/share_of_step.ts";
import { type PlanAsked, planAsked, planText, planTraining } from "../../../pipeline/report/training_plan.ts";
import { PLAN, type PlanSettings } from "../../../pipeline/settings.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import { budgetMemory, describeNeeds } from "../../../pipeline/training/memory_budget.ts";
import { createTrainer } from "../../../pipeline/training/trainer.ts";
import { GPT2 } from "../../support/gpt2.ts";
import { gpuTest } from "../../support/gpu.ts";
import { ranksInProcess, untilTaken } from "../../support/ranks_in_process.ts";
import { seeded } from "../../support/seeded.ts";

/** Large enough that sums of losses, tokens and logs are a small part of what is held. */
const TIED = gpt2Config({
  vocabularySize: 600,
  contextLength: 64,
  width: 64,
  layers: 3,
  heads: 2,
  mlpWidth: 256,
});
const [BATCH, STAGES, PIPELINES, ACCUMULATE] = [4, 3, 2, 8];

/** Bytes of the squares' sums, 64 of each of a rank's some 80 pieces, to five others; as many of a model of any size. */
const MEASURES = 110_000;

const asked = (others: Partial<PlanAsked>): PlanAsked => ({
  batch: BATCH,
  context: TIED.contextLength,
  accumulate: ACCUMULATE,
  dtype: "f32",
  recompute: false,
  distill: false,
  constraintEvery: 8,
  parts: { train: "all", frozen: "f32" },
  ranks: STAGES * PIPELINES,
  stages: STAGES,
  ...others,
});

function microBatches({ vocabularySize, contextLength }: ModelConfig) {
  const random = seeded(3);
  const tokens = () =>
    Uint32Array.from({ length: BATCH * contextLength }, () => random.integer(vocabularySize));
  return Array.from({ length: ACCUMULATE }, () => ({ inputs: tokens(), targets: tokens() }));
}

for (
  const [what, others] of [
    ["a model with a tied head", {}],
    ["one without", { tied: false }],
  ] as const
) {
  for (const options of [{}, { recompute: true }, { shardOptimizer: true }, { distill: true }] as const) {
    const shown = Object.keys(options).join() || "nothing else";
    gpuTest(
      `ranks of each stage of ${what} hold what is planned to 3 %, and send it, with ${shown}`,
      async (gpu) => {
        const config: ModelConfig = { ...TIED, ...others };
        const plan = planTraining(config, asked({ ...options, binding: gpu.maxBindingBytes }));
        const transports = ranksInProcess(STAGES * PIPELINES);
        const before = gpu.allocatedBytes;
        let held = before;
        const batches = microBatches(config);
        const ranks = [];
        for (const transport of untilTaken(transports)) {
          const exchange = createExchange(transport, { limit: 1 }).divide(STAGES);
          const { index, count } = exchange.stages!;
          const stage = { index, count, inFlight: inFlightOf({ index, count }, ACCUMULATE / PIPELINES) };
          const shape = { batch: BATCH, context: config.contextLength, training: true, ...options };
          const network = await prepareNetwork(gpu, config, { ...shape, stage });
          const parameters = createParameters(gpu, network.stage.parameters);
          const teacher = "distill" in options
            ? createParameters(gpu, network.stage.parameters, "teacher's ")
            : undefined;
          const trainer = await createTrainer(gpu, {
            network,
            parameters,
            seed: 1,
            accumulate: ACCUMULATE,
            exchange,
            shardOptimizer: "shardOptimizer" in options,
            distill: teacher && { teacher, weight: 0.5 },
            optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1, clip: 1 },
          });
          ranks.push({ trainer, network, parameters, teacher, bytes: gpu.allocatedBytes - held });
          held = gpu.allocatedBytes;
        }
        const { adapter } = gpu;
        const { software } = adapter;
        const sent: number[][] = [];
        try {
          for (const step of [0, 1]) {
            // As by a CPU driver, and as by a GPU.
            adapter.software &&= step === 0;
            await Promise.all(ranks.map(({ trainer }) => trainer.step(step, 1e-3, batches)));
            sent.push(transports.map(({ sentBytes }) => sentBytes));
          }
        } finally {
          adapter.software = software;
        }
        for (const [rank, { bytes }] of ranks.entries()) {
          const planned = plan.stages![rank % STAGES];
          assert(Math.abs(bytes / planned.total - 1) < 0.03, `rank ${rank}: ${bytes} of ${planned.total}`);
          const moved = sent[1][rank] - sent[0][rank];
          const beside = moved - planned.sent_per_step;
          assert(
            beside > -0.03 * planned.sent_per_step && beside < MEASURES,
            `rank ${rank} sent ${moved} of ${planned.sent_per_step}`,
          );
        }
        assertEquals(plan.total, Math.max(...plan.stages!.map(({ total }) => total)));
        for (const { trainer, network, parameters, teacher } of ranks) {
          trainer.destroy();
          network.destroy();
          for (const set of [parameters, teacher]) if (set) destroyParameters(gpu, set);
        }
        assertEquals(gpu.allocatedBytes, before);
      },
    );
  }
}

gpuTest("a run's budget is that of the stage that takes most", async (gpu) => {
  const settings = {
    batch: BATCH,
    context: TIED.contextLength,
    recompute: false,
    dtype: "f32",
    memory: 1,
    accumulate: ACCUMULATE,
    stages: STAGES,
  } as const;
  const { needs } = await budgetMemory(gpu, TIED, settings, false, {}, PIPELINES);
  const shape = { batch: BATCH, context: TIED.contextLength, training: true, recompute: false, half: false };
  const stage = { index: 0, count: STAGES, inFlight: 3 };
  const first = memoryNeeds(TIED, { ...shape, distill: false, stage }, gpu.maxBindingBytes);
  assertEquals([needs.weights, needs.activations], [first.weights, first.activations]);
  // Three micro-batches of 4 rows among two pipelines are two of 3 rows at each.
  const fewer = await budgetMemory(gpu, TIED, { ...settings, accumulate: 3 }, false, {}, PIPELINES);
  const two = { ...stage, inFlight: 2 };
  const smaller = memoryNeeds(TIED, { ...shape, batch: 3, distill: false, stage: two }, gpu.maxBindingBytes);
  assertEquals([fewer.batch, fewer.needs.activations], [BATCH, smaller.activations]);
  assertStringIncludes(
    describeNeeds(fewer),
    " with a batch of 4, 3 rows of it at once at the one of 3 stages",
  );
  const rows = { ...settings, batch: 1, accumulate: 3 };
  await assertRejects(() => budgetMemory(gpu, TIED, rows, false, {}, 2), UserError, "Cannot divide a step");
});

Deno.test("a plan has the micro-batches that a run makes, and refuses what a run does", () => {
  // Of 12 rows two pipelines have 6 each, in threes.
  const few = planTraining(TIED, asked({ batch: 4, accumulate: 3 }));
  const made = planTraining(TIED, asked({ batch: 3, accumulate: 4 }));
  assertEquals([few.batch, few.accumulate, few.stages], [3, 4, made.stages]);
  assertEquals([few.total, few.waiting], [made.total, 2 / 4]);
  assert(few.total < planTraining(TIED, asked({ batch: 4, accumulate: 4 })).total);
  // The constraint is measured on as many rows as were asked for.
  const { forward } = made.arithmetic;
  assertEquals(few.arithmetic.step - made.arithmetic.step, forward / 3 / 8);
  const ranks = planTraining(TIED, asked({ stages: 1, ranks: 8, batch: 8, accumulate: 1 }));
  assertEquals(ranks.activations, planTraining(TIED, asked({ stages: 1, ranks: 1, batch: 1 })).activations);
  for (const stages of [1, 3]) {
    const three = asked({ stages, ranks: 2 * stages, batch: 1, accumulate: 3 });
    assertThrows(() => planTraining(TIED, three), UserError, "Cannot divide a step among 2 ranks");
  }
});

Deno.test("a plan of stages tells what each holds and how long it waits", () => {
  const of = asked({ context: 1024, stages: 4, ranks: 4, accumulate: 9 });
  const plan = planTraining(GPT2, of);
  assertEquals(plan.stages!.map(({ layers }) => layers), [[0, 3], [3, 6], [6, 9], [9, 12]]);
  assertEquals(plan.stages!.map(({ in_flight }) => in_flight), [4, 3, 2, 1]);
  assertEquals(plan.waiting, 3 / 12);
  const whole = planTraining(GPT2, { ...of, stages: 1, ranks: 1 });
  const sum = (part: "weights" | "moments") => plan.stages!.reduce((total, of) => total + of[part], 0);
  // The tied embedding lies at both ends, and is trained at one.
  assertEquals([sum("weights"), sum("moments")], [whole.weights + 4 * 50257 * 768, whole.moments]);
  assertEquals([plan.parameters, plan.trained_parameters], [whole.parameters, whole.trained_parameters]);
  const text = planText(GPT2, plan, of);
  assertStringIncludes(text, "Of 4 stages the bytes above are those of the one that takes most:");
  assertStringIncludes(text, "each would wait 25.0 % of a step for the others");
  const long = { ...of, tokens: 1e9 };
  assertStringIncludes(planText(GPT2, planTraining(GPT2, long), long), "; give --network RATE and --rate");
});

Deno.test("stages that the ranks or the layers do not make up are refused with the numbers", () => {
  assertEquals(pipelinesOf({ ranks: 8, stages: 4, layers: 4 }), 2);
  for (
    const [of, said] of [
      [
        { ranks: 6, stages: 4, layers: 12 },
        "Cannot use --stages 4 as the number of ranks must be a multiple",
      ],
      [{ ranks: 1, stages: 2, layers: 12 }, "must be a multiple of it: 1"],
      [{ ranks: 4, stages: 4, layers: 3 }, "Cannot use --stages 4 as the model has fewer layers: 3"],
    ] as const
  ) assertStringIncludes(assertThrows(() => pipelinesOf(of), UserError).message, said);
});

Deno.test("stages alone are one pipeline", async () => {
  const settings = { ...defaultsOf(PLAN) as PlanSettings, stages: 4 };
  const { ranks, stages } = await planAsked(settings, GPT2);
  assertEquals([ranks, stages], [4, 4]);
  const error = await assertRejects(() => planAsked({ ...settings, ranks: 6 }, GPT2), UserError);
  assertEquals(
    error.message,
    "Cannot use --stages 4 as the number of ranks must be a multiple of it: 6; --ranks gives it",
  );
  const { network } = await planAsked({ ...settings, ranks: 8, network: "25GB/s" }, GPT2);
  assertEquals(network, 25e9);
});
