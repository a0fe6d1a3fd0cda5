/**
 * A tiny model folder for the addition data, for tests of whole runs.
 *
 * @module
 */
import { gpt2Config, type ModelConfig } from "../../pipeline/model/config.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { initialWeights } from "../../pipeline/model/initial_weights.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
import { saveModel } from "../../pipeline/model/save_weights.ts";
import { HELD_AT_CHANGE, type Holding, SIGNALLED } from "./holding.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Tokenizer of the addition task, and the first 1,500 of its 10,000 examples. */
export const ADDITION = {
  data: `${ROOT}tests/fixtures/addition/examples.jsonl.gz`,
  tokenizer: `${ROOT}data/addition/tokenizer.json`,
};

/** So many examples of the addition task, a line each. */
export async function additionExamples(count: number): Promise<string> {
  const file = await Deno.open(ADDITION.data);
  const text = await new Response(file.readable.pipeThrough(new DecompressionStream("gzip"))).text();
  return text.split("\n").slice(0, count).join("\n");
}

/**
 * Writes a model of 2 layers, 2 heads, width 16 with random weights.
 *
 * @param others what it has otherwise than GPT-2
 */
export async function writeTinyModel(folder: string, others: Partial<ModelConfig> = {}): Promise<void> {
  const sizes = {
    vocabularySize: 13,
    contextLength: 8,
    width: 16,
    layers: 2,
    heads: 2,
    mlpWidth: 64,
  };
  const config = { ...gpt2Config(sizes), ...others };
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

/** How a family's fixture is built, without its sizes and tokens. */
export async function choicesOf(fixture: string): Promise<Partial<ModelConfig>> {
  const { family, norm, queryKeyNorm, positions, mlp, biases, clip, parallel, tied } = await readModelConfig(
    `${ROOT}tests/fixtures/families/${fixture}`,
  );
  return { family, norm, queryKeyNorm, positions, mlp, biases, clip, parallel, tied };
}

/** Writes a Llama of 2 layers, 4 heads on 2 key heads, width 16 with random weights; returns its config. */
export async function writeTinyLlama(folder: string): Promise<ModelConfig> {
  const config: ModelConfig = {
    ...await readModelConfig(`${ROOT}tests/fixtures/families/llama`),
    vocabularySize: 13,
    contextLength: 8,
    width: 16,
    headSize: 6,
    mlpWidth: 24,
  };
  await saveRandom(folder, config);
  return config;
}

/** Writes a model with the choices and sizes of a family's fixture and random weights, for the addition data. */
export async function writeTinyOf(family: string, folder: string): Promise<ModelConfig> {
  const fixture = await readModelConfig(`${ROOT}tests/fixtures/families/${family}`);
  const config = { ...fixture, vocabularySize: 13, contextLength: 8 };
  await saveRandom(folder, config);
  return config;
}

async function saveRandom(folder: string, config: ModelConfig): Promise<void> {
  await saveModel(folder, {
    config,
    tensors: parametersOf(config).map((parameter, index) => ({
      ...parameter,
      read: () =>
        Promise.resolve(
          initialWeights(parameter, { seed: 3, index }).map((value) => value === 1 ? 1 : 5 * value),
        ),
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
  /**
   * Moments at which it is held until `meanwhile` is done, in order: when standard error has come to hold a text, or at a
   * change of files, of which it is told how many there were.
   */
  hold?: readonly Hold[] | HoldAtChange;
  /** Module that is run, from the root. */
  script?: string;
  /** Further permissions, as flags. */
  allow?: readonly string[];
  /** Further variables. */
  env?: Record<string, string>;
}

/** What is done while a command is held. */
type Meanwhile = (send: (signal: Deno.Signal) => void) => void | Promise<void>;

/** A moment that standard error tells. */
export interface Hold {
  when: string;
  meanwhile: Meanwhile;
}

/** A moment between changes of files. */
export interface HoldAtChange {
  change: number;
  meanwhile: Meanwhile;
}

/** Milliseconds after which a command that hangs is given up. */
const LIMIT = 20 * 60_000;

/** Runs the command line as a process of its own. */
export async function runMain(args: string[], options: CommandOptions = {}): Promise<CommandResult> {
  const { script = "pipeline/main.ts", hold = [] } = options;
  const holds = "change" in hold ? [{ when: HELD_AT_CHANGE, ...hold }] : [...hold];
  const holding: Holding = "change" in hold
    ? { texts: [], change: hold.change }
    : { texts: hold.map(({ when }) => when) };
  const held = holds.length > 0;
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "--allow-net=127.0.0.1",
      ...options.allow ?? [],
      ...held ? ["--preload", `${ROOT}tests/support/holding.ts`] : [],
      `${ROOT}${script}`,
      ...args,
    ],
    cwd: ROOT,
    stdin: held ? "piped" : "null",
    stdout: "piped",
    stderr: "piped",
    env: {
      NO_COLOR: "1",
      XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp",
      // A name that leads to no folder is not looked for elsewhere.
      HF_HUB_OFFLINE: "1",
      ...held ? { HOLD_COMMAND: JSON.stringify(holding) } : {},
      ...options.env,
    },
  }).spawn();
  let signalled = false;
  const send = (name: Deno.Signal): void => {
    signalled = true;
    try {
      child.kill(name);
    } catch {
      // It ended by itself in the meantime.
    }
  };
  let hung = false;
  const timer = setTimeout(() => {
    hung = true;
    send("SIGKILL");
  }, LIMIT);
  const read = async (
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    onText?: (all: string) => Promise<void>,
  ) => {
    let all = "";
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      all += text;
      await onText?.(all);
    }
    return all;
  };
  const answer = held ? child.stdin.getWriter() : undefined;
  const [{ code }, stdout, stderr] = await Promise.all([
    child.status,
    read(child.stdout),
    read(child.stderr, async (all) => {
      while (holds.length > 0 && all.includes(holds[0].when)) {
        signalled = false;
        await holds.shift()!.meanwhile(send);
        // One that was killed reads no more.
        await answer!.write(Uint8Array.of(signalled ? SIGNALLED : 0)).catch(() => {});
      }
    }),
  ]);
  clearTimeout(timer);
  await answer?.close().catch(() => {});
  if (hung) throw new Error(`${args.join(" ")} did not end: ${stderr}`);
  return { code, stdout, stderr };
}
