import { assert, assertAlmostEquals, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import { readAttention } from "../../pipeline/model/attention_pattern.ts";
import { createCircuitEngine } from "../../pipeline/circuits/engine.ts";
import { referenceLogits } from "../support/reference_run.ts";
import { TASKS } from "../../pipeline/circuits/tasks/tasks.ts";
import { UserError } from "../../pipeline/errors.ts";
import type { Activation } from "../../pipeline/loaded_model.ts";
import { loadModel } from "../../pipeline/load_model.ts";
import type { PatchedPlace } from "../../pipeline/circuits/patch_each.ts";
import type { ActivationAxis } from "../../pipeline/model/activation_names.ts";
import type { Patch } from "../../pipeline/model/replacement.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { randomStream } from "../../kernels/core/random.ts";
import { elementsOf } from "../../kernels/core/tensor.ts";
import { assertClose } from "../support/compare.ts";
import { gpuTest } from "../support/gpu.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { choicesOf, writeTinyModel, writeTinyOf } from "../support/tiny_model.ts";

const DATA = new URL("../../data/", import.meta.url).pathname;
const [DENSE, SPARSE] = [DATA + "addition", DATA + "addition-sparse"];
const PROMPTS = ["12+34=", "50+21="];

/** Logits of the last position in float64. */
async function lastLogits(folder: string, tokens: number[]): Promise<Float64Array> {
  const config = await readModelConfig(folder);
  const source = await openWeights(folder, config);
  const weights = new Map<string, Float32Array>();
  for (const { name } of source.parameters) weights.set(name, await source.read(name));
  const logits = referenceLogits({ ...config, weights }, tokens);
  return Float64Array.from(logits.slice(-config.vocabularySize));
}

gpuTest(
  "a folder is loaded in one call; text and tokens give the logits of float64, dense and sparse",
  async (gpu) => {
    for (const folder of [DENSE, SPARSE]) {
      using model = await loadModel(folder, { gpu });
      const { tokens, logits } = await model.run(PROMPTS);
      assertEquals(tokens, PROMPTS.map((text) => model.tokenizer.encode(text)));
      assertEquals(logits.shape, [2, 1, 13]);
      const expected = [];
      for (const prompt of tokens) expected.push(...await lastLogits(folder, prompt));
      // Measured: 2e-6 of logits to 20.
      assertClose(logits.values, expected, { tolerance: 1e-5, name: folder });
      assertEquals((await model.run(tokens)).logits, logits);
      const one = await model.run(tokens[1], { at: "all" });
      assertEquals(one.logits.shape, [1, 6, 13]);
      assertClose(one.logits.values.slice(-13), logits.values.slice(13), { tolerance: 1e-5, name: "one" });
    }
  },
);

gpuTest(
  "a text gets the token that the model was trained with before every text, tokens do not",
  async (gpu) => {
    await using folder = await temporaryFolder();
    for (const name of ["config.json", "model.safetensors", "tokenizer.json"]) {
      await Deno.copyFile(join(DENSE, name), join(folder.path, name));
    }
    const settings = { add_bos_token: true, bos_token: { content: "5" } };
    await Deno.writeTextFile(join(folder.path, "tokenizer_config.json"), JSON.stringify(settings));
    using model = await loadModel(folder.path, { gpu });
    const { tokens, logits } = await model.run("2+34=");
    assertEquals(tokens, [[5, 2, 10, 3, 4, 11]]);
    assertEquals((await model.run(tokens)).logits, logits);
  },
);

gpuTest("the gates of a sparse model are used, and are not where it is loaded as dense", async (gpu) => {
  using sparse = await loadModel(SPARSE, { gpu });
  using dense = await loadModel(SPARSE, { gpu, dense: true });
  const gates = "blocks.0.attn.hook_gates";
  const closed = (values: Float32Array) => values.filter((gate) => gate === 0).length;
  const read = async (model: typeof sparse) =>
    (await model.run(PROMPTS, { read: [gates] })).activations.get(gates)!;
  // Of 2 prompts, 4 heads and 36 pairs, 15 each are not causal; what a dense model's gates are there is never used.
  assert(closed((await read(sparse)).values) > closed((await read(dense)).values));
  assertEquals(dense.config.gate, undefined);
  assertNotEquals((await sparse.run(PROMPTS)).logits, (await dense.run(PROMPTS)).logits);
});

gpuTest(
  "every name can be read, in the sizes of its axes, and an edge's weight is its pattern times its gate",
  async (gpu) => {
    using model = await loadModel(SPARSE, { gpu });
    const { heads, width, mlpWidth, layers } = model.config;
    const sizes = {
      batch: 2,
      position: 6,
      head: heads,
      keyValueHead: heads,
      query: 6,
      key: 6,
      width,
      headSize: width / heads,
      mlpWidth,
    };
    const { activations } = await model.run(PROMPTS, { read: "all" });
    assertEquals([...activations.keys()].sort(), [...model.hooks.keys()].sort());
    for (const [name, axes] of model.hooks) {
      const { shape, values } = activations.get(name)!;
      assertEquals(shape, axes.map((axis) => sizes[axis]), name);
      assertEquals(values.length, elementsOf(shape), name);
    }
    const tokens = model.tokenizer.encode(PROMPTS[0]);
    const { layers: seen } = await readAttention(gpu, model.network, model.parameters, tokens);
    for (let layer = 0; layer < layers; layer++) {
      const [pattern, gates] = ["pattern", "gates"].map((name) =>
        activations.get(`blocks.${layer}.attn.hook_${name}`)!.values.subarray(0, heads * 36)
      );
      // Measured: 2e-7.
      assertClose(pattern.map((weight, n) => weight * gates[n]), seen[layer].weights, {
        tolerance: 2e-6,
        name: `layer ${layer}`,
      });
    }
  },
);

gpuTest(
  "a hook sees an activation with what the hooks before it did, in the order of computation, and changes it",
  async (gpu) => {
    using model = await loadModel(DENSE, { gpu });
    const [early, late] = ["blocks.0.hook_attn_out", "blocks.0.mlp.hook_post"];
    const seen: string[] = [];
    let before: Float32Array | undefined;
    const hooked = await model.run(PROMPTS, {
      hooks: {
        async [late](values, shape) {
          seen.push(`${late} ${shape}`);
          before = values.slice();
          return await Promise.resolve(values.map((value) => 2 * value));
        },
        [early](values) {
          seen.push(early);
          values.fill(0);
        },
      },
      read: [late],
    });
    assertEquals(seen, [early, `${late} 2,6,${model.config.mlpWidth}`]);
    const patched = await model.run(PROMPTS, { patch: [{ activation: early, by: "zero" }], read: [late] });
    assertEquals(before, patched.activations.get(late)!.values);
    const doubled = before!.map((value) => 2 * value);
    assertEquals(hooked.activations.get(late)!.values, doubled);
    const both = await model.run(PROMPTS, {
      patch: [{ activation: early, by: "zero" }, { activation: late, by: { values: doubled } }],
    });
    assertEquals(hooked.logits, both.logits);
  },
);

gpuTest(
  "what a block ends with is what the next begins with, under either name, and not under both at once",
  async (gpu) => {
    await using folder = await temporaryFolder();
    await writeTinyModel(folder.path);
    using model = await loadModel(folder.path, { gpu });
    const [post, pre] = ["blocks.0.hook_resid_post", "blocks.1.hook_resid_pre"];
    const names = [...model.hooks.keys()];
    assertEquals(names.indexOf(pre), names.indexOf(post) + 1);
    assertEquals(model.hooks.get(post), ["batch", "position", "width"]);
    const { activations, logits } = await model.run(PROMPTS, { read: [pre, post] });
    assertEquals(activations.get(post), activations.get(pre));
    assertNotEquals(activations.get(post)!.values, new Float32Array(2 * 6 * 16));

    const by = { prompts: PROMPTS.toReversed() };
    const [ofPost, ofPre] = await Promise.all(
      [post, pre].map((activation) => model.run(PROMPTS, { patch: [{ activation, by }] })),
    );
    assertEquals(ofPost.logits, ofPre.logits);
    assertNotEquals(ofPost.logits, logits);
    const double = (values: Float32Array) => values.map((value) => 2 * value);
    const hooked = await model.run(PROMPTS, { hooks: { [pre]: double, [post]: double }, read: [post] });
    assertEquals(
      hooked.activations.get(post)!.values,
      activations.get(post)!.values.map((value) => 4 * value),
    );
    const both = [{ activation: post, by }, { activation: pre, by, positions: [0] }];
    await assertRejects(
      () => model.run(PROMPTS, { patch: both }),
      RangeError,
      `Cannot replace both ${post} and ${pre} as they are one activation: name one of them`,
    );
    const twice = [{ activation: post, by, positions: [1] }, { activation: post, by, positions: [0] }];
    assertNotEquals((await model.run(PROMPTS, { patch: twice })).logits, logits);
    await assertRejects(
      () => model.run(PROMPTS, { read: ["blocks.0.hook_resid_pots"] }),
      RangeError,
      `did you mean ${post}?`,
    );
  },
);

gpuTest(
  "a logit is taken apart by component at a position, for an answer as text or as token",
  async (gpu) => {
    for (const folder of [DENSE, SPARSE]) {
      using model = await loadModel(folder, { gpu });
      const [prompt] = PROMPTS;
      const { heads, layers } = model.config;
      const sumOf = (parts: readonly { value: number }[]) => parts.reduce((sum, { value }) => sum + value, 0);
      const { logits } = await model.run(prompt, { at: "all" });
      const [six, one] = ["6", "1"].flatMap(model.tokenizer.encode);
      const logit = (position: number, token: number) => logits.values[position * 13 + token];

      const parts = await model.attributeLogits(prompt, { answer: "6", wrong: "1" });
      const named = (layer: number) => [
        ...Array.from({ length: heads }, (_, head) => `a${layer}.h${head}`),
        ...[`a${layer}.bias`, `m${layer}`, `m${layer}.bias`],
      ];
      const ofLayers = Array.from({ length: layers }, (_, layer) => named(layer)).flat();
      assertEquals(parts.map(({ component }) => component), ["embed", ...ofLayers, "ln_final.bias"]);
      // Measured: 1e-6 of logits to 20.
      assertAlmostEquals(sumOf(parts), logit(5, six) - logit(5, one), 1e-5);
      assertEquals(await model.attributeLogits(prompt, { answer: six, wrong: one, at: 5 }), parts);
      for (const at of [2, -4]) {
        const early = await model.attributeLogits(model.tokenizer.encode(prompt), { answer: "6", at });
        assertAlmostEquals(sumOf(early), logit(2, six), 1e-5);
      }
    }
  },
);

gpuTest(
  "a logit is taken apart, and the lens looks, as the run is with its patches and hooks",
  async (gpu) => {
    for (const folder of [DENSE, SPARSE]) {
      using model = await loadModel(folder, { gpu });
      const [prompt, other] = PROMPTS;
      const answer = "6";
      const [six] = model.tokenizer.encode(answer);
      const sumOf = (parts: readonly { value: number }[]) => parts.reduce((sum, { value }) => sum + value, 0);
      const whole = await model.attributeLogits(prompt, { answer });
      assert(whole.every(({ component }) => component !== "replaced"), "nothing was");
      const attributed = async (patch: Patch[]) => {
        const parts = await model.attributeLogits(prompt, { answer, patch });
        const { logits: { values } } = await model.run(prompt, { patch });
        // Measured: 1e-6 of logits to 20.
        assertAlmostEquals(sumOf(parts), values[six], 1e-5);
        assertEquals(
          parts.slice(0, -1).map(({ component }) => component),
          whole.map((part) => part.component),
        );
        const valueOf = (name: string) => parts.find(({ component }) => component === name)!.value;
        return { parts, valueOf };
      };
      const z = "blocks.1.attn.hook_z";
      const withoutHead = await attributed([{ activation: z, head: 2, by: "zero" }]);
      assertEquals(withoutHead.valueOf("a1.h2"), 0);
      assertAlmostEquals(withoutHead.valueOf("replaced"), 0, 1e-5);
      const ofMlp = whole.find(({ component }) => component === "m1")!.value;
      assert(
        folder === SPARSE || withoutHead.valueOf("m1") !== ofMlp,
        "what comes of it comes of it there too",
      );
      // Of heads that are not what is added, the rest is what takes them away again.
      const withoutLayer = await attributed([{ activation: "blocks.1.hook_attn_out", by: "zero" }]);
      const ofLayer = withoutLayer.parts.filter(({ component }) => component.startsWith("a1."));
      assert(Math.abs(sumOf(ofLayer)) > 1e-3, "the layer must matter");
      assertAlmostEquals(withoutLayer.valueOf("replaced"), -sumOf(ofLayer), 1e-5);
      // What an MLP adds, whoever put it there, is its own and its bias'.
      const withoutMlp = await attributed([{ activation: "blocks.2.hook_mlp_out", by: "zero" }]);
      assertAlmostEquals(withoutMlp.valueOf("m2") + withoutMlp.valueOf("m2.bias"), 0, 1e-5);
      assertAlmostEquals(withoutMlp.valueOf("replaced"), 0, 1e-5);
      const hooks = {
        [z]: (values: Float32Array) => values.map((value, n) => (n >> 4) % 4 === 2 ? 0 : value),
      };
      assertEquals(await model.attributeLogits(prompt, { answer, hooks }), withoutHead.parts);

      const patch: Patch[] = [{ activation: "blocks.1.hook_resid_pre", by: { prompts: other } }];
      const [lens, plain, ofOther] = await Promise.all([
        model.logitLens(prompt, { patch }),
        model.logitLens(prompt),
        model.logitLens(other),
      ]);
      assertEquals(lens[0], plain[0], "before the patch");
      assertEquals(lens.slice(1), ofOther.slice(1), "behind it");
      assertNotEquals(lens[1], plain[1]);
      const halved = (values: Float32Array) => values.map((value) => value / 2);
      const hooked = await model.logitLens(prompt, { hooks: { "blocks.3.hook_mlp_out": halved } });
      assertEquals(hooked.slice(0, -1), plain.slice(0, -1));
      assertNotEquals(hooked.at(-1), plain.at(-1));
    }
  },
);

gpuTest("the lens ends with what the model says, by text and log-probability", async (gpu) => {
  using model = await loadModel(SPARSE, { gpu });
  const lens = await model.logitLens(PROMPTS[0], { top: 2 });
  assertEquals(lens.map(({ positions }) => positions.map(({ length }) => length)), [
    ...Array.from({ length: model.config.layers + 1 }, () => Array(6).fill(2)),
  ]);
  const { logits: { values } } = await model.run(PROMPTS[0]);
  const total = Math.log(values.reduce((sum, value) => sum + Math.exp(value), 0));
  const [[{ token, text, logProbability }]] = lens.at(-1)!.positions.slice(-1);
  assertEquals([text, model.tokenizer.spell(token)], ["6", "6"]);
  assertAlmostEquals(logProbability, Math.max(...values) - total, 1e-5);
  const [{ positions }] = await model.logitLens(PROMPTS[0], { at: [-1] });
  assertEquals(positions.map(({ length }) => length), [5]);
  assertEquals(positions[0].slice(0, 2), lens[0].positions[5]);
});

gpuTest(
  "the open edges of a sparse model have the prompt's tokens, and lie on paths to its end or not",
  async (gpu) => {
    using model = await loadModel(SPARSE, { gpu });
    const [prompt] = PROMPTS;
    const edges = await model.openEdges(prompt);
    const gates = [...model.hooks.keys()].filter((name) => name.endsWith(".hook_gates"));
    const { activations } = await model.run(prompt, { read: gates });
    let open = 0;
    // Of keys behind the query a gate says nothing.
    for (const { values } of activations.values()) {
      values.forEach((gate, at) => open += at % 6 <= Math.floor(at / 6) % 6 ? gate : 0);
    }
    assertEquals(edges.length, open);
    for (const { query, key, queryToken, keyToken } of edges) {
      assertEquals([queryToken, keyToken], [prompt[query], prompt[key]]);
    }
    assert(edges.some(({ onPath }) => onPath) && edges.some(({ onPath }) => !onPath));
    assertEquals(await model.openEdges(model.tokenizer.encode(prompt), { answers: [5, -1] }), edges);
    assert((await model.openEdges(prompt, { answers: [] })).every(({ onPath }) => !onPath));
  },
);

gpuTest(
  "a head's weights give the queries of a run from what its layer read, also in a hook of it",
  async (gpu) => {
    const model = await loadModel(SPARSE, { gpu });
    const { width, headSize, heads } = model.config;
    const read = "blocks.1.ln1.hook_normalized";
    let inHook: number[] | undefined;
    const { activations } = await model.run(PROMPTS[0], {
      read: [read],
      hooks: {
        "blocks.1.attn.hook_q": async (queries) => {
          inHook = [...queries.subarray((5 * heads + 2) * headSize, (5 * heads + 3) * headSize)];
          assertEquals((await model.headWeights(1, 2)).W_Q.shape, [width, headSize]);
        },
      },
    });
    const { W_Q, b_Q } = await model.headWeights(1, 2);
    const x = activations.get(read)!.values.subarray(5 * width, 6 * width);
    const queries = b_Q.values.map((bias, n) =>
      x.reduce((sum, value, m) => sum + value * W_Q.values[m * headSize + n], bias)
    );
    // Measured: 9.8e-8.
    assertClose(inHook!, queries, { tolerance: 2e-6, name: "queries" });
    await assertRejects(() => model.headWeights(1, heads), RangeError, `head ${heads} as there are 0 to`);
    const underWay = model.headWeights(1, 2);
    model.destroy();
    await assertRejects(() => underWay, RangeError, "as it was destroyed");
    await assertRejects(() => model.headWeights(0, 0), RangeError, "as it was destroyed");
  },
);

gpuTest("without gates every causal edge is open, and a least weight has to be given", async (gpu) => {
  using dense = await loadModel(SPARSE, { gpu, dense: true });
  const { layers, heads } = dense.config;
  const all = layers * heads * 21;
  await assertRejects(() => dense.openEdges("12+34="), UserError, `all ${all} of the prompt are open`);
  const edges = await dense.openEdges("12+34=", { leastWeight: 0 });
  assertEquals(edges.length, all);
  const sums = Map.groupBy(edges, ({ layer, head, query }) => `${layer} ${head} ${query}`);
  for (const ofQuery of sums.values()) {
    assertAlmostEquals(ofQuery.reduce((sum, { weight }) => sum + weight, 0), 1, 1e-5);
  }
  // Of the last layer those of the answer's own queries, below all.
  assertEquals(edges.filter(({ onPath }) => onPath).length, (layers - 1) * heads * 21 + heads * 6);
  const refused = (options: unknown, message: string) =>
    assertRejects(() => dense.openEdges("12", options as object), Error, message);
  await refused({ answers: [2], leastWeight: 0 }, "position 2 as the prompt has 2 tokens");
  await refused({ answers: -1 }, "`answers` must be an array of positions: -1");
  await refused({ leastWeight: 2 }, "`leastWeight` must be a number from 0 to 1: 2");
  await refused({ leastweight: 0 }, "leastweight (did you mean leastWeight?)");
  await refused(null, "the options of open edges must be an object: null");
  await assertRejects(() => dense.openEdges("", { leastWeight: 0 }), RangeError, "at least one token");
});

gpuTest("what has no logit, and what the lens cannot show, is refused", async (gpu) => {
  using model = await loadModel(DENSE, { gpu });
  const attributed = (answer: string | number, message: string, at?: number) =>
    assertRejects(() => model.attributeLogits("12+34=", { answer, at }), Error, message);
  await attributed("46", 'the logit of "46" as it must be one token: 2 ("4", "6")');
  await attributed("", 'the logit of "" as it must be one token: 0 ()');
  await attributed("Q", 'it must be one token: none for "Q"');
  await attributed(13, "must be below 13: 13");
  await attributed(1.5, "must be below 13: 1.5");
  const untyped = (options: object) => () => model.attributeLogits("12", options as { answer: string });
  await assertRejects(untyped({ wrong: "6" }), UserError, "`answer` must be a text or a token: nothing");
  await assertRejects(untyped({ answer: "6", worng: "4" }), UserError, "worng (did you mean wrong?)");
  await assertRejects(untyped({ answer: "6", at: 1.5 }), UserError, "`at` must be a whole number: 1.5");
  const lens = (options: object) => () => model.logitLens("12", options);
  const final = "ln_final.hook_normalized";
  await assertRejects(
    lens({ patch: [{ activation: final, by: "zero" }] }),
    RangeError,
    `Cannot replace ${final} under a lens`,
  );
  await assertRejects(lens({ patch: [{ activation: final }] }), UserError, "`by` of patch[0]");
  await assertRejects(lens({ hooks: { hook_zz: () => {} } }), RangeError, "none is named hook_zz");
  await assertRejects(untyped({ answer: "6", hooks: [] }), UserError, "`hooks` must be an object");
  await assertRejects(lens({ top: "5" }), UserError, '`top` must be a whole number: "5"');
  await assertRejects(lens({ at: -1 }), UserError, '`at` must be "all" or an array of positions: -1');
  await attributed("6", "have 6 tokens: position 6", 6);
  await attributed("6", "have 6 tokens: position -7", -7);
  const wrong = () => model.attributeLogits("12", { answer: "6", wrong: "11" });
  await assertRejects(wrong, RangeError, 'the logit of "11"');
  await assertRejects(() => model.logitLens("12", { top: 14 }), RangeError, "there are 1 to 13: 14");
  await assertRejects(() => model.logitLens("12", { at: [2] }), RangeError, "position 2");
  await assertRejects(() => model.logitLens(""), RangeError, "at least one token");
  const hook = () => model.logitLens("12").then(() => {});
  const inner = model.run("12", { hooks: { "blocks.0.hook_resid_pre": hook } });
  await assertRejects(() => inner, RangeError, "from a hook of its own run");
  assertEquals((await model.run("12")).tokens, [[1, 2]], "and it goes on");
});

gpuTest("places patched many at once have the logits of each patched by itself", async (gpu) => {
  using model = await loadModel(SPARSE, { gpu });
  const [prompt, from] = PROMPTS;
  const [answer, wrong] = ["6", "1"];
  const differenceOf = async (of: string, patch: Patch[] = []) => {
    const { logits: { values } } = await model.run(of, { patch });
    const [six, one] = [answer, wrong].flatMap(model.tokenizer.encode);
    return values[six] - values[one];
  };
  const [value, ofFrom] = [await differenceOf(prompt), await differenceOf(from)];
  const [stream, z, pattern, scores, keys] = [
    "hook_resid_pre",
    "attn.hook_z",
    "attn.hook_pattern",
    "attn.hook_attn_scores",
    "attn.hook_k",
  ].map((name) => `blocks.1.${name}`);
  // More places than are run at once, and fewer.
  for (
    const [activations, each, count] of [
      [[stream, "hook_embed"], undefined, 12],
      [[z, keys], ["head"], 8],
      [[z, scores, pattern], ["head", "position"], 72],
      [["blocks.0.hook_resid_pre"], [], 1],
    ] as const
  ) {
    const effects = await model.patchEach(prompt, { from, activations, each, answer, wrong });
    assertEquals(effects.places.length, count);
    assertAlmostEquals(effects.value, value, 1e-5);
    assertAlmostEquals(effects.from, ofFrom, 1e-5);
    // Every place once.
    assertEquals(
      new Set(effects.places.map(({ activation, head, position }) => `${activation} ${head} ${position}`))
        .size,
      count,
    );
    for (
      const { activation, head, position, value: patched, change: patchedChange, effect } of effects.places
    ) {
      const positions = position === undefined ? undefined : [position];
      const alone = await differenceOf(prompt, [{ activation, head, positions, by: { prompts: from } }]);
      // Measured: 0, of differences to 16; products of another number of rows may round otherwise elsewhere.
      assertAlmostEquals(patched, alone, 1e-5);
      assertAlmostEquals(effect, (alone - value) / (ofFrom - value), 1e-6);
      assertEquals(patchedChange, patched - effects.value);
    }
  }
  // What a prompt begins with is all of it.
  const [{ effect }] =
    (await model.patchEach(prompt, { from, activations: ["hook_embed"], each: [], answer: 6, at: -1 }))
      .places;
  assertAlmostEquals(effect, 1, 1e-5);
  const patched = (options: object) => () =>
    model.patchEach(prompt, { from, activations: [z], answer, ...options });
  await assertRejects(
    patched({ activations: [stream], each: ["head"] }),
    RangeError,
    `patch ${stream} by head as it has none`,
  );
  await assertRejects(
    patched({ from: "1+2=" }),
    RangeError,
    "a prompt of 6 tokens by another as it must have as many: 4",
  );
  await assertRejects(
    patched({ activations: ["blocks.0.ln1.hook_scale"] }),
    RangeError,
    "it can only be read",
  );
  await assertRejects(patched({ activations: ["hook_zz"] }), RangeError, "none is named hook_zz");
  await assertRejects(patched({ activations: z }), UserError, "`activations` must be an array");
  await assertRejects(
    patched({ each: ["layer"] }),
    UserError,
    '`each` must be an array of "head" and "position"',
  );
  await assertRejects(patched({ heads: true }), UserError, "no unknown key: heads");
  await assertRejects(patched({ answer: "46" }), RangeError, "must be one token");
});

gpuTest("places are patched by zero and by means, and measured by a metric of one's own", async (gpu) => {
  using model = await loadModel(DENSE, { gpu });
  const [prompt] = PROMPTS;
  const [z, mlp] = ["blocks.1.attn.hook_z", "blocks.2.hook_mlp_out"];
  const meanOf = ["50+21=", "77+15=", "1+2="];
  const seen: number[] = [];
  /** The logit of the likeliest token above the next one's. */
  const metric = (logits: Float32Array, pair: number): number => {
    assertEquals(logits.length, 13);
    seen.push(pair);
    const [first, second] = logits.toSorted().reverse();
    return first - second;
  };
  for (const by of ["zero", { meanOf: meanOf.slice(0, 2) }] as const) {
    const effects = await model.patchEach(prompt, {
      by,
      activations: [z, mlp],
      each: ["position"],
      metric,
      at: -1,
    });
    const measured = async (patch: Patch[]) => metric((await model.run(prompt, { patch })).logits.values, 0);
    assertEquals(effects.places.length, 12);
    assertAlmostEquals(effects.value, await measured([]), 1e-6);
    assert(Number.isNaN(effects.from));
    for (const { activation, position, value, change, effect } of effects.places) {
      // Measured: 0.
      assertAlmostEquals(value, await measured([{ activation, positions: [position!], by }]), 1e-6);
      assertEquals(change, value - effects.value);
      assert(Number.isNaN(effect));
    }
    assert(effects.places.some(({ change }) => Math.abs(change) > 0.1), "something must matter");
    assertEquals(effects.pairs.length, 1);
    assertEquals(effects.pairs[0].places, effects.places);
  }
  assertEquals(new Set(seen), new Set([0]));
  // What stands in must be said, once, and so must what is measured.
  const refused = (options: object, message: string, of: unknown = prompt) =>
    assertRejects(
      () => model.patchEach(of as string, { activations: [z], answer: "6", ...options }),
      Error,
      message,
    );
  await refused({}, "`from` must be a text or an array of tokens: nothing");
  await refused({ by: "zero", from: prompt }, "`from` beside `by` must be left out");
  await refused({ by: "mean" }, '`by` must be "zero" or { meanOf }: "mean"');
  await refused({ by: { values: new Float32Array(1) } }, '`by` must be "zero" or { meanOf }');
  await refused({ by: { meanOf: prompt } }, "`meanOf` of `by` must be an array of texts");
  await refused({ by: { meanOf: ["1+2="] } }, "at position 4 as its prompts have up to 4 tokens");
  await refused({ by: "zero", metric }, "`answer` beside `metric` must be left out");
  await refused({ by: "zero", answer: undefined }, "`answer` must be a text or a token: nothing");
  await refused({ by: "zero", metric: 3, answer: undefined }, "`metric` must be a function: 3");
  const none = () => "much";
  await refused({ by: "zero", answer: undefined, metric: none }, 'the metric gives must be a number: "much"');
  await refused({ by: "zero" }, "the prompt of pair 0 must be a text or an array of tokens: nothing", [{}]);
  await refused({ by: "zero" }, "pair 0 must have no unknown key: clean", [{ clean: prompt }]);
  await refused({}, "`from` of pair 1 must be a text", [{ prompt, from: prompt }, { prompt }]);
  await refused({}, "the prompt of pair 1 of 6 tokens by another as it must have as many: 4", [
    { prompt, from: prompt },
    { prompt, from: "1+2=" },
  ]);
  await refused({ by: "zero" }, "position by position as they must be of one length: 4 and 6", [
    { prompt },
    { prompt: "1+2=" },
  ]);
});

gpuTest("pairs are patched together, each as by itself, with their means", async (gpu) => {
  using model = await loadModel(DENSE, { gpu });
  // More than are run at once.
  const texts = Array.from({ length: 70 }, (_, n) => `${10 + n}+${37 + (n * 7) % 60}=`);
  const pairs = Array.from({ length: 35 }, (_, n) => ({
    prompt: texts[2 * n],
    from: texts[2 * n + 1],
    ...(n % 2 === 0 ? { answer: `${n % 10}` } : {}),
  }));
  const activations = ["blocks.1.attn.hook_z", "blocks.2.attn.hook_pattern"];
  const options = { activations, each: ["head", "position"] as const, answer: "4", wrong: "1" };
  const together = await model.patchEach(pairs, options);
  assertEquals(together.pairs.length, 35);
  assertEquals(together.places.length, 48);
  for (const n of [0, 1, 31, 32, 33, 34]) {
    const { prompt, ...own } = pairs[n];
    const { pairs: [alone] } = await model.patchEach(prompt, { ...options, ...own });
    const { value, from, places } = together.pairs[n];
    // Measured: 0.
    assertAlmostEquals(value, alone.value, 1e-6);
    assertAlmostEquals(from, alone.from, 1e-6);
    const named = (place: PatchedPlace) => ({ ...place, value: 0, change: 0, effect: 0 });
    assertEquals(places.map(named), alone.places.map(named));
    for (const [at, place] of places.entries()) {
      assertAlmostEquals(place.value, alone.places[at].value, 1e-6);
      assertAlmostEquals(place.change, alone.places[at].change, 1e-6);
    }
  }
  const meanOf = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const { pairs: each, places } = together;
  assertAlmostEquals(together.value, meanOf(each.map(({ value }) => value)), 1e-9);
  assertAlmostEquals(together.from, meanOf(each.map(({ from }) => from)), 1e-9);
  for (const [at, { value, change, effect }] of places.entries()) {
    assertAlmostEquals(value, meanOf(each.map(({ places }) => places[at].value)), 1e-9);
    assertAlmostEquals(change, meanOf(each.map(({ places }) => places[at].change)), 1e-9);
    assertAlmostEquals(effect, change / (together.from - together.value), 1e-9);
  }
  // Of unequal length, head by head; a metric is told whose logits it sees.
  const seen: number[] = [];
  const unequal = [{ prompt: "12+34=" }, { prompt: "1+2=" }];
  const metric = (logits: Float32Array, pair: number) => {
    seen.push(pair);
    return logits[pair];
  };
  const ofHeads = await model.patchEach(unequal, {
    activations: activations.slice(0, 1),
    each: ["head"],
    by: "zero",
    metric,
  });
  assertEquals(seen.toSorted(), [...Array(5).fill(0), ...Array(5).fill(1)]);
  for (const [n, { prompt }] of unequal.entries()) {
    for (const { activation, head, value } of ofHeads.pairs[n].places) {
      const { logits } = await model.run(prompt, { patch: [{ activation, head, by: "zero" }] });
      assertAlmostEquals(value, logits.values[n], 1e-6);
    }
  }
});

/** Prompts of a batch, and how one is run by itself. */
const UNEQUAL = ["12+34=", "5", "1+2=", "50+21=6"];

/** The prompt's own part of an activation of several, and what stands behind its end. */
function ownPart(
  { values, shape }: Activation,
  axes: readonly ActivationAxis[],
  row: number,
  length: number,
): { own: number[]; behind: number[] } {
  const ofRow = values.length / shape[0];
  const [own, behind]: number[][] = [[], []];
  for (let n = 0; n < ofRow; n++) {
    let rest = n;
    const indices = shape.map((size) => size).reverse().map((size) => {
      const index = rest % size;
      rest = Math.floor(rest / size);
      return index;
    }).reverse();
    const isBehind = axes.some((axis, at) =>
      ["position", "query", "key"].includes(axis) && indices[at] >= length
    );
    (isBehind ? behind : own).push(values[row * ofRow + n]);
  }
  return { own, behind };
}

gpuTest(
  "prompts of unequal length say what each says by itself, and behind the end of one there is nothing",
  async (gpu) => {
    await using tiny = await temporaryFolder();
    await writeTinyOf("llama", tiny.path);
    for (const folder of [DENSE, SPARSE, tiny.path]) {
      using model = await loadModel(folder, { gpu });
      const { config: { vocabularySize } } = model;
      const read = "all";
      const together = await model.run(UNEQUAL, { read, at: "all" });
      assertEquals(together.lengths, [6, 1, 4, 7]);
      assertEquals(together.lengths, together.tokens.map(({ length }) => length));
      assertEquals(together.logits.shape, [4, 7, vocabularySize]);
      const last = await model.run(UNEQUAL);
      assertEquals(last.logits.shape, [4, 1, vocabularySize]);
      const ends = await model.run(UNEQUAL.slice(2), { at: [-1, 0, -2] });
      for (const [row, prompt] of UNEQUAL.entries()) {
        const alone = await model.run(prompt, { read, at: "all" });
        const length = alone.lengths[0];
        for (const [name, axes] of model.hooks) {
          const { shape } = together.activations.get(name)!;
          assert(axes.every((axis, at) => !["position", "query", "key"].includes(axis) || shape[at] === 7));
          const { own, behind } = ownPart(together.activations.get(name)!, axes, row, length);
          const expected = [...alone.activations.get(name)!.values];
          const isFinite = (values: number[]) => values.map((value) => Number.isFinite(value) ? value : 0);
          // Measured: 0.
          assertClose(isFinite(own), isFinite(expected), { tolerance: 1e-6, name: `${name}, ${prompt}` });
          assertEquals(own.map(Number.isFinite), expected.map(Number.isFinite), name);
          const nothing = /attn_scores|gate_logits/.test(name) ? -Infinity : 0;
          assert(behind.every((value) => value === nothing), `${name} behind the end of ${prompt}`);
        }
        const ofRow = together.logits.values.slice(row * 7 * vocabularySize, (row + 1) * 7 * vocabularySize);
        const ofOwn = length * vocabularySize;
        const tolerance = 1e-6;
        assertClose(ofRow.slice(0, ofOwn), alone.logits.values, { tolerance, name: `logits of ${prompt}` });
        assert(ofRow.slice(ofOwn).every((value) => value === 0), "no logits behind the end");
        const at = (position: number) =>
          alone.logits.values.slice(position * vocabularySize, (position + 1) * vocabularySize);
        const own = last.logits.values.slice(row * vocabularySize, (row + 1) * vocabularySize);
        assertClose(own, at(length - 1), { tolerance, name: `last logits of ${prompt}` });
        if (row < 2) continue;
        const three = ends.logits.values.slice(
          (row - 2) * 3 * vocabularySize,
          (row - 1) * 3 * vocabularySize,
        );
        const expected = [length - 1, 0, length - 2].flatMap((position) => [...at(position)]);
        assertClose(three, expected, { tolerance, name: `logits from the end of ${prompt}` });
      }
    }
  },
);

gpuTest("prompts of unequal length are patched and hooked as each by itself", async (gpu) => {
  using model = await loadModel(DENSE, { gpu });
  const others = ["50+21=", "7", "4+5=", "12+34=6"];
  const [z, stream, gates] = ["attn.hook_z", "hook_resid_pre", "attn.hook_gates"].map((name) =>
    `blocks.1.${name}`
  );
  const size = model.config.width;
  const values = Float32Array.from({ length: 4 * 7 * size }, (_, n) => Math.sin(n));
  const ofRow = (row: number, length: number) => values.slice(row * 7 * size, (row * 7 + length) * size);
  /** What is replaced in all, and in one by itself. */
  const cases: [name: string, patch: Patch, alone: (row: number, length: number) => Patch][] = [
    ["each one's last", { activation: z, positions: [-1], by: "zero" }, () => ({
      activation: z,
      positions: [-1],
      by: "zero",
    })],
    ["each one's last key", { activation: gates, positions: [-1], keys: [-1], by: "zero" }, (_, length) => ({
      activation: gates,
      positions: [length - 1],
      keys: [length - 1],
      by: "zero",
    })],
    ["others", { activation: z, head: 1, by: { prompts: others } }, (row) => ({
      activation: z,
      head: 1,
      by: { prompts: others[row] },
    })],
    ["values", { activation: stream, by: { values } }, (row, length) => ({
      activation: stream,
      by: { values: ofRow(row, length) },
    })],
    [
      "means over those that reach it",
      { activation: stream, by: { meanOf: [...others, "9+9="] } },
      (_, length) => ({
        activation: stream,
        by: { meanOf: [...others, "9+9="] },
        positions: Array.from({ length }, (_, position) => position),
      }),
    ],
  ];
  const plain = await model.run(UNEQUAL);
  for (const [name, patch, alone] of cases) {
    const { logits, lengths } = await model.run(UNEQUAL, { patch: [patch] });
    assertNotEquals(logits.values, plain.logits.values, name);
    for (const [row, prompt] of UNEQUAL.entries()) {
      const one = await model.run(prompt, { patch: [alone(row, lengths[row])] });
      const own = logits.values.slice(row * 13, (row + 1) * 13);
      assertClose(own, one.logits.values, { tolerance: 1e-6, name: `${name}, ${prompt}` });
    }
  }
  // A mean at a position is over the prompts that have it.
  const reaching = await Promise.all(
    ["50+21=", "12+34=6"].map(async (prompt) =>
      (await model.run(prompt, { read: [stream] })).activations.get(stream)!.values.slice(5 * size, 6 * size)
    ),
  );
  const meanOf = others;
  const { activations } = await model.run("12+34=", {
    patch: [{ activation: stream, by: { meanOf } }],
    read: [stream],
  });
  const mean = reaching[0].map((value, n) => (value + reaching[1][n]) / 2);
  assertClose(activations.get(stream)!.values.slice(5 * size), mean, { tolerance: 1e-6, name: "mean" });
  // What a hook is shown, and what becomes of what it leaves behind a prompt's end.
  const seen: string[] = [];
  const fill = (values: Float32Array, shape: readonly number[]) => {
    seen.push(shape.join());
    assert(
      values.subarray(size * 8, size * 14).every((value) => value === 0),
      "behind the end of the second",
    );
    values.fill(0.5);
  };
  const hooked = await model.run(UNEQUAL, { hooks: { [stream]: fill }, read: [stream] });
  assertEquals(seen, [`4,7,${size}`]);
  const left = hooked.activations.get(stream)!.values;
  assert(left.subarray(size * 7, size * 8).every((value) => value === 0.5));
  assert(left.subarray(size * 8, size * 14).every((value) => value === 0));
  const refused = (options: Parameters<typeof model.run>[1], message: string) =>
    assertRejects(() => model.run(UNEQUAL, options), RangeError, message);
  await refused({ at: [0, 4] }, "prompt 1 has 1 tokens: position 4");
  await refused({ at: [-2] }, "prompt 1 has 1 tokens: position -2");
  await refused({ patch: [{ activation: z, positions: [5], by: "zero" }] }, `of ${z} as prompt 1 has 1: 5`);
  const inOne: Patch = { activation: z, rows: [0], positions: [5], by: "zero" };
  assertNotEquals((await model.run(UNEQUAL, { patch: [inOne] })).logits, plain.logits);
  await refused(
    { patch: [{ activation: z, by: { prompts: [...others.slice(0, 3), "12"] } }] },
    "by another prompt's as the prompt has 7 tokens: 2",
  );
  await refused(
    { patch: [{ activation: z, by: { meanOf: ["12+3"] } }] },
    "at position 4 as its prompts have up to 4",
  );
});

gpuTest(
  "batches of about one size share what is compiled, and nothing is told of rows that are filled up",
  async (gpu) => {
    using model = await loadModel(DENSE, { gpu });
    const prompts = Array.from({ length: 9 }, (_, n) => `${10 + 7 * n}+${20 + n}=`);
    const others = prompts.toReversed();
    const activation = "blocks.1.attn.hook_z";
    const shapes: string[] = [];
    const hooks = {
      "blocks.0.hook_mlp_out": (_: Float32Array, shape: readonly number[]) => void shapes.push(shape.join()),
    };
    const run = (count: number, first = 0) =>
      model.run(prompts.slice(first, first + count), {
        read: [activation],
        patch: [{ activation, head: 1, by: { prompts: others.slice(first, first + count) } }],
        hooks,
      });
    const all = await run(8);
    const held = gpu.allocatedBytes;
    for (const count of [5, 6, 7]) {
      const { logits, activations, tokens, lengths } = await run(count);
      assertEquals([tokens.length, lengths.length], [count, count]);
      assertEquals(logits.shape, [count, 1, 13]);
      assertEquals(logits.values, all.logits.values.slice(0, count * 13));
      const { shape, values } = activations.get(activation)!;
      assertEquals(shape, [count, 6, 4, 16]);
      assertEquals(values, all.activations.get(activation)!.values.slice(0, count * 6 * 64));
    }
    assertEquals(shapes, [8, 5, 6, 7].map((count) => `${count},6,64`));
    assertEquals(gpu.allocatedBytes, held, "nothing was compiled for them");
    const one = await run(1, 4);
    assertClose(all.logits.values.slice(4 * 13, 5 * 13), one.logits.values, {
      tolerance: 1e-6,
      name: "one of them",
    });
    assert(gpu.allocatedBytes > held);
  },
);

gpuTest("activations of other prompts stand in, as text or as tokens", async (gpu) => {
  using model = await loadModel(DENSE, { gpu });
  const [clean, other] = PROMPTS;
  const activation = "blocks.0.hook_resid_pre";
  const by = { prompts: other };
  const { logits } = await model.run(clean, { patch: [{ activation, by }] });
  assertEquals(
    logits,
    (await model.run(other)).logits,
    "what the first layer reads is all there is of a prompt",
  );
  const asTokens = { prompts: [model.tokenizer.encode(other)] };
  assertEquals((await model.run(clean, { patch: [{ activation, by: asTokens }] })).logits, logits);
  const mean = await model.run(clean, { patch: [{ activation, by: { meanOf: [other, other] } }] });
  assertClose(mean.logits.values, logits.values, { tolerance: 1e-5, name: "mean of one" });
  const head = await model.run(clean, {
    patch: [{ activation: "blocks.0.attn.hook_z", head: 1, positions: [5], by }],
  });
  assertNotEquals(head.logits, logits);
});

gpuTest("a loaded model is what circuits are found in", async (gpu) => {
  using model = await loadModel(DENSE, { gpu });
  const { contextLength } = model.config;
  const set = TASKS.addition.generate({ ...model, contextLength, prompts: 4, random: randomStream(1) });
  const engine = await createCircuitEngine(model.gpu, model, { set });
  const { correct } = await engine.baselines();
  engine.destroy();
  assertEquals([...correct], [1, 1, 1, 1]);
});

Deno.test("a model of the hub is not taken for a folder that is missing, and it is told how it is brought", async () => {
  for (const name of ["nobody/nothing", "nothing", "nobody/nothing@main"]) {
    await assertRejects(
      () => loadModel(name),
      UserError,
      `Cannot load ${name} as there is no folder of that name; a model of the Hugging Face hub is brought by fetchModel`,
    );
  }
});

gpuTest("names, prompts and characters that there are not are refused, naming what there is", async (gpu) => {
  using model = await loadModel(DENSE, { gpu });
  const nearest =
    "none is named blocks.0.atn.hook_z (did you mean blocks.0.attn.hook_z?): there are hook_embed, hook_pos_embed, blocks.N.";
  const activation = "blocks.0.atn.hook_z";
  const refused = (prompts: string | string[], options: Parameters<typeof model.run>[1], message: string) =>
    assertRejects(() => model.run(prompts, options), Error, message);
  await refused("12", { read: [activation] }, nearest);
  await refused("12", { patch: [{ activation, by: "zero" }] }, nearest);
  await refused("12", { hooks: { [activation]: () => {} } }, nearest);
  await refused("12", { hooks: { "blocks.0.attn.hook_z": () => new Float32Array(3) } }, "3 values");
  await refused("1 2", {}, 'no token for " "');
  await refused(["12", ""], {}, "at least one token");
  await refused(
    "12",
    { read: ["blocks.4.attn.hook_z"] },
    "named blocks.4.attn.hook_z: the model has layers 0 to 3",
  );
  await refused("123456789", {}, "takes 1 to 8 tokens: 9");
  await refused("", {}, "at least one token");
  await refused([], {}, "at least one token");
  assertEquals((await model.run("12")).tokens, [[1, 2]], "and it goes on");
});

gpuTest(
  "a model frees all that it holds on a device that it was given, whatever was run, and only once",
  async (gpu) => {
    const held = () => ({ bytes: gpu.allocatedBytes, bindGroups: gpu.bindGroups.size });
    const before = held();
    const model = await loadModel(DENSE, { gpu });
    for (const text of ["1", "12", "123", "1234", "12345", "123456"]) await model.run(text, { read: "all" });
    await model.attributeLogits("12", { answer: "3" });
    await model.logitLens("123");
    model.destroy();
    assertEquals(held(), before);
    model[Symbol.dispose]();
    assertEquals(held(), before);
    await assertRejects(() => model.run("1"), RangeError, "was destroyed");
    await gpu.sync();
  },
);

gpuTest("a device that was opened for a model is closed with it", async () => {
  const model = await loadModel(DENSE);
  assertEquals((await model.run("12+34=")).logits.shape, [1, 1, 13]);
  model.destroy();
  assertEquals((await model.gpu.device.lost).reason, "destroyed");
});

gpuTest(
  "a folder that is no model is refused by what is wrong with it, and nothing is left on the device",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const bytes = gpu.allocatedBytes;
    const refused = (options: object, message: string) =>
      assertRejects(() => loadModel(folder.path, { gpu, ...options }), UserError, message);
    await refused({}, "config.json");
    for (const name of ["config.json", "model.safetensors"]) {
      await Deno.copyFile(join(DENSE, name), join(folder.path, name));
    }
    await refused({}, "tokenizer.json");
    await refused({ tokenizer: DATA + "english" }, "it is not the tokenizer that the model was trained with");
    await Deno.truncate(join(folder.path, "model.safetensors"), 1000);
    await refused({ tokenizer: DENSE }, "model.safetensors");
    assertEquals(gpu.allocatedBytes, bytes);
    const long = () => loadModel(DENSE, { gpu, context: 9 });
    await assertRejects(long, RangeError, "positions end at 8");
    assertEquals(gpu.allocatedBytes, bytes);
  },
);

gpuTest(
  "a model destroyed while it runs ends that run first, refuses the next, and leaves others on its device",
  async (gpu) => {
    using other = await loadModel(SPARSE, { gpu });
    const model = await loadModel(SPARSE, { gpu });
    const { logits } = await other.run(PROMPTS);
    let held = 0;
    const hook = () => {
      held = gpu.allocatedBytes;
      model.destroy();
      assertEquals(gpu.allocatedBytes, held, "freed while it runs");
    };
    const run = model.run(PROMPTS, { hooks: { "blocks.0.hook_resid_pre": hook } });
    const queued = model.run(PROMPTS);
    assertEquals((await run).logits, logits);
    await assertRejects(() => queued, RangeError, "as it was destroyed");
    await Promise.resolve();
    assert(gpu.allocatedBytes < held, "freed after it");
    assertEquals((await other.run(PROMPTS)).logits, logits);
  },
);

gpuTest("a run from a hook of the same model's run is refused rather than waited for", async (gpu) => {
  using model = await loadModel(SPARSE, { gpu });
  using other = await loadModel(DENSE, { gpu });
  const name = "blocks.0.hook_resid_pre";
  const inner = { hooks: { [name]: async () => void await model.run(PROMPTS) } };
  await assertRejects(() => model.run(PROMPTS, inner), RangeError, "from a hook of its own run");
  let logits;
  await model.run(PROMPTS, { hooks: { [name]: async () => void ({ logits } = await other.run(PROMPTS)) } });
  assertEquals(logits, (await other.run(PROMPTS)).logits, "another model's run is none of its own");
});

gpuTest(
  "a Llama of 5,000 positions has a network of 1,024, and its turned queries are hooked",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const choices = await choicesOf("llama");
    await writeTinyModel(folder.path, { contextLength: 5000, keyValueHeads: 1, headSize: 6, ...choices });
    using model = await loadModel(folder.path, { gpu });
    assertEquals(model.network.shape.context, 1024);
    const beginning = ["hook_embed", "blocks.0.hook_resid_pre"];
    const { activations } = await model.run("12+34=", { read: beginning });
    assertEquals(activations.get(beginning[0]), activations.get(beginning[1]), "no position is added");
    const patch = beginning.map((activation) => ({ activation, by: "zero" as const }));
    await assertRejects(() => model.run("12+34=", { patch }), RangeError, "Cannot replace both");
    const name = "blocks.1.attn.hook_rot_q";
    const { logits } = await model.run("12+34=");
    const seen: number[][] = [];
    const zeroed = await model.run("12+34=", {
      hooks: {
        [name]: (values, shape) => {
          seen.push([...shape]);
          return values.map(() => 0);
        },
      },
      read: [name],
    });
    assertEquals(seen, [[1, 6, 2, 6]]);
    assert(zeroed.activations.get(name)!.values.every((value) => value === 0));
    assert(zeroed.logits.values.some((value, n) => value !== logits.values[n]));
  },
);
