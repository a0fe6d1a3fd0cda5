import { elementsOf } from "../../../kernels/core/tensor.ts";
import { assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { hashFile } from "../../../pipeline/files.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { type WritableTensor, writeSafetensors } from "../../../pipeline/model/safetensors.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const CONFIG: ModelConfig = gpt2Config({
  vocabularySize: 3,
  contextLength: 2,
  width: 2,
  layers: 1,
  heads: 1,
  mlpWidth: 3,
});

/** A tensor that counts up from `first`. */
function counting(name: string, shape: readonly number[], first = 0): WritableTensor {
  const length = elementsOf(shape);
  return { name, shape, read: () => Promise.resolve(Float32Array.from({ length }, (_, n) => first + n)) };
}

/** The model's tensors; the n-th counts up from 100 n. */
const model = (prefix = "") =>
  parametersOf(CONFIG).map(({ name, shape }, n) => counting(prefix + name, shape, 100 * n));

async function saved(folder: string, tensors: WritableTensor[]): Promise<string> {
  const path = `${folder}/model.safetensors`;
  await writeSafetensors(path, tensors);
  return path;
}

/** A finite embedding counts up from 0; this one has `value` at its fifth element. */
function spoilt(name: string, value: number): WritableTensor {
  return { name, shape: [3, 2], read: () => Promise.resolve(new Float32Array([0, 1, 2, 3, value, 5])) };
}

for (
  const prefix of ["", "transformer.", "module.transformer.", "_orig_mod.module.transformer.", "module."]
) {
  Deno.test(`weights are read by their bare names from a file with the prefix "${prefix}"`, async () => {
    await using folder = await temporaryFolder();
    await saved(folder.path, model(prefix));
    const weights = await openWeights(folder.path, CONFIG);
    assertEquals(weights.parameters, parametersOf(CONFIG));
    for (const [n, { name, shape }] of weights.parameters.entries()) {
      assertEquals(await weights.read(name), await counting(name, shape, 100 * n).read());
    }
    await weights.verify();
  });
}

Deno.test("mask buffers and a head that equals the embedding are passed over", async () => {
  await using folder = await temporaryFolder();
  await saved(folder.path, [
    ...model("transformer."),
    counting("transformer.h.0.attn.bias", [1, 1, 2, 2]),
    counting("transformer.h.0.attn.masked_bias", []),
    counting("lm_head.weight", [3, 2]),
  ]);
  const weights = await openWeights(folder.path, CONFIG);
  await weights.verify();
  assertEquals(weights.parameters.length, 16);
});

Deno.test("an embedding that is stored as the head it is tied to is the embedding", async () => {
  await using folder = await temporaryFolder();
  const [embedding, ...rest] = model("transformer.");
  await saved(folder.path, [{ ...embedding, name: "lm_head.weight" }, ...rest]);
  const weights = await openWeights(folder.path, CONFIG);
  assertEquals(await weights.read("wte.weight"), await embedding.read());
  const untied = { ...CONFIG, tied: false };
  await assertRejects(() => openWeights(folder.path, untied), UserError, "tensor wte.weight is missing");
});

Deno.test("a head that is not tied is a parameter of its own", async () => {
  await using folder = await temporaryFolder();
  await saved(folder.path, model());
  const untied = { ...CONFIG, tied: false };
  await assertRejects(() => openWeights(folder.path, untied), UserError, "lm_head.weight is missing");
  const head = counting("lm_head.weight", [3, 2], 1);
  await saved(folder.path, [...model(), head]);
  const weights = await openWeights(folder.path, untied);
  await weights.verify();
  assertEquals(weights.parameters.length, 17);
  assertEquals(await weights.read("lm_head.weight"), await head.read());
});

Deno.test("mask buffers of any type are passed over, and a parameter of such a type is refused when it is read", async () => {
  await using folder = await temporaryFolder();
  const path = await saved(folder.path, [...model(), counting("h.0.attn.bias", [1, 1, 2, 2])]);
  const bytes = await Deno.readFile(path);
  const length = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const { __metadata__: _, ...header } = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length)));
  const write = async (name: string, dtype: string, shape: number[]): Promise<void> => {
    const changed = { ...header, [name]: { ...header[name], dtype, shape } };
    const text = new TextEncoder().encode(JSON.stringify(changed));
    const prefix = new Uint8Array(8);
    new DataView(prefix.buffer).setBigUint64(0, BigInt(text.length), true);
    await Deno.writeFile(path, new Uint8Array([...prefix, ...text, ...bytes.subarray(8 + length)]));
  };
  for (const [dtype, shape] of [["BOOL", [1, 1, 4, 4]], ["U8", [16]], ["I64", [2]]] as const) {
    await write("h.0.attn.bias", dtype, [...shape]);
    await (await openWeights(folder.path, CONFIG)).verify();
  }
  await write("ln_f.bias", "I32", [2]);
  const weights = await openWeights(folder.path, CONFIG);
  await assertRejects(() => weights.verify(), UserError, 'ln_f.bias must be of type F32, F16, BF16: "I32"');
});

/** The tensors of a file that does not fit, and the error after the file's path. */
const UNFIT: [what: string, tensors: WritableTensor[], message: string][] = [
  ["lacks a tensor", model().slice(0, -1), "as tensor ln_f.bias is missing"],
  [
    "has a surplus one",
    [...model(), counting("h.1.ln_1.bias", [2])],
    "as the model has no tensor h.1.ln_1.bias",
  ],
  [
    "has a transposed one",
    model().map((tensor) => tensor.name.endsWith("c_fc.weight") ? { ...tensor, shape: [3, 2] } : tensor),
    "as tensor h.0.mlp.c_fc.weight must be of shape [2, 3]: [3, 2]",
  ],
  [
    "has one of another rank",
    model().map((tensor) => tensor.name === "ln_f.bias" ? { ...tensor, shape: [2, 1] } : tensor),
    "as tensor ln_f.bias must be of shape [2]: [2, 1]",
  ],
  [
    "has one under two names",
    [...model(), counting("transformer.ln_f.bias", [2])],
    "as tensors ln_f.bias and transformer.ln_f.bias are the same parameter",
  ],
  [
    "has a head of another shape",
    [...model(), counting("lm_head.weight", [4, 2])],
    "as tensor lm_head.weight must be of shape [3, 2]: [4, 2]",
  ],
  [
    "has a head of its own",
    [...model("transformer."), counting("lm_head.weight", [3, 2], 1)],
    "as tensor lm_head.weight must equal transformer.wte.weight: the head is not tied",
  ],
];

for (const [what, tensors, message] of UNFIT) {
  Deno.test(`a file that ${what} is refused`, async () => {
    await using folder = await temporaryFolder();
    const path = await saved(folder.path, tensors);
    const error = await assertRejects(() => openWeights(folder.path, CONFIG), UserError);
    assertEquals(error.message, `Cannot load ${path} ${message}`);
    assertEquals(error.exitCode, 3);
  });
}

Deno.test("a value that is not finite is found, with its tensor and index", async () => {
  await using folder = await temporaryFolder();
  for (const value of [NaN, Infinity, -Infinity]) {
    const [embedding, ...rest] = model("transformer.");
    const path = await saved(folder.path, [spoilt(embedding.name, value), ...rest]);
    const weights = await openWeights(folder.path, CONFIG);
    await assertRejects(
      () => weights.verify(),
      UserError,
      `Cannot load ${path} as tensor transformer.wte.weight must be finite: element 4 is ${value}`,
    );
  }
});

Deno.test("a parameter that the model has not is named", async () => {
  await using folder = await temporaryFolder();
  const path = await saved(folder.path, model());
  const weights = await openWeights(folder.path, CONFIG);
  await assertRejects(
    () => weights.read("wqe.weight"),
    UserError,
    `Cannot read ${path} as it has no tensor wqe.weight`,
  );
});

Deno.test("the hash is that of the file and changes with a weight", async () => {
  await using folder = await temporaryFolder();
  const path = await saved(folder.path, model());
  const hash = await (await openWeights(folder.path, CONFIG)).hash();
  assertEquals(hash, await hashFile(path));
  const [embedding, ...rest] = model();
  await saved(folder.path, [spoilt(embedding.name, 4.5), ...rest]);
  assertNotEquals(await (await openWeights(folder.path, CONFIG)).hash(), hash);
});

Deno.test("a sharded model is read as one, and its hash changes with any shard", async () => {
  await using folder = await temporaryFolder();
  const weight_map: Record<string, string> = {};
  const shards: [string, WritableTensor[]][] = [["a.safetensors", model().slice(0, 5)], [
    "b.safetensors",
    model().slice(5),
  ]];
  for (const [shard, tensors] of shards) {
    await writeSafetensors(`${folder.path}/${shard}`, tensors);
    for (const { name } of tensors) weight_map[name] = shard;
  }
  await Deno.writeTextFile(`${folder.path}/model.safetensors.index.json`, JSON.stringify({ weight_map }));
  const weights = await openWeights(folder.path, CONFIG);
  await weights.verify();
  assertEquals(await weights.read("ln_f.bias"), new Float32Array([1500, 1501]));
  const hash = await weights.hash();
  assertEquals(hash.length, 64);
  await writeSafetensors(`${folder.path}/b.safetensors`, model().slice(5), { changed: "yes" });
  assertNotEquals(await (await openWeights(folder.path, CONFIG)).hash(), hash);
});
