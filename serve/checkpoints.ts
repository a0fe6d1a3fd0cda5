/**
 * The checkpoints of a run, as far as they are its own whole files.
 *
 * @module
 */
import { join } from "node:path";
import { readCheckpoint } from "../pipeline/runs/checkpoint.ts";
import { checkHeaderLength, isOwn, ownInfo } from "./own_files.ts";

/** A checkpoint and its file. */
export interface OwnCheckpoint {
  path: string;
  file: string;
  phase: string;
  step: number;
  bytes: number;
  /** ISO 8601. */
  written: string;
}

const NAME = /^[a-z-]+-(\d{7,15})\.safetensors$/;
/** A run keeps a handful: of a folder with more, the newest are looked at. */
const MOST_CHECKPOINTS = 64;
/** Entries of a folder that are looked through. */
const MOST_ENTRIES = 100_000;

/** Checkpoints of a folder by step, the newest last; links, pipes and files that are torn are listed apart. */
export async function ownCheckpoints(
  folder: string,
): Promise<{ checkpoints: OwnCheckpoint[]; torn: string[] }> {
  const found: { file: string; step: number }[] = [];
  if (await isOwn(folder, "isDirectory")) {
    let entries = 0;
    for await (const { name } of Deno.readDir(folder)) {
      if (++entries > MOST_ENTRIES) break;
      const [, step] = NAME.exec(name) ?? [];
      if (step !== undefined) found.push({ file: name, step: Number(step) });
    }
  }
  const byStep = (a: { file: string; step: number }, b: { file: string; step: number }): number =>
    a.step - b.step || (a.file < b.file ? -1 : 1);
  const checkpoints: OwnCheckpoint[] = [];
  const torn: string[] = [];
  for (const { file } of found.sort(byStep).slice(-MOST_CHECKPOINTS)) {
    const path = join(folder, file);
    try {
      const info = await ownInfo(path);
      // It may be pruned between being listed and being looked at.
      if (!info) continue;
      if (!info.isFile) torn.push(file);
      else {
        await checkHeaderLength(path);
        const { phase, step } = await readCheckpoint(path);
        checkpoints.push({
          path,
          file,
          phase,
          step,
          bytes: info.size,
          written: info.mtime?.toISOString() ?? "",
        });
      }
    } catch {
      torn.push(file);
    }
  }
  return { checkpoints: checkpoints.sort(byStep), torn };
}
