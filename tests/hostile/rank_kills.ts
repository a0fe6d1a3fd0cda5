/**
 * A run of several ranks of which any is killed at random moments, again and again.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { type Mpirun, type RunningRanks, runRanks } from "../support/mpirun.ts";
import { seeded } from "../support/seeded.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { writeTinyModel } from "../support/tiny_model.ts";
import { outcome, SMALL_RUN } from "./kills.ts";

/** Milliseconds between two looks at how far a run is. */
const LOOK_MS = 20;

/** Resolves when `there` holds or the ranks have ended. */
export async function untilIn(ranks: RunningRanks, there: () => boolean | Promise<boolean>): Promise<void> {
  while (!ranks.ended && !await there()) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
}

/** Whether a file is there. */
export const isThere = (path: string): Promise<boolean> => Deno.stat(path).then(() => true, () => false);

/**
 * Kills a rank so many times, goes on after each, and compares the run with one that was never disturbed.
 *
 * @returns kills that met a run under way, and runs that were finished
 */
export async function playRankKills(
  mpirun: Mpirun,
  { kills, size, seed }: { kills: number; size: number; seed: number },
): Promise<{ kills: number; runs: number }> {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  const settings = ["--model", model, ...SMALL_RUN, "--no-autotune", "--runs", folder.path];
  const mark = folder.path;
  const whole = await runRanks(mpirun, size, ["sparsify", ...settings, "--name", "whole"], { mark });
  assertEquals(whole.code, 0, whole.stderr);
  const expected = await outcome(join(folder.path, "whole"));
  const random = seeded(seed);
  const run = join(folder.path, "killed");
  const resume = ["sparsify", "--resume", "killed", "--runs", folder.path];
  const done = { kills: 0, runs: 0 };
  for (let start = 0;; start++) {
    assert(start < 4 * kills + 8, "a run comes to its end at last");
    const begun = await isThere(join(run, "config.json"));
    const args = begun ? resume : ["sparsify", ...settings, "--name", "killed"];
    const last = done.kills >= kills;
    const rank = random.integer(size);
    // Between the run's beginning and some steps later.
    const delay = random.integer(4000);
    const { code, stderr } = await runRanks(mpirun, size, args, {
      mark,
      async meanwhile(ranks) {
        if (last) return;
        await untilIn(ranks, () => isThere(join(run, "state.json")));
        await new Promise((resolve) => setTimeout(resolve, delay));
        if (ranks.ended) return;
        await ranks.send("SIGKILL", rank).then(() => done.kills++, () => {});
      },
    });
    if (code !== 0) {
      assert(!last, stderr);
      continue;
    }
    assertEquals(await outcome(run), expected);
    done.runs++;
    if (last) return done;
    await Deno.remove(run, { recursive: true });
  }
}
