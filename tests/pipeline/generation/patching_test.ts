/** A text that is continued with replacements is continued as runs of the whole text with them say. */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { generate } from "../../../pipeline/generation/generate.ts";
import { preparePatches } from "../../../pipeline/generation/patching.ts";
import type { LoadedModel } from "../../../pipeline/loaded_model.ts";
import { loadModel } from "../../../pipeline/load_model.ts";
import { prepareDecoder } from "../../../pipeline/model/decoder.ts";
import type { Patch, Replacement } from "../../../pipeline/model/replacement.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { normals, seeded } from "../../support/seeded.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { writeTinyOf } from "../../support/tiny_model.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;

const highest = (logits: Float32Array): number => logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));

/** What a run of a longer text must replace to replace the same: values at the prompt's positions, zero everywhere. */
async function ofWholeText(
  model: LoadedModel,
  prompt: readonly number[],
  { by, positions, ...rest }: Replacement,
  length: number,
): Promise<Patch> {
  const chosen = positions?.map((position) => position < 0 ? prompt.length + position : position);
  if (by === "zero") return { ...rest, by, positions: chosen };
  const read = [rest.activation];
  const { activations } = await model.run(prompt, { read, patch: [{ ...rest, by }] });
  const { values, shape } = activations.get(rest.activation)!;
  const longer = new Float32Array(values.length / shape[1] * length);
  longer.set(values);
  return { ...rest, by: { values: longer }, positions: chosen ?? prompt.map((_, position) => position) };
}

/** Continues a prompt by so many tokens with replacements, and holds each step's logits against a run of the whole text. */
async function assertContinued(
  model: LoadedModel,
  { prompt, count, replacements, name }: {
    prompt: readonly number[];
    count: number;
    replacements: readonly Replacement[];
    name: string;
  },
): Promise<void> {
  const { gpu, config, parameters } = model;
  const gateBias = config.gate?.bias;
  const decoder = await prepareDecoder(gpu, config, { room: 7 });
  const patches = await preparePatches(model, decoder, prompt, replacements, { gateBias });
  decoder.begin(parameters, { gateBias, hook: patches.hook });
  const text = [...prompt];
  let logits = await decoder.read(prompt);
  for (let n = 0; n <= count; n++) {
    const patch: Patch[] = [];
    for (const one of replacements) patch.push(await ofWholeText(model, prompt, one, text.length));
    const [whole, plain] = [await model.run(text, { patch }), await model.run(text)];
    // Measured: at most 8e-7, of logits to 10.
    assertClose(logits, whole.logits.values, { tolerance: 5e-6, name: `${name}, ${n} tokens on` });
    const differs = logits.some((value, token) => Math.abs(value - plain.logits.values[token]) > 1e-4);
    // What queries of the last layer say ends with their position.
    assert(differs || n > 0, `${name} must make a difference`);
    if (n === count) break;
    text.push(highest(logits));
    logits = await decoder.read(text.slice(-1));
  }
  const generated = await generate(model, prompt, { tokens: count, patch: replacements });
  const ended = prompt.length + generated.tokens.length;
  assertEquals(generated.tokens, text.slice(prompt.length, ended), name);
  assert(ended === text.length || generated.ended === "end of text");
  patches.destroy();
  decoder.destroy();
}

gpuTest(
  "replaced is what a run of the whole text replaces, at every token, in a prompt of 40",
  async (gpu) => {
    using model = await loadModel(`${ROOT}data/english`, { gpu });
    const { width, vocabularySize } = model.config;
    const random = seeded(3);
    const [prompt, other, third] = Array.from(
      { length: 3 },
      () => Array.from({ length: 40 }, () => random.integer(vocabularySize)),
    );
    const cases: Record<string, Replacement[]> = {
      "a head, everywhere": [{ activation: "blocks.1.attn.hook_z", head: 1, by: "zero" }],
      "an MLP, everywhere, and the stream in two places": [
        { activation: "blocks.0.hook_mlp_out", by: "zero" },
        { activation: "blocks.2.hook_resid_pre", positions: [-1, 2], by: "zero" },
      ],
      "values of another prompt's head": [
        { activation: "blocks.1.attn.hook_v", head: 2, by: { prompts: [other] } },
      ],
      "the mean of others in two places": [
        { activation: "blocks.0.hook_resid_mid", positions: [-2, -1], by: { meanOf: [other, third] } },
      ],
      "values": [
        { activation: "blocks.1.ln1.hook_normalized", by: { values: normals(4, 40 * width) } },
      ],
    };
    for (const [name, replacements] of Object.entries(cases)) {
      await assertContinued(model, { prompt, count: 2, replacements, name });
    }
  },
);

for (const family of ["llama", "gpt_neox", "olmo2"]) {
  gpuTest(`${family}: queries and keys, turned and not, gated MLPs and outputs are replaced`, async (gpu) => {
    await using folder = await temporaryFolder();
    await writeTinyOf(family, folder.path);
    using model = await loadModel(folder.path, { gpu });
    const [prompt, other] = [[1, 2, 10, 3], [5, 0, 10, 2]];
    const names = ["hook_k", "hook_rot_k", "hook_rot_q"].map((name) => `blocks.1.attn.${name}`);
    const cases: Replacement[][] = [
      ...names.map((activation) => [{ activation, head: 0, by: { prompts: [other] } }]),
      [{ activation: "blocks.0.hook_attn_out", by: "zero" }],
      [{
        activation: family === "gpt_neox" ? "blocks.0.mlp.hook_post" : "blocks.0.mlp.hook_pre_linear",
        by: "zero",
      }],
    ];
    for (const replacements of cases) {
      const name = replacements.map(({ activation }) => activation).join();
      await assertContinued(model, { prompt, count: 3, replacements, name });
    }
  });
}

gpuTest(
  "what a text cannot be continued with is refused by name, and leaves nothing on the device",
  async (gpu) => {
    using model = await loadModel(`${ROOT}data/addition-sparse`, { gpu });
    const prompt = "12+34=";
    const z = "blocks.0.attn.hook_z";
    const plain = await generate(model, prompt, { tokens: 2 });
    const before = gpu.allocatedBytes;
    const refused = (
      options: object,
      message: string,
      kind: typeof UserError | typeof RangeError = RangeError,
    ) => assertRejects(() => generate(model, prompt, options), kind, message);
    const patched = (patch: object, message: string, kind?: typeof UserError) =>
      refused({ patch: [{ activation: z, by: "zero", ...patch }] }, message, kind);
    await refused({ hooks: { [z]: () => {} } }, "Cannot continue a text with `hooks`", UserError);
    await refused({ patch: {} }, "Cannot continue a text as `patch` must be an array", UserError);
    await patched({ by: "mean" }, '"mean"', UserError);
    for (const name of ["attn_scores", "pattern", "gate_logits", "gates"]) {
      const activation = `blocks.1.attn.hook_${name}`;
      await patched({ activation }, `Cannot replace ${activation} while a text is continued`);
    }
    await patched({ activation: "hook_embed" }, "Cannot replace hook_embed while a text is continued");
    await patched({ activation: "blocks.0.ln1.hook_scale" }, "it can only be read");
    await patched({ activation: "blocks.0.hook_zz" }, "none is named blocks.0.hook_zz");
    await patched({ head: 4 }, "it has 4: 4");
    await patched({ rows: [1] }, "there are 1: 1");
    await patched({ positions: [6] }, `a position of ${z} as the prompt has 6 tokens: 6`);
    await patched({ by: { prompts: "1+2=" } }, "as the prompt has 6 tokens: 4");
    await patched({ by: { prompts: ["12+34=", "50+21="] } }, "as one prompt is continued: 2");
    await patched({ by: { meanOf: [] } }, "over no prompts");
    await patched(
      { by: { meanOf: ["50+21=", "1+2="] } },
      "must have the 6 tokens of the one that is continued: 4",
    );
    await patched({ by: { values: new Float32Array(3) } }, "it has 384 elements: 3 values");
    const twins = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"];
    await refused({ patch: twins.map((activation) => ({ activation, by: "zero" })) }, "Cannot replace both");
    assertEquals(gpu.allocatedBytes, before);
    // What steers is added to what was replaced, and a decoder that was given is clean behind it.
    const decoder = await prepareDecoder(gpu, model.config);
    const stream = "blocks.1.hook_resid_post";
    const add = normals(4, model.config.width, 3);
    const steer = [{ activation: stream, add }];
    const patch: Patch[] = [{ activation: stream, by: "zero" }];
    const both = await generate(model, prompt, { tokens: 2, patch, steer, decoder });
    const { logits } = await model.run(prompt, {
      hooks: { [stream]: (values) => values.map((_, n) => add[n % add.length]) },
    });
    assertEquals(both.tokens[0], highest(logits.values));
    assertNotEquals(both.tokens, (await generate(model, prompt, { tokens: 2, patch, decoder })).tokens);
    assertEquals(await generate(model, prompt, { tokens: 2, decoder }), plain);
    decoder.destroy();
    const held = gpu.allocatedBytes;
    const others = await generate(model, prompt, {
      tokens: 1,
      patch: [{ activation: "blocks.0.hook_resid_pre", by: { prompts: "50+21=" } }],
    });
    assertEquals(others.text, "1", "what the first layer reads is all there is of a prompt");
    assertEquals(gpu.allocatedBytes, held);
  },
);
