import { elementsOf } from "../../../kernels/core/tensor.ts";
import { assertEquals, assertMatch, assertRejects } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { openSafetensors } from "../../../pipeline/model/safetensors.ts";
import { type SavedModel, saveModel } from "../../../pipeline/model/save_weights.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const CONFIG: ModelConfig = gpt2Config({
  vocabularySize: 3,
  contextLength: 2,
  width: 2,
  layers: 1,
  heads: 1,
  mlpWidth: 3,
  endOfText: 1,
  startOfText: 0,
  gate: { bias: 3, temperature: 1 },
});

/** A model whose every weight is `value`, with a tokenizer in `folder`. */
async function modelOf(value: number, folder: string): Promise<SavedModel> {
  const tokenizer = `${folder}/source-tokenizer.json`;
  await Deno.writeTextFile(tokenizer, `{"version":"1.0"}`);
  const tensors = parametersOf(CONFIG).map(({ name, shape }) => ({
    name,
    shape,
    read: () => Promise.resolve(new Float32Array(elementsOf(shape)).fill(value)),
  }));
  return { config: CONFIG, tensors, type: "F32", tokenizer };
}

const namesIn = async (folder: string) =>
  (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort();

async function firstWeight(folder: string): Promise<number> {
  return (await (await openWeights(folder, CONFIG)).read("wte.weight"))[0];
}

/** The model, but reading its fifth tensor fails as if the process had been killed there. */
function killed(model: SavedModel): SavedModel {
  const tensors = model.tensors.map((tensor, n) =>
    n === 4 ? { ...tensor, read: () => Promise.reject(new Error("killed")) } : tensor
  );
  return { ...model, tensors };
}

/** What a saved model with gates consists of. */
const GATED_FILES = [
  "README.md",
  "config.json",
  "model.safetensors",
  "sparse_attention.py",
  "tokenizer.json",
];

for (const type of ["F32", "F16", "BF16"] as const) {
  Deno.test(`a model saved as ${type} is a Hugging Face folder that we load again`, async () => {
    await using temporary = await temporaryFolder();
    const folder = `${temporary.path}/model`;
    const model = await modelOf(0.5, temporary.path);
    await saveModel(folder, { ...model, type, sparseAttention: { open_fraction: 0.01 } });
    assertEquals(await namesIn(folder), GATED_FILES);
    assertEquals(await namesIn(temporary.path), ["model", "source-tokenizer.json"]);
    const json = JSON.parse(await Deno.readTextFile(`${folder}/config.json`));
    assertEquals(json.architectures, ["GPT2LMHeadModel"]);
    assertEquals(json.sparse_attention, { open_fraction: 0.01, gate: { bias: 3, temperature: 1 } });
    assertEquals(await readModelConfig(folder), CONFIG);
    assertEquals(await Deno.readTextFile(`${folder}/tokenizer.json`), `{"version":"1.0"}`);
    const file = await openSafetensors(`${folder}/model.safetensors`);
    assertEquals(file.metadata, { format: "pt" });
    assertEquals([...file.entries.keys()], parametersOf(CONFIG).map(({ name }) => `transformer.${name}`));
    assertEquals(new Set([...file.entries.values()].map((entry) => entry.type)), new Set([type]));
    const weights = await openWeights(folder, CONFIG);
    await weights.verify();
    assertEquals(await weights.read("h.0.mlp.c_fc.weight"), new Float32Array(6).fill(0.5));
  });
}

Deno.test("a model with gates says that other programs run it without them; one without gates needs no word", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/model`;
  const model = await modelOf(0.5, temporary.path);
  await saveModel(folder, model);
  const readme = await Deno.readTextFile(`${folder}/README.md`);
  assertMatch(readme, /transformers[^]*know nothing of the gates[^]*another loss/);
  assertMatch(readme, /q · k \/ √D \+ 3,/);
  const { gate: _, ...dense } = CONFIG;
  await saveModel(folder, { ...model, config: dense });
  assertEquals(await namesIn(folder), ["config.json", "model.safetensors", "tokenizer.json"]);
});

Deno.test("recommended settings are saved as sparsify.json", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/model`;
  await saveModel(folder, { ...await modelOf(0.5, temporary.path), recommended: { steps: 7 } });
  assertEquals(JSON.parse(await Deno.readTextFile(`${folder}/sparsify.json`)), { steps: 7 });
});

Deno.test("an older model is replaced, and what a user put beside it or wrote of it stays", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/model`;
  await saveModel(folder, await modelOf(1, temporary.path));
  await Deno.writeTextFile(`${folder}/tokenizer_config.json`, "mine");
  await Deno.writeTextFile(`${folder}/README.md`, "my card");
  await Deno.mkdir(`${folder}/notes`);
  await saveModel(folder, await modelOf(2, temporary.path));
  assertEquals(await firstWeight(folder), 2);
  assertEquals(await Deno.readTextFile(`${folder}/README.md`), "my card");
  assertEquals(await namesIn(folder), [
    "README.md",
    "config.json",
    "model.safetensors",
    "notes",
    "sparse_attention.py",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  assertEquals(await namesIn(temporary.path), ["model", "source-tokenizer.json"]);
});

Deno.test("what says how the tokenizer is used goes with it, and replaces an older one", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/model`;
  const model = await modelOf(1, temporary.path);
  const names = ["tokenizer_config.json", "generation_config.json"];
  for (const text of ["{}", '{"add_bos_token":true}']) {
    for (const name of names) await Deno.writeTextFile(`${temporary.path}/${name}`, text);
    await saveModel(folder, model);
    for (const name of names) {
      assertEquals(await Deno.readTextFile(`${folder}/${name}`).catch(() => "none"), text);
    }
  }
  assertEquals(await namesIn(temporary.path), [...names, "model", "source-tokenizer.json"].sort());
});

Deno.test("a model can be saved over the folder that its weights are read from", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/model`;
  const model = await modelOf(1, temporary.path);
  await saveModel(folder, model);
  const weights = await openWeights(folder, CONFIG);
  const tensors = parametersOf(CONFIG).map((shape) => ({
    ...shape,
    read: () => weights.read(shape.name),
  }));
  await saveModel(folder, { ...model, tensors, tokenizer: `${folder}/tokenizer.json` });
  assertEquals(await firstWeight(folder), 1);
});

Deno.test("a save that is broken off leaves no half model, and an older one as it was", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/model`;
  const model = await modelOf(1, temporary.path);
  await assertRejects(() => saveModel(folder, killed(model)), Error, "killed");
  assertEquals(await namesIn(temporary.path), ["source-tokenizer.json"]);
  await saveModel(folder, model);
  const newer = await modelOf(2, temporary.path);
  await assertRejects(() => saveModel(folder, killed(newer)), Error, "killed");
  assertEquals(await firstWeight(folder), 1);
  assertEquals(await namesIn(temporary.path), ["model", "source-tokenizer.json"]);
});

Deno.test("what a crash left in the middle of a save is cleared away by the next one", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/model`;
  await saveModel(folder, await modelOf(1, temporary.path));
  for (const leftover of [`${folder}.partial`, `${folder}.old.partial`]) {
    await Deno.mkdir(leftover);
    await Deno.writeTextFile(`${leftover}/config.json`, "half");
  }
  await saveModel(folder, await modelOf(2, temporary.path));
  assertEquals(await namesIn(temporary.path), ["model", "source-tokenizer.json"]);
  assertEquals(await namesIn(folder), GATED_FILES);
  assertEquals(await firstWeight(folder), 2);
});

Deno.test("an older model that a crash left under its other name comes back before anything is written", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/model`;
  const model = await modelOf(1, temporary.path);
  await saveModel(folder, model);
  await Deno.rename(folder, `${folder}.old.partial`);
  await assertRejects(() => saveModel(folder, killed(model)), Error, "killed");
  assertEquals(await firstWeight(folder), 1);
});

Deno.test("a missing tokenizer and a weight that is too large are named, and nothing is left behind", async () => {
  await using temporary = await temporaryFolder();
  const folder = `${temporary.path}/model`;
  const model = await modelOf(1e6, temporary.path);
  await assertRejects(
    () => saveModel(folder, { ...model, type: "F16" }),
    UserError,
    "Cannot save tensor transformer.wte.weight as F16, which ends at 65504: element 0 is 1000000",
  );
  const missing = `${temporary.path}/none.json`;
  await assertRejects(
    () => saveModel(folder, { ...model, tokenizer: missing }),
    UserError,
    `Cannot read ${missing}: no such file`,
  );
  assertEquals(await namesIn(temporary.path), ["source-tokenizer.json"]);
});
