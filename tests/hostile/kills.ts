/**
 * A run killed at random changes of files, again and again, while another process tries to go on with it and is killed too.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { exists, hashFile } from "../../pipeline/files.ts";
import { readMetrics } from "../../pipeline/runs/metrics.ts";
import { seeded } from "../support/seeded.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { CHANGES } from "../support/holding.ts";
import { ADDITION, type CommandResult, runMain, writeTinyModel } from "../support/tiny_model.ts";

const KILLED = 137;
const REFUSED = 3;
const RIVAL_CHANGES = 2;

/** Everything a run leaves that must not depend on its having been killed. */
export async function outcome(run: string) {
  const rows = (await readMetrics(join(run, "metrics.arrows"))).map(({ seconds: _, ...row }) => row);
  const { seconds: _, ...summary } = JSON.parse(await Deno.readTextFile(join(run, "summary.json")));
  const saved = ["model.safetensors", "adapter_model.safetensors"].map((name) => join(run, "model", name));
  const model = await exists(saved[0]) ? saved[0] : saved[1];
  return { model: await hashFile(model), rows, summary };
}

/** Settings of a run of seconds with everything that a resume has to take up: accumulation, distillation, control. */
// deno-fmt-ignore
export const SMALL_RUN = ["--data", ADDITION.data, "--context", "8", "--batch", "16", "--accumulate", "2",
  "--steps", "20", "--warmup", "5", "--lr", "0.01", "--distill", "0.1", "--eval-every", "7", "--checkpoint-every", "5",
  "--validation-tokens", "512", "--eval-tokens", "512", "--constraint-every", "3", "--slack", "0.5",
  "--lambda-min", "0.05"];

/** How many changes of files a process made, of one that ended by itself. */
function changesOf({ stderr }: CommandResult): number {
  const [, changes] = CHANGES.exec(stderr)!;
  return Number(changes);
}

/** Runs a command that is killed at a change of files. */
const runKilled = (args: string[], change: number): Promise<CommandResult> =>
  runMain(args, { hold: { change, meanwhile: (send) => send("SIGKILL") } });

/**
 * Kills so many processes of runs, and compares each run with one that was never disturbed.
 *
 * @returns kills of the process that trained, of those that tried to resume it beside, and runs that were finished
 */
export async function playKills(
  { kills, seed }: { kills: number; seed: number },
): Promise<{ kills: number; rivals: number; runs: number }> {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  const settings = ["--model", model, ...SMALL_RUN, "--runs", folder.path];
  const whole = await runKilled(["sparsify", ...settings, "--name", "whole"], Number.MAX_SAFE_INTEGER);
  assertEquals(whole.code, 0, whole.stderr);
  // Kills fall anywhere between the first change of a file and the last of a run that nobody disturbs.
  const changes = changesOf(whole);
  const expected = await outcome(join(folder.path, "whole"));
  const random = seeded(seed);
  const killed = join(folder.path, "killed");
  const resume = ["sparsify", "--resume", "killed", "--runs", folder.path];
  const done = { kills: 0, rivals: 0, runs: 0 };
  /** Changes left to the run, were nothing done again. */
  let left = changes;
  for (let process = 0;; process++) {
    assert(process < 10 * kills + 10, "a run comes to its end at last");
    const begun = await Deno.stat(join(killed, "config.json")).then(() => true, () => false);
    const last = done.kills >= kills;
    const change = random.integer(Math.max(1, left));
    const args = begun ? resume : ["sparsify", ...settings, "--name", "killed"];
    const [first, rival] = await Promise.all([
      last ? runMain(args) : runKilled(args, change),
      // One that finds the run taken changes a few files at most.
      begun && !last ? runKilled(resume, random.integer(RIVAL_CHANGES)) : undefined,
    ]);
    left -= change;
    for (const ended of [first, rival]) {
      if (!ended) continue;
      assert([0, KILLED, REFUSED].includes(ended.code), `killed, refused or finished: ${ended.stderr}`);
      if (ended.code === REFUSED) assert(/another process/.test(ended.stderr), ended.stderr);
    }
    if (first.code === KILLED) done.kills++;
    if (rival?.code === KILLED) done.rivals++;
    if (first.code !== 0 && rival?.code !== 0) continue;
    assertEquals(await outcome(killed), expected);
    done.runs++;
    if (last) return done;
    // It finished before the remaining kills: begin again, so that every kill falls into a run.
    await Deno.remove(killed, { recursive: true });
    left = changes;
  }
}
