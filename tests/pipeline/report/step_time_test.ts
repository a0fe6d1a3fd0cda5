/** The time of a step that ranks share, told before it is run. */
import { elementsOf } from "../../../kernels/core/tensor.ts";
import { assert, assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { countArithmetic, countStretches } from "../../../pipeline/model/arithmetic.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { type SharedStep, timeOfStep } from "../../../pipeline/report/step_time.ts";
import {
  parseNetwork,
  type PlanAsked,
  planText,
  planTraining,
  type TrainingPlan,
} from "../../../pipeline/report/training_plan.ts";
import { runMain } from "../../support/tiny_model.ts";

const FOLDER = new URL("../../fixtures/configs/", import.meta.url).pathname;

/** Ten seconds, of which six are backward, in three stretches; a network of 100 bytes a second. */
const STEP: SharedStep = {
  ranks: 2,
  compute: 10,
  flop: 1000,
  stretches: [{ flop: 200, bytes: 100 }, { flop: 200, bytes: 200 }, { flop: 200, bytes: 50 }],
  network: 100,
  host: { bytesPerSecond: Infinity, bucketSeconds: 0 },
  isApart: true,
  shardOptimizer: false,
};

Deno.test("a bucket is moved behind its stretch and the buckets before it, and what comes last is seen", () => {
  // Half of each bucket goes there and half comes back. Stand at 6, 8 and 10 s; take 1, 2 and 0.5 s.
  assertEquals(timeOfStep(STEP), { compute: 10, exchange: 3.5, network: 3.5, hidden: 3, step: 10.5 });
  // A slower network is never free: from 6 s on, for 10 times as long.
  const slow = timeOfStep({ ...STEP, network: 10 });
  assertEquals(slow, { compute: 10, exchange: 35, network: 35, hidden: 4, step: 41 });
  // Seven eighths of a bucket go to other ranks of eight.
  assertAlmostEquals(timeOfStep({ ...STEP, ranks: 8 }).exchange, 3.5 * 7 / 4, 1e-12);
});

Deno.test("weights that are gathered wait for the update, and the host takes its time", () => {
  // There: 0.5, 1 and 0.25 s; back, behind the update, all at once.
  const sharded = timeOfStep({ ...STEP, shardOptimizer: true });
  assertEquals(sharded, { compute: 10, exchange: 3.5, network: 3.5, hidden: 1.5, step: 12 });
  const host = { bytesPerSecond: 100, bucketSeconds: 0.1 };
  // 2.1, 4.1 and 1.1 s: the second is there at 12.2 s, the third at 13.3 s.
  const read = timeOfStep({ ...STEP, host });
  assertAlmostEquals(read.step, 13.3, 1e-9);
  assertAlmostEquals(read.exchange, 7.3, 1e-9);
  assertEquals(read.network, 3.5);
  // On the cores that compute it is added to what they do: stretches end at 6, 9.1 and 13.2 s.
  assertAlmostEquals(timeOfStep({ ...STEP, host, isApart: false }).step, 14.3, 1e-9);
});

Deno.test("stretches are backward cut in pieces, with all gradients; a tied embedding's come last", async () => {
  const config = await readModelConfig(`${FOLDER}gpt2`);
  const parts = { train: "all" } as const;
  for (const recompute of [false, true]) {
    const shape = { batch: 2, context: 128, recompute };
    const stretches = countStretches(config, shape, parts, 16 << 20);
    const sum = (of: "flop" | "bytes"): number => stretches.reduce((total, each) => total + each[of], 0);
    const { recomputed, backward } = countArithmetic(config, shape, parts);
    assertEquals(sum("flop"), recomputed + backward);
    const trained = parametersOf(config).reduce(
      (total, { shape }) => total + 4 * elementsOf(shape),
      0,
    );
    assertEquals(sum("bytes"), trained);
    assert(stretches.slice(0, -1).every(({ bytes }) => bytes >= 16 << 20));
    assert(stretches.at(-1)!.bytes > 4 * 50257 * 768, "the embedding");
    // The head is before any layer.
    assert(stretches[0].flop > 2 * (2 * 256 * 50257 * 768), `${stretches[0].flop}`);
  }
});

Deno.test("a network's rate is read in bytes or bits, and refused where it is neither", () => {
  const rates: [string, number][] = [
    ["25GB/s", 25e9],
    ["200Gbit/s", 25e9],
    ["0.5 TB/s", 5e11],
    ["100Mbit/s", 12.5e6],
  ];
  for (const [text, rate] of rates) assertEquals(parseNetwork(text), rate);
  for (const text of ["", "25", "25GB", "25Gb/s", "0GB/s", "-1GB/s", "GB/s", "25 furlongs/s"]) {
    const error = assertThrows(() => parseNetwork(text), UserError);
    assertStringIncludes(error.message, "Cannot use --network as it must be a rate such as 25GB/s");
  }
});

const ASKED: PlanAsked = {
  batch: 8,
  context: 1024,
  accumulate: 8,
  dtype: "f32",
  recompute: false,
  distill: false,
  constraintEvery: 8,
  tokens: 1e9,
  rate: 5000,
  ranks: 8,
  network: 25e9,
  parts: { train: "all", frozen: "f32" },
};

Deno.test("a plan of ranks tells the step from the rate of one, and the hours from the step", async () => {
  const config = await readModelConfig(`${FOLDER}gpt2`);
  const plan = planTraining(config, ASKED);
  const { compute, step, exchange, hidden, network, tokens_per_second } = plan.time!;
  // 65,536 tokens, an eighth of them at each rank.
  assertEquals(compute, 65_536 / 8 / 5000);
  assertEquals(step, compute + exchange - hidden);
  assertAlmostEquals(network, plan.sent_per_step! / 25e9, 1e-12);
  assert(hidden > 0 && hidden < exchange);
  assertEquals(tokens_per_second, 65_536 / step);
  assertEquals(plan.hours, 1e9 / tokens_per_second / 3600);
  const text = planText(config, plan, ASKED);
  assertStringIncludes(text, "A step takes 1.92 s: computing 1.64 s");
  assertStringIncludes(
    text,
    `${Math.round(tokens_per_second).toLocaleString("en-US")} tokens/s, without evaluations`,
  );
  // Gathered weights are seen.
  const sharded = planTraining(config, { ...ASKED, shardOptimizer: true }).time!;
  assert(sharded.step > step && sharded.network === network);
  // More micro-batches to a step, the same exchange.
  const longer = planTraining(config, { ...ASKED, accumulate: 16 }).time!;
  assertAlmostEquals(longer.step - longer.compute, step - compute, 1e-9);
  // Of several ranks one's rate does not tell the hours.
  const without = { ...ASKED, network: undefined };
  const untold: TrainingPlan = planTraining(config, without);
  assertEquals([untold.time, untold.hours], [undefined, undefined]);
  const said = (others: Partial<PlanAsked>): string => {
    const asked = { ...ASKED, ...others };
    return planText(config, planTraining(config, asked), asked);
  };
  const rate = "--rate TOKENS_PER_SECOND, as a run of one device tells it of this model";
  assertStringIncludes(said({ network: undefined }), "; give --network RATE, for the hours");
  assertStringIncludes(said({ rate: 0 }), `; give ${rate}, for the hours`);
  const neither = { network: undefined, rate: 0 };
  assertStringIncludes(said(neither), `; give --network RATE and ${rate}, for the hours`);
  // Where no hours are asked for, of a step.
  const tokens = undefined;
  for (const stages of [1, 4]) {
    const [noRate, noNetwork] = [{ rate: 0 }, { network: undefined }]
      .map((without) => said({ stages, tokens, ...without }));
    assertStringIncludes(noRate, `\nGive ${rate}, for the time of a step.`);
    assertStringIncludes(noNetwork, "\nGive --network RATE, for the time of a step.");
    assert(!said({ stages, tokens, ...neither }).includes("Give --"), "nothing of time was asked for");
    assert(!said({ stages, tokens }).includes("Give --"));
  }
});

Deno.test("plan takes a network, and says what it cannot plan", async () => {
  const model = ["--model", `${FOLDER}gpt2`, "--context", "1024"];
  const args = [...model, "--accumulate", "8", "--ranks", "8", "--network", "25GB/s", "--rate", "5000"];
  const { code, stdout, stderr } = await runMain(["plan", ...args, "--json"]);
  assertEquals(code, 0, stderr);
  const { time }: TrainingPlan = JSON.parse(stdout);
  const { tokens: _, ...asked } = ASKED;
  assertEquals(time, planTraining(await readModelConfig(`${FOLDER}gpt2`), asked).time);
  const faults: [string[], string][] = [
    [[...model, "--network", "25GB/s"], "Cannot use --network where one rank trains: give --ranks N"],
    [[...args, "--network", "25"], "Cannot use --network as it must be a rate such as 25GB/s"],
    [[...args, "--ranks", "7"], "Cannot divide a step among 7 ranks"],
  ];
  for (const [args, said] of faults) {
    const refused = await runMain(["plan", ...args]);
    assertEquals([refused.code, refused.stdout], [2, ""], refused.stderr);
    assertStringIncludes(refused.stderr, said);
  }
});
