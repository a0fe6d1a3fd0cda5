/**
 * Disks that fill up while a run writes: each size stops it at another write, and the run that is resumed with more room
 * must end as one that never was stopped. Needs the right to mount a file system of a given size in memory.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { additionExamples, runMain, writeTinyModel } from "../support/tiny_model.ts";
import { outcome } from "./kills.ts";

// deno-fmt-ignore
const SETTINGS = ["--context", "8", "--batch", "16", "--steps", "6", "--warmup", "0",
  "--lr", "0.01", "--eval-every", "3", "--checkpoint-every", "2", "--validation-tokens", "128", "--eval-tokens", "128",
  "--slack", "5", "--no-autotune"];

async function command(name: string, ...args: string[]): Promise<boolean> {
  return (await new Deno.Command(name, { args, stdout: "null", stderr: "null" }).output()).success;
}

/** Whether disks of a given size can be made here. */
export async function canMount(): Promise<boolean> {
  if (Deno.build.os !== "linux") return false;
  await using folder = await temporaryFolder();
  if (!await command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder.path).catch(() => false)) {
    return false;
  }
  return await command("umount", folder.path);
}

/** What came of it. */
export interface DisksPlayed {
  /** Disks that were too small, and those that were not. */
  full: number;
  roomy: number;
  /** What could not be written, by file name: what was full when. */
  at: Map<string, number>;
  /** How many runs could be resumed, and how many had not begun. */
  resumed: number;
  begunAnew: number;
}

/**
 * Plays a run on disks of these sizes.
 *
 * @param sizes KiB
 */
export async function playDisks(sizes: readonly number[]): Promise<DisksPlayed> {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  const disk = join(folder.path, "disk");
  await Deno.mkdir(disk);
  const data = join(folder.path, "examples.jsonl");
  await Deno.writeTextFile(data, await additionExamples(300));
  const settings = ["sparsify", "--model", model, "--data", data, ...SETTINGS];
  const whole = await runMain([...settings, "--runs", folder.path, "--name", "whole"]);
  assertEquals(whole.code, 0, whole.stderr);
  const expected = await outcome(join(folder.path, "whole"));
  const played: DisksPlayed = { full: 0, roomy: 0, at: new Map(), resumed: 0, begunAnew: 0 };
  for (const size of sizes) {
    assert(await command("mount", "-t", "tmpfs", "-o", `size=${size}k`, "tmpfs", disk));
    try {
      const first = await runMain([...settings, "--runs", disk, "--name", "run"]);
      if (first.code === 0) played.roomy++;
      else {
        played.full++;
        const errors = first.stderr.split("\n").filter((line) => line.startsWith("error: Cannot"));
        assertEquals([first.code, errors.length], [5, 1], `${size} KiB: ${first.stderr}`);
        const [, path] = /Cannot write (\S+) as the disk is full: make room on it/.exec(errors[0]) ?? [];
        assert(path, errors[0]);
        const what = path.replace(disk, "").replace(/\d{7}/, "N");
        played.at.set(what, (played.at.get(what) ?? 0) + 1);
        assert(await command("mount", "-o", "remount,size=64m", disk));
        const begun = await Deno.stat(join(disk, "run", "config.json")).then(() => true, () => false);
        if (begun) {
          assert(errors[0].endsWith(`; go on by deno task sparsify --resume run --runs ${disk}`), errors[0]);
          played.resumed++;
        } else played.begunAnew++;
        const args = begun ? ["sparsify", "--resume", "run"] : [...settings, "--name", "run"];
        const second = await runMain([...args, "--runs", disk]);
        assertEquals(second.code, 0, `${size} KiB, ${begun ? "resumed" : "begun anew"}: ${second.stderr}`);
      }
      assertEquals(await outcome(join(disk, "run")), expected, `${size} KiB`);
      for await (const { name } of Deno.readDir(join(disk, "run"))) {
        assert(!name.endsWith(".partial"), `${size} KiB: ${name} is left`);
      }
    } finally {
      await command("umount", disk);
    }
  }
  return played;
}
