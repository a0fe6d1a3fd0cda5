/** The time of a step that stages share, told before it is run. */
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { countArithmetic, countStages } from "../../../pipeline/model/arithmetic.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { type StagedStep, timeOfStages } from "../../../pipeline/report/stage_time.ts";
import { type PlanAsked, planText, planTraining } from "../../../pipeline/report/training_plan.ts";

const FOLDER = new URL("../../fixtures/configs/", import.meta.url).pathname;

/** Four stages, forward in 1 s and backward in 2, and nothing takes time on the way. */
const EVEN: StagedStep = {
  stages: Array.from({ length: 4 }, () => ({ forward: 1, backward: 2, gradients: 100 })),
  microBatches: 8,
  pipelines: 1,
  stream: { forward: 100, backward: 100 },
  embedding: 0,
  blocks: 1,
  network: Infinity,
  host: { bytesPerSecond: Infinity, bucketSeconds: 0 },
};

Deno.test("even stages wait S − 1 passes of M + S − 1, and one stage waits for nothing", () => {
  // Eight of 3 s, and three more that each stage stands idle.
  assertEquals(timeOfStages(EVEN), { compute: 24, passes: 33, exchange: 0, step: 33 });
  assertEquals(timeOfStages({ ...EVEN, microBatches: 1 }).step, 12, "one after the other");
  const alone = { ...EVEN, stages: EVEN.stages.slice(0, 1) };
  assertEquals(timeOfStages(alone), { compute: 24, passes: 24, exchange: 0, step: 24 });
});

Deno.test("the slowest stage sets the pace", () => {
  const stages = EVEN.stages.map((stage, index) =>
    index === 3 ? { ...stage, forward: 2, backward: 4 } : stage
  );
  // Three forwards before its first, eight pairs of its own, three backwards behind its last.
  assertEquals(timeOfStages({ ...EVEN, stages }), { compute: 48, passes: 57, exchange: 0, step: 57 });
});

Deno.test("what passes is read by who sends it and then under way, forward and back", () => {
  // Two stages, one micro-batch: there and back, each 1 s of network.
  const two = { ...EVEN, stages: EVEN.stages.slice(0, 2), microBatches: 1, network: 100 };
  assertEquals(timeOfStages(two).step, 6 + 2);
  // Reading takes 0.5 s at each sender.
  assertEquals(
    timeOfStages({ ...two, host: { bytesPerSecond: 400, bucketSeconds: 0.25 } }).step,
    6 + 2 + 2 * 0.5,
  );
  // A tied embedding's part goes with the stream, and new weights come back behind all.
  const tied = timeOfStages({ ...two, embedding: 300 });
  assertEquals([tied.passes, tied.exchange], [6 + 2 + 3, 3]);
  // Of three blocks of logits each has its own.
  const inBlocks = timeOfStages({ ...two, embedding: 300, blocks: 3 });
  assertEquals([inBlocks.passes, inBlocks.exchange], [6 + 2 + 9, 3]);
  // A teacher's stream goes forward beside the model's.
  assertEquals(timeOfStages({ ...two, stream: { forward: 200, backward: 100 } }).step, 6 + 3);
});

Deno.test("pipelines add their gradients behind their last backward", () => {
  // Half of 100 bytes there and back; the first stage goes backward last.
  assertEquals(
    timeOfStages({ ...EVEN, stream: { forward: 0, backward: 0 }, network: 100, pipelines: 2 }).exchange,
    1,
  );
  const stages = EVEN.stages.map((stage, index) => ({ ...stage, gradients: index === 3 ? 1000 : 0 }));
  // The last stage's ends 6 s before and takes 10.
  assertEquals(
    timeOfStages({ ...EVEN, stages, stream: { forward: 0, backward: 0 }, network: 100, pipelines: 2 })
      .exchange,
    4,
  );
});

Deno.test("stages have all operations of a micro-batch among them, and the head's are the last one's", async () => {
  for (const name of ["gpt2", "OLMo-7B-hf"]) {
    const config = await readModelConfig(`${FOLDER}${name}`);
    const parts = { train: "all" } as const;
    for (const recompute of [false, true]) {
      const shape = { batch: 2, context: 128, recompute };
      const { forward, recomputed, backward } = countArithmetic(config, shape, parts);
      const stages = countStages(config, shape, parts, 4);
      const sum = (of: "forward" | "backward"): number => stages.reduce((total, each) => total + each[of], 0);
      assertAlmostEquals(sum("forward") / forward, 1, 1e-12);
      assertAlmostEquals(sum("backward") / (recomputed + backward), 1, 1e-12);
      assertEquals(stages[0].forward, stages[1].forward);
      const head = 2 * 2 * 128 * config.vocabularySize * config.width;
      assertAlmostEquals(stages[3].forward - stages[0].forward, head, 1e-3 * head);
    }
  }
});

Deno.test("a plan tells a step of stages and its hours", async () => {
  const config = await readModelConfig(`${FOLDER}gpt2`);
  const asked: PlanAsked = {
    batch: 4,
    context: 1024,
    accumulate: 32,
    dtype: "f32",
    recompute: true,
    distill: false,
    constraintEvery: 8,
    parts: { train: "all", adapters: undefined, frozen: "f32" },
    ranks: 8,
    stages: 4,
    network: 25e9,
    rate: 40_000,
    tokens: 1e9,
  };
  const plan = planTraining(config, asked);
  const time = plan.staged_time!;
  assertEquals(plan.time, undefined);
  // Two pipelines of sixteen micro-batches.
  assertAlmostEquals(time.tokens_per_second, 32 * 4 * 1024 / time.step, 1e-6);
  assert(time.compute < time.passes && time.passes < time.step);
  // The head is on the last of four stages: slower than a quarter of one rank's time for half of the micro-batches.
  assert(time.compute > 32 * 4 * 1024 / 40_000 / 2 / 4 && time.tokens_per_second < 8 * 40_000);
  assertAlmostEquals(plan.hours!, 1e9 / time.tokens_per_second / 3600, 1e-9);
  assertStringIncludes(planText(config, plan, asked), "until every stage has gone backward");
  const distilled = planTraining(config, { ...asked, distill: true }).staged_time!;
  assert(distilled.step >= time.step, "a teacher makes nothing faster");
  // Rows are divided where there are fewer micro-batches than pipelines, and refused where they cannot be.
  const one = planTraining(config, { ...asked, accumulate: 1 });
  assertAlmostEquals(one.staged_time!.tokens_per_second, 4 * 1024 / one.staged_time!.step, 1e-6);
  assertThrows(() => planTraining(config, { ...asked, batch: 1, accumulate: 3 }), UserError, "Cannot divide");
  assertEquals(planTraining(config, { ...asked, network: undefined }).hours, undefined);
});
