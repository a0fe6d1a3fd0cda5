/** Whole runs whose layers are divided among ranks, in one process: the bits of a run whose layers are not. */
import { assertEquals } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import type { SparsifySettings } from "../../../pipeline/settings.ts";
import { gpuTest } from "../../support/gpu.ts";
import { bitsOf, type Left, play } from "../../support/played_ranks.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const SETTINGS = { steps: 20 };

/** Everything that a run leaves but the time. */
function leftBy(left: Left) {
  const { seconds: _, ...summary } = left.summary!;
  return { rows: bitsOf(left), weights: left.weights, summary };
}

/** A run by so many ranks, with nothing else new but what is given. */
async function left(gpu: Gpu, ranks: number, settings: Partial<SparsifySettings>, runs: string) {
  const played = await play(gpu, ranks, { runs, settings: { ...SETTINGS, ...settings } });
  assertEquals(played.finished, Array.from({ length: ranks }, () => true));
  return leftBy(played);
}

for (
  const [what, others] of [
    ["a run", {}],
    ["one that computes activations anew", { recompute: true, distill: 0 }],
    ["one with a control as the yardstick", { control: true, targetLoss: "control" }],
    ["one with a front of targets", { front: true, frontSlack: 0.1 }],
  ] as const
) {
  gpuTest(`${what} in two stages has the bits of one rank, in two pipelines those of two`, async (gpu) => {
    await using folder = await temporaryFolder();
    const one = await left(gpu, 1, others, `${folder.path}/one`);
    assertEquals(one.rows.length, SETTINGS.steps * ("control" in others ? 2 : 1));
    assertEquals(await left(gpu, 2, { ...others, stages: 2 }, `${folder.path}/staged`), one);
    const two = await left(gpu, 2, others, `${folder.path}/two`);
    assertEquals(await left(gpu, 4, { ...others, stages: 2 }, `${folder.path}/both`), two);
  });
}

gpuTest("a run that is stopped goes on with other stages, or none, to the same bits", async (gpu) => {
  await using folder = await temporaryFolder();
  const whole = leftBy(await play(gpu, 1, { runs: `${folder.path}/whole`, settings: SETTINGS }));
  for (const [first, then] of [[1, 2], [2, 1]]) {
    const runs = `${folder.path}/${first}`;
    const stopped = await play(gpu, first, {
      runs,
      settings: { ...SETTINGS, stages: first },
      step: 9,
      stopAfter: { rank: first - 1, step: 9 },
    });
    assertEquals(stopped.finished, Array.from({ length: first }, () => false));
    const settings = { ...SETTINGS, stages: then };
    assertEquals(leftBy(await play(gpu, then, { runs, settings, goesOnIn: stopped.folder })), whole);
  }
});

gpuTest(
  "pipelines whose ranks keep the moments of their share alone have the same bits, also where they went on",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const two = await left(gpu, 2, {}, `${folder.path}/two`);
    const divided = { ...SETTINGS, stages: 2, shardOptimizer: true };
    assertEquals(await left(gpu, 4, divided, `${folder.path}/divided`), two);
    const runs = `${folder.path}/stopped`;
    const stopAfter = { rank: 3, step: 9 };
    const stopped = await play(gpu, 4, { runs, settings: divided, step: 9, stopAfter });
    const gone = await play(gpu, 4, { runs, settings: divided, goesOnIn: stopped.folder });
    assertEquals(leftBy(gone), two);
  },
);
