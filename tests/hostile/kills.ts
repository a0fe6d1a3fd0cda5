/**
 * A run killed at random moments, again and again, while another process tries to go on with it and is killed too.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { hashFile } from "../../pipeline/files.ts";
import { readMetrics } from "../../pipeline/metrics.ts";
import { seeded } from "../support/seeded.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { ADDITION, runMain, writeTinyModel } from "../support/tiny_model.ts";

const KILLED = 137;
const REFUSED = 3;

/** Everything a run leaves that must not depend on its having been killed. */
export async function outcome(run: string) {
  const rows = (await readMetrics(join(run, "metrics.arrows"))).map(({ seconds: _, ...row }) => row);
  const { seconds: _, ...summary } = JSON.parse(await Deno.readTextFile(join(run, "summary.json")));
  return { model: await hashFile(join(run, "model", "model.safetensors")), rows, summary };
}

/** Settings of a run of seconds with everything that a resume has to take up: accumulation, distillation, control. */
// deno-fmt-ignore
export const SMALL_RUN = ["--data", ADDITION.data, "--context", "8", "--batch", "16", "--accumulate", "2",
  "--steps", "60", "--warmup", "5", "--lr", "0.01", "--distill", "0.1", "--eval-every", "7", "--checkpoint-every", "5",
  "--validation-tokens", "512", "--eval-tokens", "512", "--constraint-every", "3", "--slack", "0.5",
  "--lambda-min", "0.05"];

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
  const started = performance.now();
  const whole = await runMain(["sparsify", ...settings, "--name", "whole"]);
  // Kills fall anywhere between the start of a process and the end of a run that nobody disturbs.
  const duration = performance.now() - started;
  assertEquals(whole.code, 0, whole.stderr);
  const expected = await outcome(join(folder.path, "whole"));
  const random = seeded(seed);
  const killed = join(folder.path, "killed");
  const resume = ["sparsify", "--resume", "killed", "--runs", folder.path];
  const done = { kills: 0, rivals: 0, runs: 0 };
  for (let process = 0;; process++) {
    assert(process < 10 * kills + 10, "a run comes to its end at last");
    const begun = await Deno.stat(join(killed, "config.json")).then(() => true, () => false);
    const last = done.kills >= kills;
    const [first, rival] = await Promise.all([
      runMain(begun ? resume : ["sparsify", ...settings, "--name", "killed"], {
        killAfter: last ? undefined : random.integer(Math.ceil(duration)),
      }),
      begun && !last ? runMain(resume, { killAfter: random.integer(Math.ceil(duration)) }) : undefined,
    ]);
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
  }
}
