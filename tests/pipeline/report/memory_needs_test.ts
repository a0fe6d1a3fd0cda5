/** What models need, from their config.json alone (tests/fixtures/configs). */
import { gpt2Config } from "../../../pipeline/model/config.ts";
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { needsText, tellNeeds, type ToldNeeds } from "../../../pipeline/report/memory_needs.ts";
import { PORTABLE_BINDING_BYTES } from "../../../pipeline/training/memory_budget.ts";
import { planTraining } from "../../../pipeline/report/training_plan.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { runMain } from "../../support/tiny_model.ts";

const FOLDER = new URL("../../fixtures/configs/", import.meta.url).pathname;

/** Parameters counted by hand: all, and those of the matrices that products read. */
const COUNTS: Record<string, { all: number; matrices: number }> = {
  // Each of 32 layers: queries, keys, values and their output 4 d²; gate, up and down 3 d F; norms have none. The head
  // is a matrix of its own, and the embedding is only looked up.
  "OLMo-7B-hf": {
    all: 32 * (4 * 4096 ** 2 + 3 * 4096 * 11_008) + 2 * 50_304 * 4096,
    matrices: 32 * (4 * 4096 ** 2 + 3 * 4096 * 11_008) + 50_304 * 4096,
  },
  // Each of 16 layers: queries and output 2 d², keys and values 2 d · 8 · 64, the MLP's 3 d F, two norms of d; one more at
  // the end. The embedding is the head.
  "Llama-3.2-1B": {
    all: 16 * (2 * 2048 ** 2 + 2 * 2048 * 512 + 3 * 2048 * 8192 + 2 * 2048) + 128_256 * 2048 + 2048,
    matrices: 16 * (2 * 2048 ** 2 + 2 * 2048 * 512 + 3 * 2048 * 8192) + 128_256 * 2048,
  },
  // Each of 12 layers: 12 d² and biases of 3 d, d, 4 d, d; two norms of 2 d; one more at the end.
  "gpt2": {
    all: 12 * (12 * 768 ** 2 + 9 * 768 + 4 * 768) + (50_257 + 1024) * 768 + 2 * 768,
    matrices: 12 * 12 * 768 ** 2 + 50_257 * 768,
  },
};

Deno.test("what OLMo-7B, Llama-3.2-1B and GPT-2 need is four sets of their parameters and their activations", async () => {
  assertEquals(COUNTS["OLMo-7B-hf"].all, 6_888_095_744);
  assertEquals(COUNTS["Llama-3.2-1B"].all, 1_235_814_400);
  assertEquals(COUNTS["gpt2"].all, 124_439_808);
  const asked = { batch: 2, context: 512, training: true };
  for (const [name, { all, matrices }] of Object.entries(COUNTS)) {
    const config = await readModelConfig(FOLDER + name);
    const { parameters, needs } = tellNeeds(config, asked);
    assertEquals(parameters, all, name);
    const ways = needs.map(({ dtype, recompute }) => `${dtype}${recompute ? " again" : ""}`);
    assertEquals(ways, ["f32", "f32 again", "f16", "f16 again"]);
    for (const { dtype, weights, copies, teacher, gradients, moments, activations, total } of needs) {
      const bytes = 4 * all;
      assertEquals([weights, gradients, moments, teacher], [bytes, bytes, 2 * bytes, 0], name);
      assertEquals(copies, dtype === "f16" ? 2 * matrices : 0, name);
      assertEquals(total, 4 * bytes + copies + activations, name);
    }
    const [f32, f32Again, f16, f16Again] = needs.map(({ activations }) => activations);
    const { layers, width, mlpWidth } = config;
    const stream = 4 * asked.batch * asked.context * width;
    // All layers' stream before each branch, what products read, and what is inside the MLP must stand till backward.
    const least = layers * (4 * stream + 4 * asked.batch * asked.context * mlpWidth);
    assert(f32 > least && f32 < 4 * least, `${name}: ${f32}`);
    assert(f32Again > layers * stream && f32Again < f32 / 3, `${name}: ${f32Again}`);
    assert(f16 < 0.7 * f32 && f16Again < f32Again, `${name}: ${f16}, ${f16Again}`);
    const [teacher] = tellNeeds(config, { ...asked, distill: true }).needs;
    assertEquals(teacher.teacher, 4 * all);
    const [evaluated, ...others] = tellNeeds(config, { ...asked, training: false }).needs;
    assertEquals(others, []);
    assertEquals([evaluated.gradients, evaluated.moments], [0, 0]);
    assert(evaluated.activations < f32 / 6);
    assertEquals(evaluated.total, evaluated.weights + evaluated.activations);
  }
});

Deno.test("--memory without a value tells it of a folder with only a config.json, in training and in evaluation", async () => {
  const model = `${FOLDER}OLMo-7B-hf`;
  const told = async (args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await runMain([...args, "--model", model]);
    assertEquals([code, stderr], [0, ""]);
    return stdout;
  };
  const config = await readModelConfig(model);
  const training = { batch: 3, context: 256, training: true, distill: true };
  const json: ToldNeeds & { model: string } = JSON.parse(
    await told(["sparsify", "--memory", "--json", "--batch", "3", "--context", "256", "--distill", "0.5"]),
  );
  assertEquals(json, { model, ...tellNeeds(config, training) });
  const evaluation = { batch: 8, context: 2048, training: false };
  assertEquals(
    await told(["evaluate", "--memory"]),
    needsText(tellNeeds(config, evaluation), evaluation) + "\n",
  );
});

Deno.test("--memory without a value tells of stages what the plan does, in each way", async () => {
  const model = `${FOLDER}gpt2`;
  const args = ["--model", model, "--stages", "5", "--batch", "2", "--context", "128", "--accumulate", "3"];
  const { code, stdout, stderr } = await runMain(["sparsify", "--memory", "--json", ...args]);
  assertEquals([code, stderr], [0, ""]);
  const told: ToldNeeds = JSON.parse(stdout);
  const config = await readModelConfig(model);
  assertEquals(told.needs.length, 4);
  for (const { dtype, recompute, stages, ...most } of told.needs) {
    const plan = planTraining(config, {
      ...{ batch: 2, context: 128, accumulate: 3, dtype, recompute, distill: false, constraintEvery: 8 },
      ...{ parts: { train: "all", frozen: "f32" }, stages: 5, ranks: 5, binding: PORTABLE_BINDING_BYTES },
    });
    const ofPlan = plan.stages!.map((
      { layers, in_flight, total, weights, gradients, moments, activations },
    ) => [layers, in_flight, total, weights, gradients, moments, activations]);
    assertEquals(
      stages!.map((
        { layers, in_flight, total, weights, gradients, moments, activations },
      ) => [layers, in_flight, total, weights, gradients, moments, activations]),
      ofPlan,
    );
    assertEquals([most.total, most.largest_binding], [plan.total, plan.largest_binding]);
  }
  assertEquals(told.needs[0].stages!.map(({ in_flight }) => in_flight), [3, 3, 3, 2, 1]);
  const text = needsText(told, { batch: 2, context: 128, training: true });
  assertStringIncludes(text, "Of 5 stages the bytes above are those of the one that takes most; each takes:");
  assert(/^4 +9 to 11 +1 +\d/m.test(text), text);
  const many = await runMain(["sparsify", "--memory", "--model", model, "--stages", "13"]);
  assertEquals([many.code, many.stdout], [2, ""]);
  assertStringIncludes(many.stderr, "Cannot use --stages 13 as the model has fewer layers: 12");
});

Deno.test("--memory with a value is a limit as ever, and without one no run is resumed by it", async () => {
  await using folder = await temporaryFolder();
  const limited = await runMain(["sparsify", "--memory", "0.001", "--runs", folder.path]);
  assertEquals(limited.code, 2);
  assertStringIncludes(limited.stderr, "there are 1.0 MB");
  const resumed = await runMain(["sparsify", "--resume", "x", "--memory"]);
  assertEquals(resumed.code, 2);
  assertStringIncludes(resumed.stderr, "Cannot tell what a run needs by --memory without a value");
  const long = await runMain(["evaluate", "--model", `${FOLDER}gpt2`, "--memory", "--context", "1025"]);
  assertEquals(long.code, 3);
});

Deno.test("an activation beyond the bindings that every adapter has is named", () => {
  const config = gpt2Config({
    vocabularySize: 61,
    contextLength: 1 << 16,
    width: 64,
    layers: 1,
    heads: 2,
    mlpWidth: 1024,
  });
  const asked = { batch: 1, context: 1 << 16, training: false };
  const text = needsText(tellNeeds(config, asked), asked);
  assertStringIncludes(text, "One activation takes 268 MB");
  const shorter = { ...asked, context: 1 << 14 };
  assert(!needsText(tellNeeds(config, shorter), shorter).includes("One activation"));
});
