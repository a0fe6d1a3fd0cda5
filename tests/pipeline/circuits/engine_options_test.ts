/** Names, masks and types at an engine's door, from who does not have types checked. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { createCircuitEngine } from "../../../pipeline/circuits/engine.ts";
import {
  checkAblation,
  checkDirection,
  checkEngineOptions,
  checkMethod,
  edgeNumbers,
  keptEdges,
  keptEdgesOfEach,
} from "../../../pipeline/circuits/engine_options.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { randomModel, randomSet, TINY } from "../../support/circuit_models.ts";
import { gpuTest } from "../../support/gpu.ts";

const SET = { task: "copy", metric: "logit_difference", pairs: [] };
const MASK = "what is kept of the edges must be a Uint8Array of 0 and 1: ";

/** What is refused, and what of the sentence that refuses it tells the fault. */
const REFUSED: [refused: () => unknown, message: string][] = [
  [() => checkEngineOptions(undefined), "the options of an engine must be an object: nothing"],
  [() => checkEngineOptions({ set: SET, ablaton: "zero" }), "ablaton (did you mean ablation?)"],
  [() => checkEngineOptions({ set: SET, steps: 1 }), "steps (there are set, ablation, maxBytes, exchange)"],
  [
    () => checkEngineOptions({}),
    "`set` must be a set of pairs, as a task generates it or promptPairs and readPairs give it: nothing",
  ],
  [() => checkEngineOptions({ set: [] }), "readPairs give it: Array of 0"],
  [
    () => checkEngineOptions({ set: { ...SET, metric: "logit_diff" } }),
    'the set\'s metric must be "logit_difference" or "probability_difference": "logit_diff"',
  ],
  [() => checkEngineOptions({ set: SET, ablation: "Mean" }), '"Mean" (did you mean mean?)'],
  [() => checkEngineOptions({ set: SET, maxBytes: "1e9" }), '`maxBytes` must be a number: "1e9"'],
  [() => checkAblation("resampling"), 'the ablation must be "resample", "mean" or "zero": "resampling"'],
  [() => checkAblation(null), '"mean" or "zero": null'],
  [() => checkAblation("toString"), '"mean" or "zero": "toString"'],
  [() => checkDirection("noise"), 'must be "noising" or "denoising": "noise"'],
  [() => checkMethod("eap"), 'must be { name: "eap" } or { name: "eap-ig", steps }: "eap"'],
  [() => checkMethod({ name: "EAP", steps: 5 }), 'must be "eap" or "eap-ig": "EAP"'],
  [() => checkMethod({ name: "atp" }), 'must be "eap" or "eap-ig": "atp" (did you mean eap?)'],
  [() => checkMethod({ steps: 5 }), 'must be "eap" or "eap-ig": nothing'],
  [
    () => checkMethod({ name: "eap", steps: 5 }),
    "the method eap must have no unknown key: steps (there are name)",
  ],
  [() => checkMethod({ name: "eap-ig", step: 5 }), "step (did you mean steps?)"],
  [() => keptEdges([1, 0, 1], 3), MASK + "Array of 3"],
  [() => keptEdges(new Float32Array(3), 3), MASK + "Float32Array of 3"],
  [() => keptEdges(undefined, 3), MASK + "nothing"],
  [
    () => keptEdgesOfEach(new Uint8Array(3), 3),
    "`circuits` must be an array of Uint8Arrays: Uint8Array of 3",
  ],
  [() => keptEdgesOfEach([new Uint8Array(3), [1, 0, 1]], 3), MASK + "Array of 3"],
  [() => edgeNumbers(3, 4), "`edges` must be an array of their numbers: 3"],
];

Deno.test("names and types that an engine has not are refused by what they must be and what they are", () => {
  for (const [refused, message] of REFUSED) assertThrows(refused, UserError, message);
});

Deno.test("numbers that an engine has not are refused, the first of them named", () => {
  for (
    const [refused, message] of [
      [() => keptEdges(new Uint8Array(2), 3), "the graph has 3 edges: 2"],
      [() => keptEdges(Uint8Array.of(1, 0, 2), 3), "kept by 1 and left out by 0: edge 2 has 2"],
      [() => keptEdgesOfEach([new Uint8Array(3), new Uint8Array(4)], 3), "the graph has 3 edges: 4"],
      [() => edgeNumbers([0, 3], 3), "Cannot patch edge 3 as the graph has 3"],
      [() => edgeNumbers([0.5], 3), "Cannot patch edge 0.5"],
      [() => checkMethod({ name: "eap-ig", steps: "5" }), "a positive integer: 5"],
      [() => checkMethod({ name: "eap-ig" }), "a positive integer: undefined"],
    ] as const
  ) assertThrows(refused, RangeError, message);
});

Deno.test("what the types allow goes through, and masks are copied", () => {
  for (const ablation of ["resample", "mean", "zero"]) {
    checkAblation(ablation);
    checkEngineOptions({ set: { ...SET, leftOut: 3 }, ablation, maxBytes: 1, exchange: undefined });
  }
  for (const direction of ["noising", "denoising"]) checkDirection(direction);
  for (const method of [{ name: "eap" }, { name: "eap-ig", steps: 1 }]) checkMethod(method);
  const kept = Uint8Array.of(1, 0, 1);
  const copied = keptEdges(kept, 3);
  kept.fill(0);
  assertEquals(copied, Uint8Array.of(1, 0, 1));
  assertEquals(keptEdgesOfEach([], 3), []);
  assertEquals(edgeNumbers([2, 0], 3), [2, 0]);
});

gpuTest("an engine looks at what it is made for and asked for before it runs anything", async (gpu) => {
  const model = randomModel(gpu, TINY);
  const set = randomSet(TINY, { pairs: 1, positions: 4 });
  const bytes = gpu.allocatedBytes;
  const named = (text: string) => text as never;
  await assertRejects(
    () => createCircuitEngine(gpu, model, { set, ablation: named("Mean") }),
    UserError,
    "Mean",
  );
  assertEquals(gpu.allocatedBytes, bytes);
  const engine = await createCircuitEngine(gpu, model, { set });
  const kept = new Uint8Array(engine.graph.edges);
  const list = Array.from(kept) as never;
  for (
    const [ask, message] of [
      [() => engine.run(kept, named("resampling")), "resampling"],
      [() => engine.run(list), MASK],
      [() => engine.runEach([list]), MASK],
      [() => engine.attribute({ name: named("EAP") }), '"EAP"'],
      [() => engine.patchNodes(named("noise")), '"noise"'],
      [() => engine.patchEdges(3 as never), "array of their numbers"],
    ] as const
  ) await assertRejects(ask, UserError, message);
  await assertRejects(() => engine.run(kept.fill(2)), RangeError, "edge 0 has 2");
  engine.destroy();
});
