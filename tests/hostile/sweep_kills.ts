/**
 * A sweep killed again and again, alone or with the runs under way, and begun again each time, beside one that nobody
 * disturbed: both end with the same table.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { tableFromIPC } from "apache-arrow";
import { seeded } from "../support/seeded.ts";
import { killWith } from "../support/kill_with.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { ADDITION, writeTinyModel } from "../support/tiny_model.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
/** Exit codes of a sweep that ended, and of one that was killed. */
const [ENDED, KILLED] = [0, 137];
/** Milliseconds that a sweep goes on before it is killed, at most. */
const LONGEST = 12_000;

function sweep(args: readonly string[]): Deno.ChildProcess {
  return new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--quiet", "--allow-all", `${ROOT}pipeline/sweep/main.ts`, ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1", XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp", HF_HUB_OFFLINE: "1" },
    stdin: "null",
    stdout: "null",
    stderr: "piped",
  }).spawn();
}

async function ended(child: Deno.ChildProcess): Promise<{ code: number; stderr: string }> {
  const [{ code }, stderr] = await Promise.all([child.status, new Response(child.stderr).text()]);
  return { code, stderr };
}

async function tableOf(folder: string): Promise<Record<string, unknown>[]> {
  return tableFromIPC(await Deno.readFile(join(folder, "sweep.arrow"))).toArray().map((row) => row.toJSON());
}

/**
 * Plays a sweep of learning rates by three seeds.
 *
 * @returns kills of the sweep alone, of it with its runs, and runs that had to go on
 */
export async function playSweepKills(
  { kills, seed, rates = [5e-4, 1e-3, 2e-3, 4e-3] }: {
    kills: number;
    seed: number;
    rates?: readonly number[];
  },
): Promise<{ alone: number; withRuns: number; runs: number }> {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  await writeTinyModel(join(path, "model"));
  const file = join(path, "kills.json");
  const settings = {
    model: join(path, "model"),
    data: [ADDITION.data],
    steps: 40,
    batch: 8,
    context: 8,
    control: false,
    evalTokens: 128,
    validationTokens: 128,
    evalEvery: 10,
    checkpointEvery: 3,
    autotune: false,
  };
  await Deno.writeTextFile(
    file,
    JSON.stringify({ settings, grid: { lr: rates }, seeds: [1, 2, 3] }),
  );
  const whole = await ended(sweep([file, "--runs", join(path, "whole"), "--quiet"]));
  assertEquals(whole.code, ENDED, whole.stderr);
  const expected = await tableOf(join(path, "whole/kills"));
  assertEquals(
    expected.map(({ status }) => status),
    Array.from({ length: 3 * rates.length }, () => "finished"),
  );

  const random = seeded(seed);
  const runs = join(path, "killed");
  const done = { alone: 0, withRuns: 0, runs: expected.length };
  for (let kill = 0; kill < kills; kill++) {
    const child = sweep([file, "--runs", runs]);
    const told = ended(child);
    await new Promise((resolve) => setTimeout(resolve, random.integer(LONGEST)));
    // Of a sweep that is killed alone the run goes on, and the next sweep finds it held.
    const alone = random.integer(2) === 0;
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    if (!alone) await killWith(runs);
    const { code, stderr } = await told;
    assert(code === KILLED || code === ENDED, stderr);
    if (code === KILLED) done[alone ? "alone" : "withRuns"]++;
  }
  const last = await ended(sweep([file, "--runs", runs, "--quiet"]));
  assertEquals(last.code, ENDED, last.stderr);
  assertEquals(await tableOf(join(runs, "kills")), expected);
  return done;
}
