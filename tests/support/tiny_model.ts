/**
 * A tiny model folder for the addition data, for tests of whole runs.
 *
 * @module
 */
import { initialWeights } from "../../pipeline/model/initial_weights.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
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
    tensors: parametersOf(config).map((shape, index) => ({
      ...shape,
      read: () => Promise.resolve(initialWeights(shape, { seed: 1, index }).map((value) => 5 * value)),
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

/** How a command is run. */
export interface CommandOptions {
  /** Milliseconds after which it is killed. */
  killAfter?: number;
  /** A signal that is sent when standard error has come to hold this text. */
  signal?: { when: string; send: Deno.Signal };
  /** Module that is run, from the root. */
  script?: string;
  /** Further variables. */
  env?: Record<string, string>;
}

/** Runs the command line as a process of its own. */
export async function runMain(args: string[], options: CommandOptions = {}): Promise<CommandResult> {
  const { script = "pipeline/main.ts", signal } = options;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "--allow-net=127.0.0.1",
      `${ROOT}${script}`,
      ...args,
    ],
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1", XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp", ...options.env },
  }).spawn();
  const send = (name: Deno.Signal): void => {
    try {
      child.kill(name);
    } catch {
      // It ended by itself in the meantime.
    }
  };
  const timer = options.killAfter === undefined
    ? undefined
    : setTimeout(() => send("SIGKILL"), options.killAfter);
  const read = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>, onText?: (all: string) => void) => {
    let all = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      all += text;
      onText?.(all);
    }
    return all;
  };
  let sent = false;
  const [{ code }, stdout, stderr] = await Promise.all([
    child.status,
    read(child.stdout),
    read(child.stderr, (all) => {
      if (!signal || sent || !all.includes(signal.when)) return;
      sent = true;
      send(signal.send);
    }),
  ]);
  clearTimeout(timer);
  return { code, stdout, stderr };
}
