/** What a model is to run, from who does not have types checked. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { UserError } from "../../pipeline/errors.ts";
import { generate } from "../../pipeline/generation/generate.ts";
import { loadModel } from "../../pipeline/load_model.ts";
import { checkGivenBack, checkRun } from "../../pipeline/run_options.ts";
import { gpuTest } from "../support/gpu.ts";

const FOLDER = new URL("../../data/addition", import.meta.url).pathname;
const activation = "blocks.0.attn.hook_z";
const by = "zero";
const BY = 'must be "zero", { values }, { prompts } or { meanOf }: ';

/** Options, and what of the sentence that refuses them tells the fault. */
const REFUSED: [options: unknown, message: string][] = [
  [null, "the options of a run must be an object: null"],
  [{ patches: [] }, "no unknown key: patches (did you mean patch?)"],
  [{ patch: { activation, by } }, "`patch` must be an array: Object { activation, by }"],
  [{ patch: [null] }, "patch[0] must be an object: null"],
  [{ patch: [{ activation, by }, { by }] }, "`activation` of patch[1] must be an activation's name: nothing"],
  [{ patch: [{ activation, by, position: [3] }] }, "no unknown key: position (did you mean positions?)"],
  [{ patch: [{ activation }] }, `\`by\` of patch[0] ${BY}nothing`],
  [{ patch: [{ activation, by: "mean" }] }, `${BY}"mean"`],
  [{ patch: [{ activation, by: {} }] }, `${BY}Object`],
  [{ patch: [{ activation, by: { prompts: "1", meanOf: ["1"] } }] }, `${BY}Object { prompts, meanOf }`],
  [{ patch: [{ activation, by: { values: new Float64Array(2) } }] }, "a Float32Array: Float64Array of 2"],
  [
    { patch: [{ activation, by: { values: [0, 0] } }] },
    "`values` of patch[0] must be a Float32Array: Array of 2",
  ],
  [
    { patch: [{ activation, by: { prompts: 3 } }] },
    "`prompts` of patch[0] must be a text, an array of tokens",
  ],
  [{ patch: [{ activation, by: { meanOf: "12" } }] }, "`meanOf` of patch[0] must be an array of texts"],
  [{ patch: [{ activation, by, positions: 3 }] }, "`positions` of patch[0] must be an array of positions: 3"],
  [{ patch: [{ activation, by, keys: "3" }] }, '`keys` of patch[0] must be an array of positions: "3"'],
  [{ patch: [{ activation, by, rows: 1 }] }, "`rows` of patch[0] must be an array of places in the batch: 1"],
  [{ patch: [{ activation, by, head: "1" }] }, '`head` of patch[0] must be a whole number: "1"'],
  [{ patch: [{ activation, by, head: 1.5 }] }, "`head` of patch[0] must be a whole number: 1.5"],
  [{ read: activation }, `\`read\` must be "all" or an array of activations' names: "${activation}"`],
  [{ at: 3 }, '`at` must be "all" or an array of positions: 3'],
  [{ hooks: [activation] }, "`hooks` must be an object of functions by activations' names: Array of 1"],
  [{ hooks: { [activation]: 3 } }, `the hook of ${activation} must be a function: 3`],
];

Deno.test("options of a run that are of another type are refused by what they must be and what they are", () => {
  for (const [options, message] of REFUSED) assertThrows(() => checkRun("12", options), UserError, message);
  for (const prompts of [undefined, 3, {}, [null], [["1"]], ["12", 3]]) {
    assertThrows(() => checkRun(prompts, {}), UserError, "prompts must be a text, an array of tokens");
  }
  assertThrows(
    () => checkGivenBack(activation, [1, 2]),
    UserError,
    "gives back must be a Float32Array: Array of 2",
  );
});

Deno.test("whatever the types allow goes through", () => {
  const values = new Float32Array(4);
  const patch = [
    { activation, by },
    { activation, head: 0, positions: [1], keys: [], by: { values, shape: [4] } },
    { activation, positions: Uint32Array.of(1), by: { prompts: "12" } },
    { activation, head: undefined, by: { prompts: [[1, 2]] } },
    { activation, by: { meanOf: ["12", [1, 2]] } },
  ];
  for (const prompts of ["", "12", [], [1, 2], Uint32Array.of(1, 2), ["12", [1, 2]]]) {
    checkRun(prompts, { patch, read: "all", at: "all", hooks: { [activation]: () => {} } });
    checkRun(prompts, { read: [activation], at: [0], hooks: {} });
    checkRun(prompts, {});
  }
  for (const given of [undefined, values]) checkGivenBack(activation, given);
});

gpuTest("a model refuses what is of another type, whoever calls it, and goes on", async (gpu) => {
  using model = await loadModel(FOLDER, { gpu });
  /** As who does not have types checked. */
  const run: (...given: never[]) => Promise<unknown> = model.run;
  const call = (...given: unknown[]) => run(...given as never[]);
  await assertRejects(() => call("12", { patch: [{ activation }] }), UserError, BY);
  await assertRejects(() => call(3), UserError, "prompts must be");
  const asArray = { hooks: { [activation]: (values: Float32Array) => [...values] } };
  await assertRejects(() => call("12", asArray), UserError, "gives back must be a Float32Array: Array of");
  assertEquals((await model.run("12")).tokens, [[1, 2]]);
  await gpu.sync();
});

/** Options of loading, and of a continuation, and what of the sentence that refuses them tells the fault. */
const REFUSED_TO_LOAD: [options: unknown, message: string][] = [
  [{ Dense: true }, "options of loading must have no unknown key: Dense (did you mean dense?)"],
  [{ device: "cuda" }, "unknown key: device (there are gpu, adapter, tokenizer, adapterFolder, dense,"],
  [{ dense: "no" }, '`dense` must be true or false: "no"'],
  [{ context: "8" }, '`context` must be a whole number: "8"'],
  [null, "the options of loading must be an object: null"],
];
const REFUSED_TO_GENERATE: [options: unknown, message: string][] = [
  [
    { temprature: 5 },
    "options of a continuation must have no unknown key: temprature (did you mean temperature?)",
  ],
  [{ temperature: "1" }, '`temperature` must be a number: "1"'],
  [{ signal: {} }, "`signal` must be an AbortSignal: Object {  }"],
  [{ steer: { activation } }, "`steer` must be an array: Object { activation }"],
  [{ steer: [{ activation, values: 1 }] }, "steer[0] must have no unknown key: values"],
  [{ steer: [{ activation, add: [1] }] }, "`add` of steer[0] must be a Float32Array: Array of 1"],
  [
    { steer: [{ add: new Float32Array(1) }] },
    "`activation` of steer[0] must be an activation's name: nothing",
  ],
];

gpuTest("loading and continuing refuse options that there are not, before they do anything", async (gpu) => {
  const load = (options: unknown) => () => loadModel("nowhere", options as object);
  for (const [options, message] of REFUSED_TO_LOAD) {
    await assertRejects(load(options), UserError, message);
  }
  using model = await loadModel(FOLDER, { gpu, adapter: undefined, dense: false });
  const before = gpu.allocatedBytes;
  for (const [options, message] of REFUSED_TO_GENERATE) {
    await assertRejects(() => generate(model, "12+34=", options as object), UserError, message);
  }
  assertEquals(gpu.allocatedBytes, before);
  const signal = new AbortController().signal;
  const { text } = await generate(model, "12+34=", { tokens: 2, seed: 3, steer: [], signal });
  assertEquals(text, "64");
});
