/** The attention explorer on real weights: a model folder, a checkpoint, the dense model, and what cannot be looked at. */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { HTTPException } from "hono/http-exception";
import { join } from "node:path";
import { saveCheckpoint } from "../../pipeline/runs/checkpoint.ts";
import { writeJson, writeSealedJson } from "../../pipeline/files.ts";
import { Gpu } from "../../kernels/core/gpu.ts";
import { generate } from "../../pipeline/generation/generate.ts";
import { loadParameters } from "../../pipeline/model/parameters.ts";
import { loadTokenizer } from "../../pipeline/text/tokenizer.ts";
import { mergedValues } from "../../pipeline/model/adapter_files.ts";
import { adaptersFor } from "../../pipeline/model/adapters.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import { saveModel } from "../../pipeline/model/save_weights.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { readRunConfig, writeRunConfig } from "../../pipeline/runs/run_config.ts";
import type { ModelConfig } from "../../pipeline/model/config.ts";
import type { ExplorerModel } from "../../serve/api.ts";
import { createExplorer } from "../../serve/explorer.ts";
import { openRuns } from "../../serve/runs.ts";
import { fakeRun } from "../support/fake_run.ts";
import { normals } from "../support/seeded.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { ADDITION, choicesOf, writeTinyModel } from "../support/tiny_model.ts";

const PROMPT = "12+34=";
/** The tiny model has something to say of this, and another thing through gates. */
const FURTHER = "1+1=2";
const PAIRS = 2 * 2 * 6 * 7 / 2;

async function site(models?: string[], others?: Partial<ModelConfig>) {
  const folder = await temporaryFolder();
  const dense = join(folder.path, "dense");
  await writeTinyModel(dense, others);
  const run = await fakeRun(join(folder.path, "runs"), "r", { live: false });
  const config = await readRunConfig(join(run.path, "config.json"));
  await writeRunConfig(join(run.path, "config.json"), {
    ...config,
    settings: { ...config.settings, model: dense, gateBias: 0 },
    model: { ...config.model, config: await readModelConfig(dense) },
  });
  const runs = openRuns(join(folder.path, "runs"));
  const explorer = createExplorer([runs.folder, ...models ?? [dense]]);
  return {
    folder: folder.path,
    dense,
    /** Changes what the run's config.json says. */
    async configure(change: { settings?: Record<string, unknown>; sizes?: Record<string, unknown> }) {
      const path = join(run.path, "config.json");
      const { settings, model, ...rest } = await readRunConfig(path);
      await writeSealedJson(path, {
        ...rest,
        settings: { ...settings, ...change.settings },
        model: { ...model, config: { ...model.config, ...change.sizes } },
      });
    },
    run: run.path,
    explorer,
    ask: async (model: ExplorerModel, prompt = PROMPT, threshold = 0) =>
      await explorer.ask((await openRuns(runs.folder).view("r"))!, { prompt, model, threshold }),
    goOn: async (model: ExplorerModel, prompt = FURTHER, tokens?: number) =>
      await explorer.goOn((await openRuns(runs.folder).view("r"))!, { prompt, model, tokens }),
    async [Symbol.asyncDispose]() {
      explorer.close();
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Sets a variable of the environment until its scope ends. */
function variable(name: string, value: string): Disposable {
  const before = Deno.env.get(name);
  Deno.env.set(name, value);
  return {
    [Symbol.dispose]() {
      if (before === undefined) Deno.env.delete(name);
      else Deno.env.set(name, before);
    },
  };
}

/** Asserts that a question is answered with this status, and returns the words. */
async function refused(question: Promise<unknown>, status: number): Promise<string> {
  const error = await assertRejects(() => question, HTTPException);
  assertEquals(error.status, status);
  return (await error.getResponse().json()).error;
}

function explorerTest(name: string, body: () => Promise<void>): void {
  // The device's own handles end with the process.
  Deno.test({ name, sanitizeOps: false, sanitizeResources: false, fn: body });
}

explorerTest(
  "dense: every causal edge with its weight; sparse: those that are open; a checkpoint, then the model",
  async () => {
    await using site_ = await site();
    const { ask, run, dense } = site_;
    const all = await ask("dense");
    assertEquals([all.tokens.join(""), all.edges.length, all.open, all.causal_pairs], [
      PROMPT,
      PAIRS,
      PAIRS,
      PAIRS,
    ]);
    assertEquals(all.weights, { kind: "dense", step: null });
    for (let query = 0; query < 6; query++) {
      const ofQuery = all.edges.filter(([layer, head, q]) => layer === 1 && head === 0 && q === query);
      const sum = ofQuery.reduce((sum, [, , , , weight]) => sum + weight, 0);
      assert(Math.abs(sum - 1) < 1e-5, `the weights of query ${query} sum to ${sum}`);
    }
    assertEquals(all.next.length, 5);
    assert(all.next.every(({ probability }, n) => n === 0 || probability <= all.next[n - 1].probability));
    const heavy = await ask("dense", PROMPT, 0.5);
    assertEquals(heavy.edges, all.edges.filter(([, , , , weight]) => weight >= 0.5));

    assert((await refused(ask("sparse"), 409)).includes("no checkpoint yet"));
    const weights = await openWeights(dense, await readModelConfig(dense));
    const tensors = weights.parameters.map(({ name, shape }) => ({
      name: `weight.${name}`,
      shape: [...shape],
      read: () => weights.read(name),
    }));
    await saveCheckpoint(join(run, "checkpoints"), { phase: "sparse", step: 7, state: {} }, tensors);
    const sparse = await ask("sparse");
    assertEquals(sparse.weights, { kind: "checkpoint", step: 7 });
    assertEquals(sparse.edges.length, sparse.open);
    assert(sparse.open > 0 && sparse.open < PAIRS, `${sparse.open} of ${PAIRS} are open`);
    // The first layer sees the same in both: its open edges are the dense ones with their weights, and a gate above 0.
    for (const [layer, head, query, key, weight, gate] of sparse.edges) {
      assert(gate! > 0);
      if (layer > 0) continue;
      const twin = all.edges.find((edge) => edge.slice(0, 4).join() === [layer, head, query, key].join())!;
      assert(Math.abs(twin[4] - weight) < 1e-6);
    }

    await writeTinyModel(join(run, "model"));
    assertEquals((await ask("sparse")).weights, { kind: "model", step: null });
    assertEquals((await ask("sparse")).edges, sparse.edges);
  },
);

explorerTest("a dense model asked for behind a sparse one of its sizes has all its edges open", async () => {
  await using site_ = await site();
  const { ask, run } = site_;
  const dense = await ask("dense");
  site_.explorer.close();
  // The network, which both share, is then compiled of a config that has a gate.
  await writeTinyModel(join(run, "model"), { gate: { bias: 0, temperature: 1 } });
  const { open } = await ask("sparse");
  assert(open > 0 && open < PAIRS, `${open} of ${PAIRS} are open`);
  assertEquals(await ask("dense"), dense);
});

explorerTest(
  "a run of adapters: checkpoint and model are merged into what it began with, which alone is read",
  async () => {
    await using site_ = await site();
    const { ask, run, dense, folder } = site_;
    const config = await readModelConfig(dense);
    const adapters = adaptersFor(config, {
      rank: 4,
      alpha: 8,
      rankStabilised: false,
      targets: ["query", "down"],
    });
    const parameters = parametersOf(config, { adapters }).filter(({ adapter }) => adapter);
    const values = new Map(
      parameters.map(({ name, shape }, n) => [name, normals(n, shape[0] * shape[1], 0.3)]),
    );
    const read = (name: string) => Promise.resolve(values.get(name)!);
    const base = await openWeights(dense, config);
    const save = (
      named: readonly { name: string; shape: readonly number[] }[],
      read: (name: string) => Promise<Float32Array>,
    ) =>
      saveCheckpoint(
        join(run, "checkpoints"),
        { phase: "sparse", step: 7, state: {} },
        named.map(({ name, shape }) => ({
          name: `weight.${name}`,
          shape: [...shape],
          read: () => read(name),
        })),
      );
    // What a run of all weights would have saved.
    const merged = new Map<string, Float32Array>();
    for (const parameter of base.parameters) {
      merged.set(
        parameter.name,
        await mergedValues(parameter, adapters, await base.read(parameter.name), read),
      );
    }
    await save(base.parameters, (name) => Promise.resolve(merged.get(name)!));
    const wanted = await ask("sparse");
    const path = join(run, "config.json");
    await writeSealedJson(path, { ...await readRunConfig(path), adaptation: { train: "lora", adapters } });
    await save(parameters, read);
    // Its time tells a checkpoint from one that it replaces.
    await Deno.utime(join(run, "checkpoints", "sparse-0000007.safetensors"), 1, 1);
    assertEquals((await ask("sparse")).edges, wanted.edges);
    const weightsOf = ({ edges }: Awaited<ReturnType<typeof ask>>) => edges.map(([, , , , weight]) => weight);
    const plain = weightsOf(await ask("dense"));

    const saved = join(run, "model");
    await saveModel(saved, {
      config: { ...config, gate: { bias: 0, temperature: 1 } },
      tensors: parameters.map(({ name, shape }) => ({ name, shape, read: () => read(name) })),
      type: "F32",
      tokenizer: ADDITION.tokenizer,
      // Lies in no folder that is served, and is not asked.
      adapter: { adapters, base: "/etc", hash: "" },
    });
    const model = await ask("sparse");
    assertEquals(model.weights, { kind: "model", step: null });
    assertEquals(model.edges, wanted.edges);
    // Begun with an adapter, the dense model has it too.
    const adapter = join(folder, "adapter");
    await Deno.rename(saved, adapter);
    await Deno.remove(join(run, "checkpoints"), { recursive: true });
    await site_.configure({ settings: { adapter } });
    await refused(ask("dense"), 409);
    await Deno.rename(adapter, join(dense, "adapter"));
    await site_.configure({ settings: { adapter: join(dense, "adapter") } });
    assertNotEquals(weightsOf(await ask("dense")), plain);
    await Deno.remove(join(dense, "adapter", "adapter_model.safetensors"));
    await refused(ask("dense"), 409);
  },
);

/** What the library says of a folder's model, whose positions are 8. */
async function continued(folder: string, gateBias: number | undefined, tokens: number) {
  const gpu = await Gpu.open();
  try {
    const config = await readModelConfig(folder);
    const gate = gateBias === undefined ? undefined : { bias: gateBias, temperature: 1 };
    const weights = await openWeights(folder, config);
    const parameters = await loadParameters(gpu, weights.parameters, weights.read);
    const tokenizer = await loadTokenizer(folder, config);
    return await generate({ gpu, config: { ...config, gate }, parameters, tokenizer }, FURTHER, { tokens });
  } finally {
    gpu.close();
  }
}

explorerTest("the dense model and the sparse one go on from a text, as the library has them do", async () => {
  await using site_ = await site();
  const { ask, goOn, run, dense } = site_;
  const first = await goOn("dense", FURTHER, 2);
  const { tokens, text } = await continued(dense, undefined, 2);
  assertEquals(first, {
    model: "dense",
    weights: { kind: "dense", step: null },
    tokens,
    text,
    ended: "tokens",
  });
  assert((await refused(goOn("sparse"), 409)).includes("no checkpoint yet"));
  await writeTinyModel(join(run, "model"));
  const sparse = await goOn("sparse");
  const want = await continued(dense, 0, 100);
  assertEquals([sparse.tokens, sparse.text, sparse.ended], [want.tokens, want.text, "end of text"]);
  assertEquals([sparse.tokens.length, sparse.weights.kind], [1, "model"], "gates must close something");
  assertEquals([(await goOn("dense")).tokens.length, (await goOn("dense")).ended], [4, "positions"]);
  // Questions of both kinds in turn, on one device.
  const all = await Promise.all([goOn("dense", FURTHER, 2), ask("dense"), goOn("sparse"), ask("sparse")]);
  assertEquals([all[0], all[2]], [first, sparse]);
  assertEquals(all[1].open, PAIRS);
});

explorerTest("a text that is too long to go on from, empty or without tokens is refused", async () => {
  await using site_ = await site();
  assertEquals(
    await refused(site_.goOn("dense", "123456789"), 400),
    "Cannot continue the prompt as it must have at most 8 tokens: 9",
  );
  assertEquals((await site_.goOn("dense", "98765432")).tokens.length, 1);
  await refused(site_.goOn("dense", ""), 400);
  assert((await refused(site_.goOn("dense", "1 2"), 400)).includes('no token for " "'));
  const results = await Promise.allSettled([
    ...Array.from({ length: 6 }, () => site_.goOn("dense", "1")),
    ...Array.from({ length: 6 }, () => site_.ask("dense")),
  ]);
  assertEquals(results.filter(({ status }) => status === "rejected").length, 4, "both wait in one line");
});

explorerTest("a prompt is cut after the model's positions, and one without tokens is refused", async () => {
  await using site_ = await site();
  const long = await site_.ask("dense", "1234567890");
  assertEquals([long.tokens.length, long.truncated], [8, true]);
  await refused(site_.ask("dense", ""), 400);
});

explorerTest("a prompt begins with the token that the model was trained with before every text", async () => {
  await using site_ = await site();
  const plain = await site_.ask("dense");
  const settings = join(site_.dense, "tokenizer_config.json");
  await writeJson(settings, { add_bos_token: true, bos_token: "5" });
  const started = await site_.ask("dense");
  assertEquals([started.tokens.join(""), started.causal_pairs], ["5" + PROMPT, 2 * 2 * 7 * 8 / 2]);
  assert(started.next[0].probability !== plain.next[0].probability);
  // A link is followed into what is served only.
  await Deno.rename(settings, join(site_.folder, "elsewhere.json"));
  await Deno.symlink(join(site_.folder, "elsewhere.json"), settings);
  assert((await refused(site_.ask("dense"), 409)).includes("tokenizer_config.json as it lies in no folder"));
});

explorerTest("a prompt with a character that the model has no token for is refused, naming it", async () => {
  await using site_ = await site();
  assert((await refused(site_.ask("dense", "12+3 4="), 400)).includes('no token for " "'));
});

explorerTest("a dense model that is gone, and weights that are damaged, are said to be so", async () => {
  await using site_ = await site();
  await Deno.writeTextFile(join(site_.dense, "model.safetensors"), "damaged");
  assert((await refused(site_.ask("dense"), 409)).includes("safetensors"));
  await Deno.remove(join(site_.dense, "config.json"));
  await refused(site_.ask("dense"), 409);
});

explorerTest("a dense model of the hub is looked into where the cache has it, and may be read", async () => {
  const commit = "a".repeat(40);
  await using cache = await temporaryFolder();
  await using site_ = await site([cache.path]);
  const { ask, configure, dense } = site_;
  await configure({ settings: { model: `owner/tiny@${commit}` } });
  using _ = variable("HF_HUB_CACHE", cache.path);
  assert((await refused(ask("dense"), 409)).includes("--models"));
  const repository = join(cache.path, "models--owner--tiny");
  const snapshot = join(repository, "snapshots", commit);
  await Deno.mkdir(snapshot, { recursive: true });
  for await (const { name } of Deno.readDir(dense)) {
    await Deno.rename(join(dense, name), join(repository, name));
    await Deno.symlink(join("../..", name), join(snapshot, name));
  }
  assertEquals((await ask("dense")).weights, { kind: "dense", step: null });
});

explorerTest("questions wait their turn, and too many are turned away", async () => {
  await using site_ = await site();
  const results = await Promise.allSettled(Array.from({ length: 12 }, () => site_.ask("dense")));
  const turnedAway = results.filter((result) => result.status === "rejected");
  assertEquals(turnedAway.length, 4);
  for (const { reason } of turnedAway as PromiseRejectedResult[]) assertEquals(reason.status, 503);
  assertEquals((await site_.ask("dense")).open, PAIRS, "and then there is room again");
});

explorerTest(
  "what a run names is read only where the server was told to serve, and never quoted",
  async () => {
    await using site_ = await site([]);
    const { ask, configure, run, dense, folder } = site_;
    const secret = join(folder, "secret");
    await Deno.writeTextFile(secret, "root:x:0:0:the-canary-sings");
    assert((await refused(ask("dense"), 409)).includes("--models"), "the dense model lies outside");
    await writeTinyModel(join(run, "model"));
    await ask("sparse");
    await Deno.remove(join(run, "model", "tokenizer.json"));
    for (const named of [secret, "/etc/passwd", "/dev/zero", join(folder, "..")]) {
      await configure({ settings: { tokenizer: named } });
      const words = await refused(ask("sparse"), 409);
      assert(words.includes("--models") && !/root|canary/.test(words), words);
      await configure({ settings: { tokenizer: undefined, model: named } });
      for (const model of ["sparse", "dense"] as const) {
        const words = await refused(ask(model), 409);
        assert(words.includes("--models") && !/root|canary/.test(words), words);
      }
    }
    // By links inside the run's own folder.
    await Deno.symlink(secret, join(run, "model", "tokenizer.json"));
    await Deno.symlink(secret, join(run, "tokenizer.json"));
    await Deno.symlink(dense, join(run, "dense"));
    await configure({ settings: { tokenizer: join(run, "model"), model: dense } });
    for (const model of ["sparse", "dense"] as const) {
      const words = await refused(ask(model), 409);
      assert(words.includes("--models") && !/root|canary/.test(words), words);
    }
    // And a file of the run that is no tokenizer.
    await Deno.remove(join(run, "tokenizer.json"));
    await Deno.writeTextFile(join(run, "tokenizer.json"), "the-canary-sings");
    assert(!/canary/.test(await refused(ask("sparse"), 409)));
    await Deno.writeTextFile(join(run, "model", "config.json"), "the-canary-sings");
    assert(!/canary/.test(await refused(ask("sparse"), 409)));
  },
);

explorerTest("a run's own tokenizer and dense model come before those that its settings name", async () => {
  await using site_ = await site([]);
  await site_.configure({ settings: { model: "nowhere", tokenizer: "nowhere" } });
  await writeTinyModel(join(site_.run, "dense"));
  await Deno.copyFile(join(site_.dense, "tokenizer.json"), join(site_.run, "tokenizer.json"));
  assertEquals((await site_.ask("dense")).weights.kind, "dense");
});

explorerTest("a folder of links is read where all of them end inside what is served", async () => {
  await using site_ = await site();
  const snapshot = join(site_.dense, "snapshot");
  await Deno.mkdir(snapshot);
  for (const name of ["config.json", "tokenizer.json", "model.safetensors"]) {
    await Deno.symlink(join(site_.dense, name), join(snapshot, name));
  }
  await site_.configure({ settings: { model: snapshot } });
  assertEquals((await site_.ask("dense")).open, PAIRS);
});

explorerTest(
  "sizes, settings and tokenizers that are no model's are conflicts, not faults of ours",
  async () => {
    await using site_ = await site();
    const { ask, configure, dense, run } = site_;
    const weights = await openWeights(dense, await readModelConfig(dense));
    const tensors = weights.parameters.map(({ name, shape }) => ({
      name: `weight.${name}`,
      shape: [...shape],
      read: () => weights.read(name),
    }));
    await saveCheckpoint(join(run, "checkpoints"), { phase: "sparse", step: 7, state: {} }, tensors);
    const whole = await readRunConfig(join(run, "config.json"));
    const sizes = [
      { layers: 1e9 },
      { layers: 3 },
      { heads: 1e9, width: 1e9 },
      { width: undefined },
      { width: "16" },
      { vocabularySize: 1e300 },
      { contextLength: null },
      { norm: { kind: "layer", affine: "both", epsilon: "tiny", at: "input" } },
    ];
    for (const change of sizes) {
      await configure({ sizes: change });
      await refused(ask("sparse"), 409);
      await writeRunConfig(join(run, "config.json"), whole);
    }
    for (const settings of [{ model: 3 }, { model: undefined }, { model: ["a"] }, { model: { a: 1 } }]) {
      await configure({ settings });
      await refused(ask("dense"), 409);
    }
    for (
      const settings of [{ gateBias: "3" }, { gateBias: undefined }, { tokenizer: 7 }, { tokenizer: {} }]
    ) {
      await writeRunConfig(join(run, "config.json"), whole);
      await configure({ settings });
      await refused(ask("sparse"), 409);
    }
    await writeRunConfig(join(run, "config.json"), whole);
    const tokenizer = JSON.parse(await Deno.readTextFile(join(dense, "tokenizer.json")));
    const larger = { ...tokenizer.model.vocab };
    for (const entry of Object.keys(larger)) larger[entry] += 100;
    for (
      const json of [
        "null",
        "[]",
        "3",
        '{"model":null}',
        '{"added_tokens":3}',
        JSON.stringify({
          ...tokenizer,
          model: { ...tokenizer.model, vocab: larger },
          added_tokens: [{ id: 200, content: "<|endoftext|>" }],
        }),
      ]
    ) {
      await Deno.writeTextFile(join(run, "tokenizer.json"), json);
      await refused(ask("sparse"), 409);
    }
    const config = JSON.parse(await Deno.readTextFile(join(dense, "config.json")));
    await writeJson(join(dense, "config.json"), { ...config, n_layer: 1e9 });
    await refused(ask("dense"), 409);
  },
);

explorerTest("a Llama's heads are seen one by one where two of them read one key head", async () => {
  const choices = await choicesOf("llama");
  await using site_ = await site(undefined, { keyValueHeads: 1, headSize: 6, ...choices });
  const { edges, open, causal_pairs } = await site_.ask("dense");
  assertEquals([edges.length, open, causal_pairs], [PAIRS, PAIRS, PAIRS]);
  const ofHead = (head: number) =>
    edges.filter((edge) => edge[0] === 0 && edge[1] === head).map((edge) => edge[4]);
  assertNotEquals(ofHead(0), ofHead(1));
  for (const head of [0, 1]) {
    const sum = ofHead(head).reduce((sum, weight) => sum + weight, 0);
    assert(Math.abs(sum - 6) < 1e-5, `the weights of 6 queries sum to ${sum}`);
  }
});
