/**
 * A tiny model folder for the addition data, for tests of whole runs.
 *
 * @module
 */
import { initialWeights } from "../../pipeline/initial_weights.ts";
import { parameterShapes } from "../../pipeline/model_config.ts";
import { saveModel } from "../../pipeline/save_weights.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Data and tokenizer of the addition task. */
export const ADDITION = {
  data: `${ROOT}data/addition/examples.jsonl.gz`,
  tokenizer: `${ROOT}data/addition/tokenizer.json`,
};

/** Writes a model of 2 layers, 2 heads, width 16 with random weights. */
export async function writeTinyModel(folder: string): Promise<void> {
  const config = {
    vocabularySize: 13,
    contextLength: 8,
    width: 16,
    layers: 2,
    heads: 2,
    mlpWidth: 64,
    layerNormEpsilon: 1e-5,
  };
  await saveModel(folder, {
    config,
    tensors: parameterShapes(config).map((shape, index) => ({
      ...shape,
      read: () =>
        Promise.resolve(initialWeights(shape, { layers: 2, seed: 1, index }).map((value) => 5 * value)),
    })),
    type: "F32",
    tokenizer: ADDITION.tokenizer,
  });
}

/** How a command ended. */
export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs the command line as a process of its own; with `killAfter` it is killed after so many milliseconds. */
export async function runMain(args: string[], options: { killAfter?: number } = {}): Promise<CommandResult> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "--allow-net=127.0.0.1",
      `${ROOT}pipeline/main.ts`,
      ...args,
    ],
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1", XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp" },
  }).spawn();
  const timer = options.killAfter === undefined ? undefined : setTimeout(() => {
    try {
      child.kill("SIGKILL");
    } catch {
      // It ended by itself in the meantime.
    }
  }, options.killAfter);
  const { code, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}
