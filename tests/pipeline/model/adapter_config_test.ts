/** What peft's adapter_config.json may say, and what is written. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { UserError } from "../../../pipeline/errors.ts";
import { adapterConfigToJson, readAdapterConfig } from "../../../pipeline/model/adapter_config.ts";
import { openAdapter } from "../../../pipeline/model/adapter_files.ts";
import {
  type Adapters,
  adaptersFor,
  modulesOf,
  scaleOf,
  unreachedByGates,
} from "../../../pipeline/model/adapters.ts";
import { gpt2Config } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import {
  openSafetensors,
  type WritableTensor,
  writeSafetensors,
} from "../../../pipeline/model/safetensors.ts";
import { storedAdapters } from "../../../pipeline/model/stored.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;
const LLAMA = await readModelConfig(`${FIXTURES}families/llama`);
const GPT2 = gpt2Config({ vocabularySize: 61, contextLength: 20, width: 24, layers: 12, heads: 3 });
const PLAIN = { peft_type: "LORA", r: 4, lora_alpha: 8, target_modules: ["q_proj", "k_proj"] };

/** What is read of a config with these fields. */
async function read(fields: Record<string, unknown>, config = LLAMA) {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "adapter_config.json");
  await Deno.writeTextFile(path, JSON.stringify({ ...PLAIN, ...fields }));
  return (await readAdapterConfig(path, config)).adapters;
}

/** Without the layer, of the first one that has any. */
const names = (
  adapters: Adapters,
): string[] => [...new Set(Object.keys(adapters).map((name) => name.replace(/^(h|layers)\.\d+\./, "")))];

Deno.test("modules are meant by the ends of their paths, by a regular expression, or all of them", async () => {
  assertEquals(names(await read({})), ["self_attn.q_proj", "self_attn.k_proj"]);
  assertEquals(names(await read({ target_modules: ["mlp.up_proj", "model.layers.1.self_attn.v_proj"] })), [
    "mlp.up_proj",
    "self_attn.v_proj",
  ]);
  // Part of a name is another name.
  await assertRejects(() => read({ target_modules: ["proj"] }), UserError, "a product of a model of llama");
  assertEquals(names(await read({ target_modules: ".*mlp\\.(gate|up)_proj" })), [
    "mlp.gate_proj",
    "mlp.up_proj",
  ]);
  // As a whole.
  await assertRejects(() => read({ target_modules: "mlp\\.(gate|up)_proj" }), UserError);
  const all = modulesOf(LLAMA).map(({ name }) => name);
  assertEquals(Object.keys(await read({ target_modules: "all-linear" })), all);
  assertEquals(
    names(await read({ target_modules: "all-linear", exclude_modules: ["self_attn.q_proj", "down_proj"] })),
    [
      "self_attn.k_proj",
      "self_attn.v_proj",
      "self_attn.o_proj",
      "mlp.gate_proj",
      "mlp.up_proj",
    ],
  );
  assertEquals(names(await read({ exclude_modules: ".*q_proj" })), ["self_attn.k_proj"]);
});

Deno.test("layers are told by their number, under whatever name or the one that is given", async () => {
  const layers = (adapters: Adapters) => Object.keys(adapters).map((name) => name.split(".")[1]);
  assertEquals(layers(await read({ layers_to_transform: [1] })), ["1", "1"]);
  assertEquals(layers(await read({ layers_to_transform: 0, layers_pattern: "layers" })), ["0", "0"]);
  await assertRejects(() => read({ layers_to_transform: [0], layers_pattern: "blocks" }), UserError);
  const c_attn = { target_modules: ["c_attn"] };
  assertEquals(Object.keys(await read({ ...c_attn, layers_to_transform: [1, 11] }, GPT2)), [
    "h.1.attn.c_attn",
    "h.11.attn.c_attn",
  ]);
  assertEquals(
    Object.keys(await read({ ...c_attn, layers_to_transform: [11], layers_pattern: ["x", "h"] }, GPT2)),
    [
      "h.11.attn.c_attn",
    ],
  );
});

Deno.test("ranks and α of modules are those of the first pattern that the end of their path matches", async () => {
  const adapters = await read({
    target_modules: ["q_proj", "k_proj", "v_proj"],
    rank_pattern: { "layers\\.1\\.self_attn\\.q_proj": 12, "(q|k)_proj": 6 },
    alpha_pattern: { "model.layers.0.self_attn.v_proj": 1 },
    use_rslora: true,
  });
  const shown = Object.entries(adapters).map(([name, { rank, alpha }]) =>
    `${name.slice(7)} ${rank} ${alpha}`
  );
  assertEquals(shown, [
    "0.self_attn.q_proj 6 8",
    "0.self_attn.k_proj 6 8",
    "0.self_attn.v_proj 4 1",
    "1.self_attn.q_proj 12 8",
    "1.self_attn.k_proj 6 8",
    "1.self_attn.v_proj 4 8",
  ]);
  assertEquals(scaleOf(adapters["layers.1.self_attn.v_proj"]), 4);
  assertEquals(scaleOf({ rank: 4, alpha: 8, rankStabilised: false }), 2);
  // Without fields it is peft's 8 and 8.
  assertEquals(
    Object.values(await read({ r: undefined, lora_alpha: undefined }))[0],
    { rank: 8, alpha: 8, rankStabilised: false },
  );
});

Deno.test("an adapter of another kind is refused by its field and value", async () => {
  const refused: [Record<string, unknown>, string][] = [
    [{ peft_type: "IA3" }, 'peft_type must be "LORA": "IA3"'],
    [{ use_dora: true }, "use_dora must be left out: true"],
    [{ modules_to_save: ["lm_head"] }, "modules_to_save must be left out"],
    [{ lora_bias: true }, "lora_bias must be left out: true"],
    [{ alora_invocation_tokens: [1, 2] }, "alora_invocation_tokens must be left out"],
    [{ layer_replication: [[0, 2]] }, "layer_replication must be left out"],
    [{ trainable_token_indices: [3] }, "trainable_token_indices must be left out"],
    [{ bias: "all" }, 'bias must be "none": "all"'],
    [
      { init_lora_weights: "pissa" },
      'init_lora_weights must be true, false, "gaussian", "eva", "orthogonal": "pissa"',
    ],
    [{ r: 0 }, "r must be a positive integer: 0"],
    [{ lora_alpha: "8" }, 'lora_alpha must be a number: "8"'],
    [{ use_rslora: 1 }, "use_rslora must be true or false: 1"],
    [{ rank_pattern: { q_proj: 1.5 } }, "rank_pattern must be an object of numbers"],
    [
      { alpha_pattern: { "(?P<x>a)": 1 } },
      "alpha_pattern must be of regular expressions that JavaScript has too",
    ],
    [{ target_modules: "(" }, "target_modules must be of regular expressions"],
    [{ target_modules: 3 }, "target_modules must be a list of names, or a regular expression: 3"],
    [{ target_modules: ["embed_tokens"] }, "target_modules must be such that it names a product"],
    [{ layers_to_transform: ["1"] }, "layers_to_transform must be a list of layers"],
  ];
  for (const [fields, message] of refused) {
    assertStringIncludes((await assertRejects(() => read(fields), UserError)).message, message);
  }
  // What says nothing is not there.
  await read({
    use_dora: false,
    modules_to_save: null,
    layer_replication: [],
    megatron_config: null,
    loftq_config: {},
  });
});

Deno.test("what is written is read again", async () => {
  for (const config of [LLAMA, GPT2]) {
    const modules = modulesOf(config).map(({ name }) => name);
    const same = adaptersFor(config, { rank: 4, alpha: 6, rankStabilised: true, targets: ["query", "up"] });
    const others: Adapters = {
      [modules[1]]: { rank: 4, alpha: 8, rankStabilised: false },
      [modules[2]]: { rank: 5, alpha: 8, rankStabilised: false },
      // Of GPT-2, this name is the end of that of another module.
      [modules.at(-1)!]: { rank: 4, alpha: 2, rankStabilised: false },
    };
    for (const adapters of [same, others]) {
      const json = adapterConfigToJson(config, adapters, { base: "owner/name", revision: "abc" });
      assertEquals(await read(json, config), adapters);
      assertEquals([json.base_model_name_or_path, json.revision], ["owner/name", "abc"]);
      assertEquals(json.fan_in_fan_out, config.family === "gpt2");
    }
  }
  const { target_modules } = adapterConfigToJson(
    GPT2,
    adaptersFor(GPT2, { rank: 4, alpha: 8, rankStabilised: false, targets: ["query", "output"] }),
    { base: "gpt2" },
  );
  assertEquals(target_modules, ["attn.c_attn", "attn.c_proj"]);
});

Deno.test("adapters stand in files as torch.nn.Linear's, of every part by itself, in all families", () => {
  const stored = (config: typeof GPT2, targets: string[]) =>
    storedAdapters(config, adaptersFor(config, { rank: 4, alpha: 8, rankStabilised: false, targets }))
      .flatMap(({ tensors }) => tensors.map(({ savedAs, shape }) => `${savedAs} ${shape}`));
  assertEquals(stored({ ...GPT2, layers: 1 }, ["c_attn"]), [
    "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight 4,24",
    "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight 72,4",
  ]);
  assertEquals(stored({ ...LLAMA, layers: 1 }, ["query", "value"]), [
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight 4,40",
    "base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight 4,40",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight 64,4",
    "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight 32,4",
  ]);
});

Deno.test("queries and keys that no adapter moves are told", () => {
  const of = (config: typeof GPT2, targets: string[]) =>
    unreachedByGates(config, adaptersFor(config, { rank: 4, alpha: 8, rankStabilised: false, targets }));
  assertEquals(of(LLAMA, ["query", "value"]), ["key"]);
  assertEquals(of(LLAMA, ["q_proj", "k_proj"]), []);
  assertEquals(of(GPT2, ["value"]), []);
  assertEquals(of(GPT2, ["down"]), ["query", "key"]);
});

Deno.test("tensors that are missing, of another shape, of another module or not finite are named", async () => {
  await using folder = await temporaryFolder();
  const from = `${FIXTURES}lora/llama`;
  const { entries, read } = await openSafetensors(`${from}/adapter_model.safetensors`);
  await Deno.copyFile(`${from}/adapter_config.json`, join(folder.path, "adapter_config.json"));
  const all = [...entries.values()].map(({ name, shape }): WritableTensor => ({
    name,
    shape,
    read: () => read(name),
  }));
  const opened = async (tensors: WritableTensor[]) => {
    await writeSafetensors(join(folder.path, "adapter_model.safetensors"), tensors);
    await (await openAdapter(folder.path, LLAMA)).verify();
  };
  await opened(all);
  // As of a model without the prefix.
  await opened(
    all.map((tensor) => ({ ...tensor, name: tensor.name.replace("model.model.model.", "model.model.") })),
  );
  const [first, ...rest] = all;
  const { name, shape: [rows, columns] } = first;
  const faults: [WritableTensor[], string][] = [
    [rest, `tensor ${name} is missing`],
    [
      [{ ...first, shape: [columns, rows] }, ...rest],
      `tensor ${name} must be of shape [${rows}, ${columns}]`,
    ],
    [
      [...all, { ...first, name: "base_model.model.lm_head.lora_A.weight" }],
      "only products of attention and MLPs",
    ],
    [
      [{ ...first, read: async () => (await read(name)).fill(NaN, 3, 4) }, ...rest],
      `tensor ${name} must be finite: element`,
    ],
  ];
  for (const [tensors, message] of faults) {
    assertStringIncludes((await assertRejects(() => opened(tensors), UserError)).message, message);
  }
});
