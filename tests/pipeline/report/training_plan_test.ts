/** The plan of a training run, from config.json alone (tests/fixtures/configs), against what a device is asked for. */
import { elementsOf } from "../../../kernels/core/tensor.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "node:path";
import { UserError } from "../../../pipeline/errors.ts";
import { countArithmetic } from "../../../pipeline/model/arithmetic.ts";
import { adaptersFor } from "../../../pipeline/model/adapters.ts";
import { openAdapter } from "../../../pipeline/model/adapter_files.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters } from "../../../pipeline/model/parameters.ts";
import { memoryNeeds, type TrainedParts, trainingNeeds } from "../../../pipeline/model/needs.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import type { FrozenType } from "../../../pipeline/model/op.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import {
  flopText,
  parseMemory,
  type PlanAsked,
  planText,
  planTraining,
  type TrainingPlan,
} from "../../../pipeline/report/training_plan.ts";
import { amount, PORTABLE_BINDING_BYTES } from "../../../pipeline/training/memory_budget.ts";
import { createTrainer } from "../../../pipeline/training/trainer.ts";
import { readDocument, scaleTables, withTables } from "../../scale_tables.ts";
import { gpuTest } from "../../support/gpu.ts";
import { RUN_CONFIG, RUN_SHAPE } from "../../support/prepared_run.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { runMain } from "../../support/tiny_model.ts";

const FOLDER = new URL("../../fixtures/configs/", import.meta.url).pathname;

const ALL: TrainedParts = { train: "all", frozen: "f32" };
const ATTENTION: TrainedParts = { train: "attention", frozen: "f32" };

/** Adapters of rank 64, as --lora 64 has them. */
function loraOf(config: ModelConfig, frozen: FrozenType = "f32", targets?: string[]): TrainedParts {
  const of = { rank: 64, alpha: 128, rankStabilised: false };
  const adapters = adaptersFor(config, { ...of, targets: targets ?? ["query", "key", "value", "output"] });
  return { train: "lora", adapters, frozen };
}

const ASKED: PlanAsked = {
  batch: 2,
  context: 512,
  accumulate: 1,
  dtype: "f32",
  recompute: false,
  distill: false,
  constraintEvery: 8,
  parts: ALL,
};

/** Numbers that are trained. */
const trainedOf = (config: ModelConfig, parts: TrainedParts): number =>
  parametersOf(config, parts).filter(({ trainable }) => trainable)
    .reduce((sum, { shape }) => sum + elementsOf(shape), 0);

Deno.test("where all is trained the plan is what a run announces, in every way that it can be stored", async () => {
  for (const name of ["gpt2", "Llama-3.2-1B", "OLMo-7B-hf"]) {
    const config = await readModelConfig(FOLDER + name);
    for (const half of [false, true]) {
      for (const recompute of [false, true]) {
        for (const distill of [false, true]) {
          const shape = { batch: 2, context: 256, half, recompute, distill };
          const announced = memoryNeeds(config, { ...shape, training: true }, PORTABLE_BINDING_BYTES);
          const planned = trainingNeeds(config, shape, ALL, PORTABLE_BINDING_BYTES);
          for (
            const part of [
              "weights",
              "copies",
              "teacher",
              "gradients",
              "moments",
              "activations",
              "total",
            ] as const
          ) {
            assertEquals(planned[part], announced[part], `${part} of ${name}`);
          }
          assertEquals(planned.largestBinding, announced.largestBinding);
        }
      }
    }
  }
});

/** Bytes of the buffers that a device is asked for while `body` runs, by what they are for as their labels say. */
async function askedFor(
  gpu: Parameters<Parameters<typeof gpuTest>[1]>[0],
  names: readonly string[],
  body: () => Promise<void>,
): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  const tensor = gpu.tensor;
  gpu.tensor = (label, shape, type) => {
    const made = tensor.call(gpu, label, shape, type);
    const [, prefix] = /^(gradient of |first moment of |second moment of |teacher's )?/.exec(label)!;
    const own = names.find((name) => label === (prefix ?? "") + name);
    const kind = own
      ? { "gradient of ": "gradients", "teacher's ": "teacher" }[prefix ?? ""] ??
        (prefix ? "moments" : "weights")
      : / in half precision$/.test(label)
      ? "copies"
      : /^activations \d+$/.test(label)
      ? "activations"
      : "other";
    found[kind] = (found[kind] ?? 0) + made.byteLength + (made.scales?.byteLength ?? 0);
    return made;
  };
  try {
    await body();
  } finally {
    gpu.tensor = tensor;
  }
  return found;
}

for (
  const [what, options, frozen] of [
    ["in float32", {}, undefined],
    ["recomputing", { recompute: true }, undefined],
    ["in half precision, with a teacher", { half: true, distill: true }, undefined],
    ["of adapters", {}, "f32"],
    ["of adapters beside float16, with a teacher", { distill: true, half: true }, "f16"],
    ["of adapters beside int8, recomputing", { recompute: true }, "int8"],
  ] as const
) {
  gpuTest(`the plan ${what} is what the device is asked for, kind by kind and to the byte`, async (gpu) => {
    const { batch, context } = RUN_SHAPE;
    const parts = frozen ? loraOf(RUN_CONFIG, frozen) : ALL;
    const shapes = parametersOf(RUN_CONFIG, parts);
    const shape = { batch, context, ...options };
    const found = await askedFor(gpu, shapes.map(({ name }) => name), async () => {
      const parameters = createParameters(gpu, shapes);
      const distill = "distill" in shape
        ? {
          // What is frozen is the student's too.
          teacher: new Map([...parameters, ...createParameters(gpu, frozen ? [] : shapes, "teacher's ")]),
          weight: 0.5,
        }
        : undefined;
      const network = await prepareNetwork(gpu, RUN_CONFIG, { ...shape, ...parts, training: true });
      const trainer = await createTrainer(gpu, {
        network,
        parameters,
        seed: 1,
        accumulate: 1,
        distill,
        optimiser: { beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0, clip: 1 },
      });
      trainer.destroy();
      network.destroy();
    });
    const planned = trainingNeeds(RUN_CONFIG, shape, parts, gpu.maxBindingBytes);
    for (const part of ["weights", "copies", "teacher", "gradients", "moments", "activations"] as const) {
      assertEquals(found[part] ?? 0, planned[part], part);
    }
    assert(found.other < 0.2 * planned.total, `${found.other} bytes beside ${planned.total}`);
  });
}

Deno.test("what is trained is counted by hand: attention's products, and A and B beside each tensor of a file", async () => {
  const olmo = await readModelConfig(`${FOLDER}OLMo-7B-hf`);
  const gpt2 = await readModelConfig(`${FOLDER}gpt2`);
  const llama = await readModelConfig(`${FOLDER}Llama-3.2-1B`);
  assertEquals(trainedOf(olmo, ATTENTION), 32 * 4 * 4096 ** 2);
  // With their biases, and without the norms.
  assertEquals(trainedOf(gpt2, ATTENTION), 12 * (4 * 768 ** 2 + 4 * 768));
  const adapters = (config: ModelConfig, targets?: string[]): number =>
    trainedOf(config, loraOf(config, "f32", targets));
  assertEquals(adapters(olmo), 32 * 4 * 64 * 2 * 4096);
  assertEquals(adapters(olmo, ["all-linear"]), 32 * 64 * (4 * 2 * 4096 + 3 * (4096 + 11_008)));
  // Queries, keys and values are one tensor in its files.
  assertEquals(adapters(gpt2), 12 * 64 * (768 + 3 * 768 + 2 * 768));
  assertEquals(adapters(llama), 16 * 64 * (2 * 2 * 2048 + 2 * (2048 + 512)));
});

Deno.test("what is frozen takes 4, 2 or a little over 1 byte, and neither gradients nor moments", async () => {
  const config = await readModelConfig(`${FOLDER}OLMo-7B-hf`);
  const shape = { batch: 1, context: 64, recompute: true, distill: true };
  const trained = 4 * 32 * 4 * 64 * 2 * 4096;
  const tables = 2 * 50_304 * 4096;
  const bytesOf = { f32: [4, 4], f16: [2, 2], int8: [1 + 4 / 128, 2] };
  for (const frozen of ["f32", "f16", "int8"] as const) {
    const [ofMatrices, ofTables] = bytesOf[frozen];
    const parts = loraOf(config, frozen);
    const needs = trainingNeeds(config, shape, parts, PORTABLE_BINDING_BYTES);
    assertEquals(needs.frozen, ofMatrices * (6_888_095_744 - tables) + ofTables * tables);
    assertEquals([needs.weights, needs.gradients, needs.moments], [
      needs.frozen + trained,
      trained,
      2 * trained,
    ]);
    assertEquals(needs.teacher, 0, "the base without its low-rank matrices is the teacher");
    const { activations } = trainingNeeds(config, shape, ALL, PORTABLE_BINDING_BYTES);
    // x A of the four products of a layer, and a gradient of it; what a buffer shares may save some.
    const more = needs.activations - activations;
    assert(more > -1e6 && more < 4 * 64 * 64 * 4 * 4, `${more} bytes of adapters`);
    const half = trainingNeeds(config, { ...shape, half: true }, parts, PORTABLE_BINDING_BYTES);
    const products = 6_888_095_744 - 50_304 * 4096;
    // Adapters are read as they are trained.
    assertEquals(half.copies, frozen === "f32" ? 2 * products : 0);
  }
  const attention = trainingNeeds(config, shape, ATTENTION, PORTABLE_BINDING_BYTES);
  assertEquals(attention.teacher, 4 * 32 * 4 * 4096 ** 2);
  assertEquals(attention.weights, 4 * 6_888_095_744);
});

Deno.test("arithmetic is two operations for each weight and token, and causal pairs, forward once and backward twice", async () => {
  const config = await readModelConfig(`${FOLDER}gpt2`);
  const [batch, context] = [3, 100];
  const rows = batch * context;
  const layers = 12 * 12 * 768 ** 2;
  const head = 50_257 * 768;
  const pairs = batch * 12 * 12 * (context * (context + 1) / 2) * 64;
  const count = (options: { recompute?: boolean }, parts?: Parameters<typeof countArithmetic>[2]) =>
    countArithmetic(config, { batch, context, ...options }, parts);
  const forward = 2 * rows * (layers + head) + 2 * 2 * pairs;
  assertEquals(count({}), { forward, recomputed: 0, backward: 0 });
  const backward = 2 * 2 * rows * (layers + head) + 7 * 2 * pairs;
  assertEquals(count({}, ALL), { forward, recomputed: 0, backward });
  // Of a layer's products the last alone is read by none that comes behind it.
  const recomputed = 2 * rows * (layers - 12 * 4 * 768 ** 2) + 2 * 2 * pairs;
  assertEquals(count({ recompute: true }, ALL), { forward, recomputed, backward });
  const attention = 2 * rows * 12 * 4 * 768 ** 2;
  // Nothing that is trained lies before the first product, whose input has no gradient.
  const ofActivations = 2 * rows * (layers - 3 * 768 ** 2 + head) + 7 * 2 * pairs;
  assertEquals(count({}, ATTENTION).backward, ofActivations + attention);
  const adapters = 2 * rows * 12 * 64 * (768 + 3 * 768 + 2 * 768);
  const LORA = loraOf(config);
  assertEquals(count({}, LORA), {
    forward: forward + adapters,
    recomputed: 0,
    backward: ofActivations + 2 * adapters - 2 * rows * 64 * 768,
  });
  assertEquals(
    count({ recompute: true }, LORA).recomputed,
    count({ recompute: true }, ALL).recomputed + adapters,
  );
});

Deno.test("what fits is the largest that fits: one row or one token more does not", async () => {
  const config = await readModelConfig(`${FOLDER}Llama-3.2-1B`);
  const asked = { ...ASKED, context: 1024, memory: 48e9 };
  const { fits } = planTraining(config, asked);
  const total = (of: Partial<PlanAsked>): number =>
    planTraining(config, { ...asked, memory: undefined, ...of }).total;
  for (const { recompute, batch, context, least, bound } of fits!) {
    assertEquals(least, total({ recompute, batch: 1 }));
    assert(total({ recompute, batch: 1, context }) <= 48e9);
    assert(total({ recompute, batch }) <= 48e9);
    if (recompute) {
      assertEquals(bound, "binding");
      const of = planTraining(config, { ...asked, recompute, batch: batch + 1 });
      assert(of.largest_binding > 2 ** 31 - 1 && of.total < 48e9);
    } else {
      assertEquals(bound, "memory");
      assert(total({ recompute, batch: batch + 1 }) > 48e9);
      assert(total({ recompute, batch: 1, context: context + 1 }) > 48e9);
    }
  }
  const small = planTraining(config, { ...asked, memory: 1e9 });
  assertEquals(small.fits!.map(({ batch, context }) => [batch, context]), [[0, 0], [0, 0]]);
  const text = planText(config, small, { ...asked, memory: 1e9 });
  assertStringIncludes(
    text,
    "without --recompute: nothing of 1,024 tokens fits, as one row of 1,024 tokens takes 22.8 GB",
  );
  const bindings = planTraining(config, { ...asked, binding: PORTABLE_BINDING_BYTES });
  assertEquals(bindings.fits!.map(({ batch, bound }) => [batch, bound]), [[2, "binding"], [2, "binding"]]);
  assertEquals(bindings.portable_batch, 2);
});

Deno.test("a plan for people says what is bound in slices, what a step takes, and the hours", async () => {
  const config = await readModelConfig(`${FOLDER}OLMo-7B-hf`);
  const asked = {
    ...ASKED,
    accumulate: 4,
    tokens: 1e9,
    rate: 2000,
    parts: loraOf(config, "int8"),
  };
  const plan = planTraining(config, asked);
  const text = planText(config, plan, asked);
  assertEquals(plan.sliced, {
    count: 2,
    largest: "embed_tokens.weight",
    bytes: 2 * 50_304 * 4096,
    slices: 4,
  });
  assertStringIncludes(
    text,
    "Larger than that: 2 weights, which are bound in slices, embed_tokens.weight (412 MB) in 4 where a binding holds no more.",
  );
  assertEquals([plan.tokens_per_step, plan.steps], [4096, Math.ceil(1e9 / 4096)]);
  assertEquals(plan.hours, 1e9 / 2000 / 3600);
  const { forward, backward, step } = plan.arithmetic;
  assertEquals(step, 4 * (forward + backward) + forward / 8);
  assertStringIncludes(text, "139 hours at 2,000 tokens/s");
  const brief = { ...asked, tokens: 360_000 };
  assertStringIncludes(
    planText(config, planTraining(config, brief), brief),
    ", 180 seconds at 2,000 tokens/s",
  );
  const without = planText(config, planTraining(config, { ...asked, rate: 0 }), { ...asked, rate: 0 });
  assertStringIncludes(without, "give --rate TOKENS_PER_SECOND");
  assert(!without.includes("hours at"));
  const distilled = planTraining(config, { ...asked, distill: true }).arithmetic;
  // A teacher is the model without low-rank matrices.
  const teacher = countArithmetic(config, asked).forward;
  assertEquals(distilled.step, step + 4 * teacher);
  assertEquals([1.5e7, 2e12, 3.456e18].map(flopText), ["15.0 MFLOP", "2.00 TFLOP", "3.46 EFLOP"]);
});

Deno.test("a size of memory is read with its unit, and refused where there is none to read", () => {
  const sizes: [text: string, bytes: number][] = [
    ["24GB", 24e9],
    ["24", 24e9],
    ["0.5 gb", 5e8],
    ["80GiB", 80 * 2 ** 30],
    ["512MB", 512e6],
    ["1TiB", 2 ** 40],
  ];
  for (const [text, bytes] of sizes) assertEquals(parseMemory("--gpu-memory", text), bytes);
  for (const text of ["", "GB", "24XB", "-1GB", "0", "1.2.3GB", "24 GB 3", "1e400", "constructor"]) {
    const error = assertThrows(() => parseMemory("--gpu-memory", text), UserError);
    assertStringIncludes(error.message, "Cannot use --gpu-memory as it must be a size such as 24GB");
  }
});

Deno.test("plan takes a config.json, its folder, and every setting that it plans, and prints one line of JSON", async () => {
  const told = async (args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runMain(["plan", ...args]);
    assertEquals([code, stderr], [0, ""]);
    return stdout;
  };
  const model = `${FOLDER}OLMo-7B-hf`;
  const flags = [
    "--batch",
    "2",
    "--context",
    "512",
    "--lora",
    "64",
    "--frozen",
    "f16",
    "--gpu-memory",
    "24GB",
  ];
  const config = await readModelConfig(model);
  const asked = { ...ASKED, parts: loraOf(config, "f16"), memory: 24e9 };
  const json: TrainingPlan & { model: string } = JSON.parse(
    await told(["--model", join(model, "config.json"), ...flags, "--json"]),
  );
  const plan = planTraining(config, asked);
  assertEquals(json, JSON.parse(JSON.stringify({ model: join(model, "config.json"), ...plan })));
  assertEquals(
    json.total,
    json.weights + json.copies + json.teacher + json.gradients + json.moments + json.activations,
  );
  assertEquals(await told(["--model", model, ...flags]), planText(config, plan, asked) + "\n");
});

Deno.test("plan takes an adapter that a run is to begin with, whose teacher has one of its own", async () => {
  const adapter = new URL("../../fixtures/lora/llama", import.meta.url).pathname;
  const model = new URL("../../fixtures/families/llama", import.meta.url).pathname;
  const args = ["--model", model, "--adapter", adapter, "--context", "16", "--distill", "1"];
  const { code, stdout, stderr } = await runMain(["plan", ...args, "--json"]);
  assertEquals(code, 0, stderr);
  const plan: TrainingPlan = JSON.parse(stdout);
  const config = await readModelConfig(model);
  const { adapters, parameters } = await openAdapter(adapter, config);
  const bytes = parameters.reduce((sum, { shape: [rows, columns] }) => sum + 4 * rows * columns, 0);
  assertEquals([plan.train, plan.trained_weights, plan.gradients], ["lora", bytes, bytes]);
  assertEquals([plan.teacher, plan.moments], [bytes, 2 * bytes]);
  assertEquals(plan.rank, Math.max(...Object.values(adapters).map(({ rank }) => rank)));
  // One that begins at 0 has the model without it as its teacher.
  const ofNew = await runMain([
    "plan",
    ...["--model", model, "--lora", "4", "--context", "16", "--distill", "1", "--json"],
  ]);
  assertEquals(JSON.parse(ofNew.stdout).teacher, 0);
});

Deno.test("of a tiny model no size is told as nothing", async () => {
  const model = new URL("../../fixtures/families/llama", import.meta.url).pathname;
  const args = ["--model", model, "--lora", "4", "--context", "4", "--batch", "1"];
  const { code, stdout, stderr } = await runMain([
    "plan",
    ...args,
    ...["--gpu-memory", "1GB", "--tokens", "1000", "--rate", "500"],
  ]);
  assertEquals(code, 0, stderr);
  assert(!/(?<![\d.])0(\.0+)? /.test(stdout), stdout);
  assertStringIncludes(stdout, ", 2 seconds at 500 tokens/s");
  const amounts = [0, 999, 1000, 9_900, 99_999, 100_000, 5e6, 5e7, 5e8, 5e9].map(amount);
  assertEquals(amounts, [
    "0 bytes",
    "999 bytes",
    "1.0 kB",
    "9.9 kB",
    "100 kB",
    "0.1 MB",
    "5.0 MB",
    "50 MB",
    "500 MB",
    "5.0 GB",
  ]);
});

Deno.test("what cannot be planned is said in one line, with what was required and what was found", async () => {
  await using folder = await temporaryFolder();
  const write = async (name: string, change: Record<string, unknown>): Promise<string> => {
    const json = JSON.parse(await Deno.readTextFile(`${FOLDER}gpt2/config.json`));
    await Deno.mkdir(join(folder.path, name));
    await Deno.writeTextFile(join(folder.path, name, "config.json"), JSON.stringify({ ...json, ...change }));
    return join(folder.path, name);
  };
  const model = ["--model", `${FOLDER}gpt2`];
  const faults: [args: string[], code: number, said: string][] = [
    [[], 2, "Cannot plan without a model: give --model"],
    [["--model", join(folder.path, "nowhere")], 3, "as there is no folder"],
    [["--model", join(folder.path, "config.json")], 3, "no such file"],
    [["--model", await write("mamba", { model_type: "mamba" })], 3, 'model_type must be "gpt2"'],
    [["--model", await write("none", { n_layer: null })], 3, "n_layer must be a positive integer: null"],
    [["--model", await write("text", { n_embd: "wide" })], 3, "n_embd must be a positive integer"],
    [[...model, "--gpu-memory", "much"], 2, "Cannot use --gpu-memory as it must be a size such as 24GB"],
    [[...model, "--binding", "0GB"], 2, "Cannot use --binding as it must be a size"],
    [[...model, "--frozen", "int8"], 2, "Cannot use --frozen int8 where all is trained"],
    [[...model, "--frozen", "int4", "--lora", "8"], 2, "must be one of f32, f16, int8: int4"],
    [[...model, "--train", "lora"], 2, "Cannot use --train lora without --lora RANK"],
    [[...model, "--train", "attention", "--lora", "8"], 2, "Cannot use --lora with --train attention"],
    [[...model, "--context", "1025"], 3, "the positions of"],
    [[...model, "--rate", "-1"], 2, "--rate as it must be at least 0"],
    [[...model, "--tokens", "many"], 2, "--tokens as it must be a number"],
    [
      ["--model", await write("odd", { n_embd: 90, n_head: 9 }), "--dtype", "f16", "--context", "8"],
      2,
      "Cannot plan with --dtype f16 as width",
    ],
  ];
  for (const [args, code, said] of faults) {
    const result = await runMain(["plan", ...args]);
    assertEquals([result.code, result.stdout], [code, ""], result.stderr);
    assertStringIncludes(result.stderr, said);
    assertEquals(result.stderr.trim().split("\n").length, 1);
  }
});

Deno.test("the tables of docs/scale.md are those that are computed", async () => {
  const document = await readDocument();
  assertEquals(document, withTables(document, await scaleTables()));
  // What is behind them was measured.
  const [computed] = document.split("## What int8 takes");
  const rows = computed.split("\n").filter((line) => line.startsWith("|"));
  assertEquals(rows.length, 2 * (2 + 6 * 5));
  // One that the text beside them speaks of.
  assert(
    rows.some((row) => /\| LoRA 64, int8 .* 262 M .* 79\.0 .* 125 .* 82\.8 /.test(row)),
    "70 billion as int8",
  );
});
