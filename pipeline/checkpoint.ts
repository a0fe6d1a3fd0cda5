/**
 * Checkpoints: one safetensors file each, with the run's state as JSON in its metadata. A file appears under its name
 * only when it is whole and flushed, and its header states its length, so a torn one is told without a digest. (A digest
 * could stand only behind the tensors, which are streamed, and there the format allows nothing.)
 *
 * @module
 */
import { join } from "node:path";
import { inputError, UserError } from "./errors.ts";
import { exists, TEMPORARY } from "./files.ts";
import { openSafetensors, type WritableTensor, writeSafetensors } from "./safetensors.ts";

/** A checkpoint's name, as its file says. */
export interface CheckpointEntry {
  path: string;
  /** `sparse`, `control`, `pretrain`, or one of these with `-best`. */
  phase: string;
  /** Steps done. */
  step: number;
}

/** An open checkpoint. */
export interface Checkpoint extends CheckpointEntry {
  state: Record<string, unknown>;
  /**
   * A tensor's values, to the bit.
   *
   * @throws {UserError} when there is none of this name and shape
   */
  read(name: string, shape: readonly number[]): Promise<Float32Array>;
}

const NAME = /^[a-z-]+-\d{7,}\.safetensors$/;

/**
 * Writes `<phase>-<step>.safetensors` into the folder, one tensor in memory at a time, all as F32.
 *
 * @param tensors whose values are asked for one after the other
 * @returns the file's path
 * @throws {RangeError} when the phase has other characters than lower-case letters and dashes, or the step is no count
 */
export async function saveCheckpoint(
  folder: string,
  { phase, step, state }: { phase: string; step: number; state: Record<string, unknown> },
  tensors: readonly WritableTensor[],
): Promise<string> {
  const name = `${phase}-${String(step).padStart(7, "0")}.safetensors`;
  if (!NAME.test(name)) {
    throw new RangeError(`Cannot save a checkpoint as ${name}: its name must match ${NAME}`);
  }
  const path = join(folder, name);
  const exact = tensors.map((tensor): WritableTensor => ({ ...tensor, type: "F32" }));
  await writeSafetensors(path, exact, { phase, step: String(step), state: JSON.stringify(state) });
  return path;
}

/** Checkpoints of a folder by step, the newest last; files that are torn or are none of ours are listed apart. */
export async function listCheckpoints(
  folder: string,
): Promise<{ checkpoints: CheckpointEntry[]; torn: string[] }> {
  const checkpoints: CheckpointEntry[] = [];
  const torn: string[] = [];
  if (!await exists(folder)) return { checkpoints, torn };
  for await (const { name } of Deno.readDir(folder)) {
    if (!NAME.test(name)) continue;
    const path = join(folder, name);
    try {
      const { phase, step } = await readCheckpoint(path);
      checkpoints.push({ path, phase, step });
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      torn.push(path);
    }
  }
  checkpoints.sort((a, b) => a.step - b.step || (a.path < b.path ? -1 : 1));
  return { checkpoints, torn };
}

/**
 * Opens a checkpoint.
 *
 * @throws {UserError} when the file is torn or is none of ours
 */
export async function readCheckpoint(path: string): Promise<Checkpoint> {
  const file = await openSafetensors(path);
  const { phase, step, state } = file.metadata;
  if (!phase || !/^\d+$/.test(step) || !state) {
    throw inputError(`Cannot resume from ${path} as it is no checkpoint`);
  }
  return {
    path,
    phase,
    step: Number(step),
    state: parseState(state, path),
    async read(name, shape) {
      const entry = file.entries.get(name);
      if (!entry) throw inputError(`Cannot resume from ${path} as tensor ${name} is missing`);
      if (entry.shape.join() !== shape.join()) {
        throw inputError(
          `Cannot resume from ${path} as tensor ${name} must be of shape [${shape.join(", ")}]: [${
            entry.shape.join(", ")
          }]`,
        );
      }
      return await file.read(name);
    },
  };
}

function parseState(json: string, path: string): Record<string, unknown> {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw inputError(`Cannot resume from ${path} as its state is no JSON: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Deletes every checkpoint that is not in `keep`, and what was left half-written. */
export async function pruneCheckpoints(folder: string, keep: ReadonlySet<string>): Promise<void> {
  for await (const { name } of Deno.readDir(folder)) {
    const path = join(folder, name);
    if ((NAME.test(name) && !keep.has(path)) || name.endsWith(TEMPORARY)) await Deno.remove(path);
  }
}
