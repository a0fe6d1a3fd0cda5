/**
 * Checkpoints: one safetensors file each, with the run's state as JSON in its metadata. A file appears under its name
 * only when it is whole and flushed; the checksums in its header tell when it is damaged later.
 *
 * @module
 */
import { basename, join } from "node:path";
import { inputError, UserError } from "../errors.ts";
import { exists, isObject, parseJson, storing, TEMPORARY } from "../files.ts";
import { openSafetensors, type WritableTensor, writeSafetensors } from "../model/safetensors.ts";

/** A checkpoint's name, as its file says. */
export interface CheckpointEntry {
  /** Its file. */
  path: string;
  /** `sparse`, `control`, `pretrain`, or one of these with `-best`. */
  phase: string;
  /** Steps done. */
  step: number;
}

/** An open checkpoint. */
export interface Checkpoint extends CheckpointEntry {
  /** What was saved beside the tensors. */
  state: Record<string, unknown>;
  /** Id of the run that saved it. */
  run: string;
  /** Whether it holds a tensor: of a run that trains a part of its model only that part's. */
  has(name: string): boolean;
  /**
   * A tensor's values, to the bit.
   *
   * @throws {UserError} when there is none of this name and shape, or it is damaged
   */
  read(name: string, shape: readonly number[]): Promise<Float32Array>;
  /**
   * Compares every tensor with its checksum.
   *
   * @throws {UserError} naming the first that is damaged
   */
  verify(): Promise<void>;
}

const NAME = /^(pretrain|sparse|control)(-best)?-\d{7,}\.safetensors$/;

function nameOf({ phase, step }: Pick<CheckpointEntry, "phase" | "step">): string {
  return `${phase}-${String(step).padStart(7, "0")}.safetensors`;
}

/** Where the checkpoint of a phase's step lies. */
export function checkpointPath(folder: string, of: Pick<CheckpointEntry, "phase" | "step">): string {
  return join(folder, nameOf(of));
}

/** The phase that a checkpoint's name tells, whatever it holds. */
export function phaseInName(path: string): string {
  return basename(path).replace(/-\d+\.safetensors$/, "");
}

/**
 * Writes `<phase>-<step>.safetensors` into the folder, some tensors in memory at a time, all as F32.
 *
 * @param tensors whose values are asked for in their order, those of the next before the last have come
 * @returns the file's path
 * @throws {RangeError} when the phase is none of a run, or the step is no count
 */
export async function saveCheckpoint(
  folder: string,
  { phase, step, state, run = "" }: {
    phase: string;
    step: number;
    state: Record<string, unknown>;
    run?: string;
  },
  tensors: readonly WritableTensor[],
): Promise<string> {
  const name = nameOf({ phase, step });
  if (!NAME.test(name)) {
    throw new RangeError(`Cannot save a checkpoint as ${name}: its name must match ${NAME}`);
  }
  const path = join(folder, name);
  await storing(folder, () => Deno.mkdir(folder, { recursive: true }));
  const exact = tensors.map((tensor): WritableTensor => ({ ...tensor, type: "F32" }));
  await writeSafetensors(path, exact, {
    phase,
    step: String(step),
    state: JSON.stringify(state),
    run,
  });
  return path;
}

/** A file that has a checkpoint's name, and is none or a torn one. */
export interface TornCheckpoint {
  /** Its file. */
  path: string;
  /** What is wrong with it, as a sentence. */
  reason: string;
}

/**
 * Checkpoints of a folder by step, the newest last; files that are torn or are none of ours are listed apart. Only
 * headers are read: {@link Checkpoint.verify} compares the tensors.
 */
export async function listCheckpoints(
  folder: string,
): Promise<{ checkpoints: CheckpointEntry[]; torn: TornCheckpoint[] }> {
  const checkpoints: CheckpointEntry[] = [];
  const torn: TornCheckpoint[] = [];
  if (!await exists(folder)) return { checkpoints, torn };
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (!NAME.test(name)) continue;
    const path = join(folder, name);
    if (isDirectory) {
      torn.push({ path, reason: `Cannot resume from ${path} as it is a folder` });
      continue;
    }
    try {
      const { phase, step } = await readCheckpoint(path);
      checkpoints.push({ path, phase, step });
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      torn.push({ path, reason: error.message });
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
  const { phase, step, state, run = "" } = file.metadata;
  if (!phase || !/^\d+$/.test(step) || !state) {
    throw inputError(`Cannot resume from ${path} as it is no checkpoint`);
  }
  if (!file.checked) throw inputError(`Cannot resume from ${path} as it has no checksums`);
  if (basename(path) !== nameOf({ phase, step: Number(step) })) {
    throw inputError(
      `Cannot resume from ${path} as it is the checkpoint of ${phase} at step ${step}, renamed`,
    );
  }
  return {
    path,
    phase,
    step: Number(step),
    run,
    state: parseState(state, path),
    has: (name) => file.entries.has(name),
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
    verify: () => file.verify(),
  };
}

function parseState(json: string, path: string): Record<string, unknown> {
  const state = parseJson(json, `the state in ${path}`);
  if (!isObject(state)) throw inputError(`Cannot resume from ${path} as its state must be a JSON object`);
  return state;
}

/**
 * Deletes every whole checkpoint that is not in `keep`, and those that were left half-written. Nothing else is touched,
 * nor are files that only have a checkpoint's name.
 */
export async function pruneCheckpoints(folder: string, keep: ReadonlySet<string>): Promise<void> {
  const { checkpoints } = await listCheckpoints(folder);
  for (const { path } of checkpoints) if (!keep.has(path)) await Deno.remove(path);
  for await (const { name, isFile } of Deno.readDir(folder)) {
    const halfWritten = name.endsWith(TEMPORARY) && NAME.test(name.slice(0, -TEMPORARY.length));
    if (halfWritten && isFile) await Deno.remove(join(folder, name));
  }
}
