/** What a model is to run, from who does not have types checked. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { UserError } from "../../pipeline/errors.ts";
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
