import { assertEquals, assertRejects } from "@std/assert";
import {
  listCheckpoints,
  pruneCheckpoints,
  readCheckpoint,
  saveCheckpoint,
} from "../../../pipeline/runs/checkpoint.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { writeSafetensors } from "../../../pipeline/model/safetensors.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const weight = (...values: number[]) => ({
  name: "weight",
  shape: [values.length],
  read: () => Promise.resolve(new Float32Array(values)),
});

const namesIn = async (folder: string) =>
  (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort();

Deno.test("a checkpoint gives back its step, phase, state and every bit of its tensors", async () => {
  await using folder = await temporaryFolder();
  const bits = Uint32Array.of(0x7fc12345, 0x80000000, 1, 0x3dcccccd);
  const state = { best: { step: 3, ce: 0.1 }, text: 'a "quoted" é\n', nothing: null };
  const path = await saveCheckpoint(folder.path, { phase: "sparse", step: 42, state }, [
    {
      name: "weight.a",
      shape: [2, 2],
      type: "F16",
      read: () => Promise.resolve(new Float32Array(bits.buffer)),
    },
    { name: "multiplier", shape: [1], read: () => Promise.resolve(new Float32Array([0.1])) },
  ]);
  assertEquals(path, `${folder.path}/sparse-0000042.safetensors`);
  const checkpoint = await readCheckpoint(path);
  assertEquals([checkpoint.phase, checkpoint.step, checkpoint.state], ["sparse", 42, state]);
  assertEquals(new Uint32Array((await checkpoint.read("weight.a", [2, 2])).buffer), bits);
  assertEquals(await checkpoint.read("multiplier", [1]), new Float32Array([0.1]));
});

Deno.test("a tensor that the checkpoint lacks, or has in another shape, is named", async () => {
  await using folder = await temporaryFolder();
  const path = await saveCheckpoint(folder.path, { phase: "sparse", step: 1, state: {} }, [weight(1, 2)]);
  const checkpoint = await readCheckpoint(path);
  const refused = (name: string, shape: number[], message: string) =>
    assertRejects(() => checkpoint.read(name, shape), UserError, message);
  await refused("bias", [2], `Cannot resume from ${path} as tensor bias is missing`);
  await refused("weight", [3], `Cannot resume from ${path} as tensor weight must be of shape [3]: [2]`);
  await refused("weight", [2, 1], `Cannot resume from ${path} as tensor weight must be of shape [2, 1]: [2]`);
});

Deno.test("checkpoints are listed by step, the newest last, and torn ones apart", async () => {
  await using folder = await temporaryFolder();
  const save = (phase: string, step: number) =>
    saveCheckpoint(folder.path, { phase, step, state: {} }, [weight(step)]);
  for (const step of [9, 10_000_000, 200, 1]) await save("sparse", step);
  await save("control", 200);
  await save("sparse-best", 9);
  const cut = await save("sparse", 300);
  await Deno.truncate(cut, (await Deno.stat(cut)).size - 1);
  const empty = `${folder.path}/sparse-0000400.safetensors`;
  await Deno.writeTextFile(empty, "");
  await Deno.writeTextFile(`${folder.path}/sparse-0000500.safetensors.partial`, "half");
  await Deno.writeTextFile(`${folder.path}/note.txt`, "not ours");
  const { checkpoints, torn } = await listCheckpoints(folder.path);
  assertEquals(checkpoints.map(({ phase, step }) => `${phase} ${step}`), [
    "sparse 1",
    "sparse 9",
    "sparse-best 9",
    "control 200",
    "sparse 200",
    "sparse 10000000",
  ]);
  assertEquals(checkpoints[0].path, `${folder.path}/sparse-0000001.safetensors`);
  assertEquals(torn.map(({ path }) => path).sort(), [cut, empty]);
});

Deno.test("a folder that is not there has no checkpoints", async () => {
  await using folder = await temporaryFolder();
  assertEquals(await listCheckpoints(`${folder.path}/none`), { checkpoints: [], torn: [] });
});

/** Metadata of a safetensors file that is no checkpoint, and the error after its path. */
const FOREIGN: [what: string, metadata: Record<string, string>, message: string][] = [
  ["without metadata", {}, "Cannot resume from PATH as it is no checkpoint"],
  ["without a state", { phase: "sparse", step: "1" }, "Cannot resume from PATH as it is no checkpoint"],
  [
    "whose step is no number",
    { phase: "sparse", step: "one", state: "{}" },
    "Cannot resume from PATH as it is no checkpoint",
  ],
  ["whose state is null", { phase: "sparse", step: "1", state: "null" }, "its state must be a JSON object"],
  [
    "of another step",
    { phase: "sparse", step: "2", state: "{}" },
    "the checkpoint of sparse at step 2, renamed",
  ],
  [
    "whose state is no JSON",
    { phase: "sparse", step: "1", state: "{" },
    "Cannot read the state in PATH as it is no JSON",
  ],
];

for (const [what, metadata, message] of FOREIGN) {
  Deno.test(`a safetensors file ${what} is no checkpoint, and is listed apart`, async () => {
    await using folder = await temporaryFolder();
    const path = `${folder.path}/sparse-0000001.safetensors`;
    await writeSafetensors(path, [weight(1)], metadata);
    await assertRejects(() => readCheckpoint(path), UserError, message.replace("PATH", path));
    const { checkpoints, torn } = await listCheckpoints(folder.path);
    assertEquals([checkpoints.length, torn.map(({ path }) => path)], [0, [path]]);
  });
}

Deno.test("a save that is broken off leaves nothing under any name, and older checkpoints whole", async () => {
  await using folder = await temporaryFolder();
  const older = await saveCheckpoint(folder.path, { phase: "sparse", step: 1, state: {} }, [weight(1)]);
  const killed = { name: "killed", shape: [1], read: () => Promise.reject(new Error("killed")) };
  for (const step of [1, 2]) {
    await assertRejects(
      () => saveCheckpoint(folder.path, { phase: "sparse", step, state: {} }, [weight(2), killed]),
      Error,
      "killed",
    );
  }
  assertEquals(await namesIn(folder.path), ["sparse-0000001.safetensors"]);
  assertEquals(await (await readCheckpoint(older)).read("weight", [1]), new Float32Array([1]));
});

Deno.test("a name under which a checkpoint would not be found again is refused", async () => {
  await using folder = await temporaryFolder();
  for (
    const [phase, step] of [["../sparse", 1], ["", 1], ["sparse", -1], ["sparse", 1.5], [
      "sparse",
      NaN,
    ]] as const
  ) {
    await assertRejects(
      () => saveCheckpoint(folder.path, { phase, step, state: {} }, [weight(1)]),
      RangeError,
      "Cannot save a checkpoint as ",
    );
  }
  assertEquals(await namesIn(folder.path), []);
});

Deno.test("pruning keeps what it is told to and what is none of ours, and deletes checkpoints and half ones", async () => {
  await using folder = await temporaryFolder();
  const save = (step: number) =>
    saveCheckpoint(folder.path, { phase: "sparse", step, state: {} }, [weight(step)]);
  const [, second, third] = [await save(1), await save(2), await save(3)];
  await Deno.writeTextFile(`${folder.path}/sparse-0000004.safetensors`, "torn");
  await Deno.writeTextFile(`${folder.path}/sparse-0000005.safetensors.partial`, "half");
  await Deno.writeTextFile(`${folder.path}/note.txt`, "not ours");
  await Deno.writeTextFile(`${folder.path}/thesis.partial`, "not ours");
  await pruneCheckpoints(folder.path, new Set([second, third]));
  assertEquals(await namesIn(folder.path), [
    "note.txt",
    "sparse-0000002.safetensors",
    "sparse-0000003.safetensors",
    "sparse-0000004.safetensors",
    "thesis.partial",
  ]);
});
