import { elementsOf } from "../../../kernels/core/tensor.ts";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import {
  isSameModelConfig,
  modelConfigOf,
  modelConfigToJson,
  parseModelConfig,
  readModelConfig,
} from "../../../pipeline/model/config_file.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const FAMILIES = new URL("../../fixtures/families/", import.meta.url).pathname;
/** config.json of the gpt2 repository on Hugging Face, without the fields that say nothing about the weights. */
const GPT2 = {
  activation_function: "gelu_new",
  architectures: ["GPT2LMHeadModel"],
  attn_pdrop: 0.1,
  bos_token_id: 50256,
  embd_pdrop: 0.1,
  eos_token_id: 50256,
  initializer_range: 0.02,
  layer_norm_epsilon: 1e-5,
  model_type: "gpt2",
  n_ctx: 1024,
  n_embd: 768,
  n_head: 12,
  n_layer: 12,
  n_positions: 1024,
  resid_pdrop: 0.1,
  vocab_size: 50257,
};

const parse = (changes: Record<string, unknown> = {}) =>
  parseModelConfig({ ...GPT2, ...changes }, "config.json");

const TINY: ModelConfig = gpt2Config({
  vocabularySize: 7,
  contextLength: 5,
  width: 4,
  layers: 2,
  heads: 2,
  mlpWidth: 6,
  epsilon: 1e-6,
  endOfText: 6,
  startOfText: 5,
  gate: { bias: 3, temperature: 0.5 },
});

Deno.test("GPT-2's own config.json is read", () => {
  assertEquals(
    parse(),
    gpt2Config({
      vocabularySize: 50257,
      contextLength: 1024,
      width: 768,
      layers: 12,
      heads: 12,
      mlpWidth: 3072,
      endOfText: 50256,
      startOfText: 50256,
      gate: undefined,
    }),
  );
});

Deno.test("GPT-2's parameters are 124,439,808 numbers", () => {
  const counts = parametersOf(parse()).map(({ shape }) => elementsOf(shape));
  assertEquals(counts.reduce((sum, count) => sum + count), 124_439_808);
});

Deno.test("parameters stand in Hugging Face's order, linear weights as [in, out]", () => {
  const block = (h: string) => [
    [`${h}.ln_1.weight`, [4]],
    [`${h}.ln_1.bias`, [4]],
    [`${h}.attn.c_attn.weight`, [4, 12]],
    [`${h}.attn.c_attn.bias`, [12]],
    [`${h}.attn.c_proj.weight`, [4, 4]],
    [`${h}.attn.c_proj.bias`, [4]],
    [`${h}.ln_2.weight`, [4]],
    [`${h}.ln_2.bias`, [4]],
    [`${h}.mlp.c_fc.weight`, [4, 6]],
    [`${h}.mlp.c_fc.bias`, [6]],
    [`${h}.mlp.c_proj.weight`, [6, 4]],
    [`${h}.mlp.c_proj.bias`, [4]],
  ];
  assertEquals(parametersOf(TINY).map(({ name, shape }) => [name, shape]), [
    ["wte.weight", [7, 4]],
    ["wpe.weight", [5, 4]],
    ...block("h.0"),
    ...block("h.1"),
    ["ln_f.weight", [4]],
    ["ln_f.bias", [4]],
  ]);
});

Deno.test("what may be left out, null or of another spelling is understood", () => {
  const { activation_function: _, layer_norm_epsilon: __, n_positions: ___, ...rest } = GPT2;
  assertEquals(parseModelConfig(rest, "config.json"), parse());
  assertEquals(parse({ n_inner: null, activation_function: "gelu_pytorch_tanh" }), parse());
  assertEquals(parse({ reorder_and_upcast_attn: true, tie_word_embeddings: true }), parse());
  assertEquals(parse({ n_inner: 100 }).mlpWidth, 100);
});

/** Fields that every model built like Llama has. */
const LIKE_LLAMA = {
  hidden_act: "silu",
  hidden_size: 8,
  num_attention_heads: 2,
  vocab_size: 11,
  max_position_embeddings: 4096,
  num_hidden_layers: 1,
  intermediate_size: 16,
};

Deno.test("a field that is left out is what transformers takes for that family", () => {
  const parsed = (type: string, more = {}) =>
    parseModelConfig({ ...LIKE_LLAMA, model_type: type, ...more }, "config.json");
  assertEquals(
    ["llama", "mistral", "olmo2", "qwen2", "qwen3"].map((type) => parsed(type).norm.epsilon),
    [1e-6, 1e-6, 1e-5, 1e-6, 1e-6],
  );
  const longer = { max_position_embeddings: 8192 };
  assertEquals(parsed("mistral", { ...longer, sliding_window: null }).contextLength, 8192);
  const error = assertThrows(() => parsed("mistral", longer), UserError);
  assertEquals(
    error.message,
    "Cannot load config.json as sliding_window must be null, or no shorter than max_position_embeddings (left out, it is 4096): undefined",
  );
});

Deno.test("a sparse model's gate is read", () => {
  const sparse_attention = { gate: { bias: -1.5, temperature: 0.5 }, open_fraction: 0.01 };
  assertEquals(parse({ sparse_attention }).gate, { bias: -1.5, temperature: 0.5 });
});

Deno.test("what is written as JSON is read back", () => {
  const { gate: _, ...dense } = TINY;
  for (const config of [TINY, { ...TINY, mlpWidth: 16 }, { ...dense, gate: undefined }]) {
    const json = JSON.parse(JSON.stringify(modelConfigToJson(config)));
    assertEquals(parseModelConfig(json, "config.json"), config);
  }
});

Deno.test("the tokens that end and begin a text are those that config.json names, also in a padded vocabulary", () => {
  const padded = parse({ vocab_size: 50304, eos_token_id: [50256, 50255], bos_token_id: null });
  assertEquals([padded.endOfText, padded.startOfText], [50256, undefined]);
  const json = modelConfigToJson(padded);
  assertEquals([json.vocab_size, json.eos_token_id, json.bos_token_id], [50304, 50256, 50256]);
});

Deno.test("further fields of sparse_attention stand beside the gate and cannot replace it", () => {
  const json = modelConfigToJson(TINY, { open_fraction: 0.01, gate: "none" });
  assertEquals(json.sparse_attention, { open_fraction: 0.01, gate: TINY.gate });
  assertEquals("sparse_attention" in modelConfigToJson({ ...TINY, gate: undefined }), false);
});

const gate = "sparse_attention must be an object whose gate has a bias and a positive temperature";
const UNSUPPORTED: [changes: Record<string, unknown>, message: string][] = [
  [
    { model_type: "bert" },
    `model_type must be "gpt2", "gpt_neox", "llama", "mistral", "olmo", "olmo2", "qwen2", "qwen3": "bert"`,
  ],
  [
    { model_type: undefined },
    `model_type must be "gpt2", "gpt_neox", "llama", "mistral", "olmo", "olmo2", "qwen2", "qwen3": undefined`,
  ],
  [
    { activation_function: "relu" },
    `activation_function must be "gelu_new" or "gelu_pytorch_tanh" or "gelu_fast": "relu"`,
  ],
  [{ tie_word_embeddings: "no" }, `tie_word_embeddings must be true or false: "no"`],
  [{ scale_attn_weights: false }, "scale_attn_weights must be true: false"],
  [{ scale_attn_by_inverse_layer_idx: true }, "scale_attn_by_inverse_layer_idx must be false: true"],
  [{ n_embd: 770 }, "n_embd must be a multiple of n_head, 12: 770"],
  [{ n_embd: undefined }, "n_embd must be a positive integer: undefined"],
  [{ n_head: 0 }, "n_head must be a positive integer: 0"],
  [{ n_layer: 1.5 }, "n_layer must be a positive integer: 1.5"],
  [{ n_positions: "1024" }, `n_positions must be a positive integer: "1024"`],
  [{ vocab_size: -1 }, "vocab_size must be a positive integer: -1"],
  [{ n_inner: 0 }, "n_inner must be a positive integer: 0"],
  [{ n_layer: 2 ** 31 }, "its layers must be at most 4096: 2147483648"],
  [{ vocab_size: 1e12 }, "its vocabularySize must be at most 16777216: 1000000000000"],
  [
    { vocab_size: 2 ** 24, n_embd: 528, n_head: 12 },
    "a matrix of it must have at most 2147483648 elements: 16777216 × 528",
  ],
  [{ layer_norm_epsilon: 0 }, "layer_norm_epsilon must be a positive number: 0"],
  [{ layer_norm_epsilon: Infinity }, "layer_norm_epsilon must be a positive number: null"],
  [{ layer_norm_epsilon: 1e308 }, "layer_norm_epsilon must be a positive number: 1e+308"],
  [{ sparse_attention: null }, `${gate}: null`],
  [{ sparse_attention: {} }, `${gate}: {}`],
  [
    { sparse_attention: { gate: { bias: "3", temperature: 1 } } },
    `${gate}: {"gate":{"bias":"3","temperature":1}}`,
  ],
  [
    { sparse_attention: { gate: { bias: 3, temperature: 0 } } },
    `${gate}: {"gate":{"bias":3,"temperature":0}}`,
  ],
];

for (const [changes, message] of UNSUPPORTED) {
  Deno.test(`a config.json is refused: ${message}`, () => {
    const error = assertThrows(() => parse(changes), UserError);
    assertEquals(error.message, `Cannot load config.json as ${message}`);
    assertEquals(error.exitCode, 3);
  });
}

Deno.test("a run's model is one that can be, whatever its config.json holds", async () => {
  const read = (value: unknown) => modelConfigOf(JSON.parse(JSON.stringify(value)));
  assertEquals(read(TINY), TINY);
  const { norm } = TINY;
  for (
    const changes of [
      { layers: 1e12 },
      { layers: "2" },
      { heads: 0 },
      { width: undefined },
      { norm: { ...norm, epsilon: null } },
      { gate: 1 },
      { vocabularySize: 2 ** 24, width: 2 ** 17 },
      { headSize: 4 },
      { keyValueHeads: 1 },
      { norm: 3 },
      { family: "bert" },
      { family: undefined },
      { tied: 0 },
    ]
  ) assertEquals(read({ ...TINY, ...changes }), undefined, JSON.stringify(changes));
  const llama = await readModelConfig(`${FAMILIES}llama`);
  assertEquals(read(llama), JSON.parse(JSON.stringify(llama)));
  for (
    const changes of [
      { keyValueHeads: 3 },
      { headSize: 2 ** 30 },
      { headSize: "16" },
      { family: "bert" },
      { positions: { kind: "learned" } },
      { norm: undefined },
      { mlp: "relu" },
      { clip: 3 },
    ]
  ) assertEquals(read({ ...llama, ...changes }), undefined, JSON.stringify(changes));
  for (const value of [null, [], "x", 3]) assertEquals(modelConfigOf(value), undefined);
});

Deno.test("the models of runs that earlier versions began are read, in whatever order their fields stand", async () => {
  const {
    family: _,
    keyValueHeads: __,
    headSize: ___,
    norm,
    positions: _p,
    mlp: _m,
    biases: _b,
    parallel: _q,
    tied: _t,
    ...sizes
  } = TINY;
  const earlier = { layerNormEpsilon: norm.epsilon, ...sizes };
  assert(isSameModelConfig(modelConfigOf(earlier)!, TINY));
  assert(!isSameModelConfig(modelConfigOf({ ...earlier, layers: 1 })!, TINY));
  assertEquals(modelConfigOf({ ...earlier, heads: 3 }), undefined);
  const olmo = JSON.parse(JSON.stringify(await readModelConfig(`${FAMILIES}olmo`)));
  const {
    vocabularySize,
    contextLength,
    width,
    layers,
    heads,
    keyValueHeads,
    headSize,
    mlpWidth,
    endOfText,
    startOfText,
  } = olmo;
  const { norm: { epsilon, ...normOf }, family, positions, mlp, biases, clip, parallel, tied } = olmo;
  const before = {
    vocabularySize,
    contextLength,
    width,
    layers,
    heads,
    keyValueHeads,
    headSize,
    mlpWidth,
    layerNormEpsilon: epsilon,
    architecture: { family, norm: normOf, positions, mlp, biases, parallel, tied, clip },
    endOfText,
    startOfText,
  };
  assert(isSameModelConfig(modelConfigOf(before)!, olmo));
  assertEquals(modelConfigOf({ ...before, architecture: 3 }), undefined);
});

Deno.test("a config.json that is missing, no JSON or no object is refused", async () => {
  await using folder = await temporaryFolder();
  const path = `${folder.path}/config.json`;
  const refused = (message: string) => assertRejects(() => readModelConfig(folder.path), UserError, message);
  await refused(`Cannot read ${path}: no such file`);
  await Deno.writeTextFile(path, "{");
  await refused(`Cannot read ${path} as it is no JSON`);
  await Deno.writeTextFile(path, "[]");
  await refused(`Cannot load ${path} as it must be a JSON object`);
});
