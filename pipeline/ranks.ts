/**
 * A training command as one of several processes that mpirun or srun starts: rank 0 does what one process would, and the
 * others help it with every step and evaluation. They have no files of the run's but a log each: weights, batches and
 * measurements come from rank 0, so that there is one copy of model, data and checkpoint, which no rank can have otherwise.
 *
 * @module
 */
import { join } from "node:path";
import { adapterLabel } from "../kernels/core/gpu_adapters.ts";
import type { Gpu } from "../kernels/core/gpu.ts";
import project from "../deno.json" with { type: "json" };
import { userFolder } from "./command_line.ts";
import type { CommandThread } from "./command_thread.ts";
import { usageError } from "./errors.ts";
import { MAX_JSON_BYTES, readText } from "./files.ts";
import { flagName } from "./flags.ts";
import type { ModelConfig } from "./model/config.ts";
import type { ParameterShape } from "./model/parameters.ts";
import type { Workload } from "./model/self_check.ts";
import { atFirst, createExchange, type Exchange } from "./parallel/exchange.ts";
import { launchOf, openMpi } from "./parallel/mpi.ts";
import type { RunFolder } from "./runs/run_folder.ts";
import { PHASES } from "./runs/metrics.ts";
import type { TokenSource } from "./text/batches.ts";
import type { Adaptation } from "./training/adaptation.ts";
import { encodeForFirst, withEncoders } from "./text/shared_encoding.ts";
import { openCheckedGpu, type WithEncoder } from "./training/prepare_run.ts";
import type { PreparedRun, Reporter } from "./training/training_run.ts";

/** Flags that hold before anything is read. */
interface RankFlags {
  mpi?: string;
  rankLimit?: number;
  shareAdapter?: boolean;
  shardOptimizer?: boolean;
}

/** @throws {UserError} on what only several processes can do, unless all that is asked for is told without them */
function checkAlone(flags: RankFlags, args: readonly string[]): void {
  const ofSeveral = ["shareAdapter", "shardOptimizer", "mpi", "rankLimit"] as const;
  const given = ofSeveral.find((name) => flags[name] !== undefined && flags[name] !== false);
  if (given === undefined || args.some((arg) => ["--help", "-h", "--version"].includes(arg))) return;
  throw usageError(`Cannot use --${flagName(given)} with one process: mpirun or srun starts several`);
}

/** Minutes that a rank is waited for where nothing else is said; that of the settings. */
const LIMIT = 15;

/** This process among the others. */
export interface Ranks {
  exchange: Exchange;
  /** The machine it runs on. */
  host: string;
  /** Tells the others, as rank 0, with what to help; without a call they are not needed. */
  begin(settings: StartSettings): Promise<void>;
  /** Leaves the others, all of which do. */
  close(): Promise<void>;
}

/** Settings of a run that every rank needs before there is one; all others are the run's own. */
export interface StartSettings {
  gpu: string | undefined;
  autotune: boolean;
  shareAdapter: boolean;
  rankLimit: number;
}

/** What is rank 0's work, at the other ranks. */
const byFirst = (): never => {
  throw new Error("this is done by rank 0");
};

/** What the others never get past, since rank 0 ends them. */
async function endedByFirst(exchange: Exchange): Promise<never> {
  await exchange.share(byFirst);
  throw new Error("rank 0 went on without its ranks");
}

/**
 * Joins the other processes where a launcher has started several, all of which must run the same program with the same
 * arguments.
 *
 * @returns undefined where this is the only one
 * @throws {UserError} when there is no MPI, or a rank runs another program
 */
export async function joinRanks(
  flags: RankFlags,
  args: readonly string[],
  thread: Pick<CommandThread, "signal" | "beRank"> & { reporter: Pick<Reporter, "message"> },
): Promise<Ranks | undefined> {
  const launch = launchOf((name) => Deno.env.get(name));
  if (!launch) {
    checkAlone(flags, args);
    return undefined;
  }
  const { mpi, rankLimit = LIMIT } = flags;
  const folder = userFolder();
  const library = mpi?.includes("/") && folder !== undefined && !mpi.startsWith("/")
    ? join(folder, mpi)
    : mpi;
  const transport = openMpi(launch, library);
  const exchange = createExchange(transport, { limit: rankLimit, wish: thread.signal });
  const { leave } = thread.beRank(exchange.rank, (code) => exchange.abort(code));
  const programs = await exchange.gather(await programOf(args), "the start");
  const fault = differenceOf(programs);
  if (fault !== undefined) {
    if (exchange.rank !== 0) await endedByFirst(exchange);
    throw usageError(fault);
  }
  if (exchange.rank === 0) thread.reporter.message(`${exchange.size} ranks by ${transport.version}`);
  let begun = false;
  return {
    exchange,
    host: transport.host,
    async begin(settings) {
      begun = true;
      exchange.waitFor(settings.rankLimit);
      await exchange.share(() => settings);
    },
    async close() {
      if (!begun && exchange.rank === 0) await exchange.share(() => undefined);
      await exchange.close();
      leave();
    },
  };
}

/**
 * Performs a command alone, or as one of several ranks: the first leads, as one alone would, and the others help it, each on
 * a device of its own.
 *
 * @param lead does the command; of several ranks it calls {@link Ranks.begin} before it needs the others
 * @param help what the others do then
 * @returns whether it came to its end rather than being stopped
 */
export async function spreadCommand(
  flags: RankFlags,
  args: readonly string[],
  thread: CommandThread,
  lead: (ranks: Ranks | undefined) => Promise<boolean>,
  help: (gpu: Gpu, exchange: Exchange) => Promise<object>,
): Promise<boolean> {
  const ranks = await joinRanks(flags, args, thread);
  if (!ranks) return await lead(undefined);
  const { exchange } = ranks;
  try {
    if (exchange.rank > 0) return await followOnDevice(ranks, thread, { help: (gpu) => help(gpu, exchange) });
    const finished = await lead(ranks);
    await ranks.close();
    return finished;
  } catch (error) {
    // Which all agreed on.
    if (!exchange.signal.aborted || error !== exchange.signal.reason) throw error;
    await ranks.close();
    return false;
  }
}

/** What must be the same at every rank. */
interface Program {
  version: string;
  deno: string;
  /** Digest of all modules. */
  code: string;
  /** As given. */
  args: readonly string[];
}

async function programOf(args: readonly string[]): Promise<Program> {
  return { version: project.version, deno: Deno.version.deno, code: await hashCode(), args };
}

/** How the first rank that differs from rank 0 does so; undefined where none does. */
export function differenceOf(programs: readonly Program[]): string | undefined {
  const [first] = programs;
  for (const [rank, other] of programs.entries()) {
    const begin = `Cannot begin as rank ${rank} must run the same program as rank 0`;
    if (other.version !== first.version) {
      return `${begin}: version ${other.version}, and ${first.version} at rank 0`;
    }
    if (other.deno !== first.deno) return `${begin}: Deno ${other.deno}, and ${first.deno} at rank 0`;
    if (other.code !== first.code) {
      return `${begin}: its code differs, digest ${other.code} and ${first.code}`;
    }
    const at = Array.from({ length: Math.max(first.args.length, other.args.length) }, (_, n) => n)
      .find((n) => other.args[n] !== first.args[n]);
    if (at !== undefined) {
      const shown = ({ args }: Program): string =>
        args.slice(Math.max(0, at - 1), at + 1).join(" ") || "nothing";
      return `Cannot begin as rank ${rank} must have the settings of rank 0: ${shown(other)}, and ${
        shown(first)
      } at rank 0`;
    }
  }
  return undefined;
}

/** Digest of all modules and shaders of the program; of a package from elsewhere its version says enough. */
async function hashCode(): Promise<string> {
  const root = new URL("../", import.meta.url);
  if (root.protocol !== "file:") return "";
  const texts: string[] = [await Deno.readTextFile(new URL("deno.json", root))];
  async function read(folder: URL): Promise<void> {
    const entries = await Array.fromAsync(Deno.readDir(folder));
    for (const { name, isDirectory } of entries.sort((a, b) => a.name < b.name ? -1 : 1)) {
      if (isDirectory) await read(new URL(`${name}/`, folder));
      else if (/\.(ts|wgsl)$/.test(name)) texts.push(name, await Deno.readTextFile(new URL(name, folder)));
    }
  }
  for (const room of ["kernels/", "pipeline/"]) await read(new URL(room, root));
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(texts.join("\0")));
  return new Uint8Array(digest, 0, 8).toHex();
}

/** Which adapter a rank got, and where. */
export interface RankAdapter {
  host: string;
  /** As people are told of it. */
  label: string;
  software: boolean;
  /** What tells its GPU from another of the same kind, as far as anything does. */
  shown: string;
}

/**
 * Variables by which a launcher or a user shows a process its own GPU. Those of CUDA, ROCm and Level Zero are none: no
 * Vulkan driver follows them.
 */
const SHOWING = [
  "NVIDIA_VISIBLE_DEVICES",
  "MESA_VK_DEVICE_SELECT",
  "VK_LOADER_DEVICE_SELECT",
  "VK_DRIVER_FILES",
  "DRI_PRIME",
];

/** What tells a process's GPU from another's of its machine: variables, or that Slurm gives each task its own. */
export function shownDevice(variable: (name: string) => string | undefined): string {
  const values = SHOWING.map((name) => [name, variable(name)] as const).filter(([, value]) =>
    value !== undefined
  );
  // Slurm's cgroups show a task its own GPU by the same number as its neighbour's.
  const ownOfTask = variable("SLURM_GPUS_PER_TASK") ?? variable("SLURM_GPU_BIND");
  if (ownOfTask !== undefined) values.push(["SLURM_LOCALID", variable("SLURM_LOCALID")]);
  return values.map(([name, value]) => `${name}=${value}`).join(" ");
}

/** Why ranks cannot work together on these adapters; undefined where they can. */
export function adapterFault(
  adapters: readonly RankAdapter[],
  { shareAdapter }: { shareAdapter: boolean },
): string | undefined {
  const [first] = adapters;
  for (const [rank, adapter] of adapters.entries()) {
    if (adapter.label !== first.label) {
      return `Cannot begin as rank ${rank} must have the kind of adapter that rank 0 has, ${first.label}: ${adapter.label}`;
    }
    const other = adapters.findIndex(({ host, shown }) => host === adapter.host && shown === adapter.shown);
    if (other < rank && !adapter.software && !shareAdapter) {
      return `Cannot begin as rank ${rank} must have another GPU than rank ${other}, and nothing shows that it has: both ` +
        `got ${adapter.label} on ${adapter.host}; start them as docs/servers.md says, or give --share-adapter`;
    }
  }
  return undefined;
}

/**
 * Tells every rank's adapter, and makes sure that they can work together.
 *
 * @throws {UserError} at rank 0 where they cannot; the others are ended by it
 */
async function agreeOnAdapters(
  { exchange, host }: Pick<Ranks, "exchange" | "host">,
  { adapter }: Gpu,
  options: { shareAdapter: boolean },
  reporter: Pick<Reporter, "message">,
): Promise<void> {
  const adapters = await exchange.gather<RankAdapter>({
    host,
    label: adapterLabel(adapter),
    software: adapter.software,
    shown: shownDevice((name) => Deno.env.get(name)),
  }, "the choice of adapters");
  const fault = adapterFault(adapters, options);
  if (fault !== undefined) {
    if (exchange.rank !== 0) await endedByFirst(exchange);
    throw usageError(fault);
  }
  for (const [rank, { label, host, shown, software }] of adapters.entries()) {
    const shared = software && adapters.findIndex((other) => other.host === host) < rank;
    reporter.message(
      `rank ${rank}: ${label} on ${host}${shown === "" ? "" : ` (${shown})`}${
        shared ? ", whose cores it shares" : ""
      }`,
    );
  }
}

/**
 * Opens a device for a workload, of several ranks each its own.
 *
 * @param ranks left out: there are no others
 * @param workload what is checked, as rank 0 tells it to all
 * @throws {UserError} where the ranks' devices cannot work together
 */
export async function openGpuOfRank(
  ranks: Pick<Ranks, "exchange" | "host"> | undefined,
  settings: Omit<StartSettings, "rankLimit">,
  workload: () => Workload,
  reporter: Pick<Reporter, "message" | "activity">,
): Promise<Gpu> {
  const gpu = await openCheckedGpu(reporter, settings, await atFirst(ranks?.exchange, workload));
  try {
    if (ranks) await agreeOnAdapters(ranks, gpu, settings, reporter);
  } catch (error) {
    gpu.close();
    throw error;
  }
  return gpu;
}

/** What the other ranks are told of a run. */
interface RunFacts<Settings> {
  id: string;
  batch: number;
  config: ModelConfig;
  parameters: readonly ParameterShape[];
  /** What is trained; where adapters begin from a file, rank 0 reads it. */
  adaptation: { plain: Omit<Adaptation, "from" | "merged">; isFromFile: boolean } | undefined;
  paths: Omit<RunFolder, "release">;
  settings: Settings;
}

/** A run as rank 0 of several has it: what it reads of the model all get. */
function withOthers(run: PreparedRun, exchange: Exchange): PreparedRun {
  const { weights, adaptation } = run;
  const shared = (source: { read(name: string): Promise<Float32Array> }) => (name: string) =>
    exchange.share(() => source.read(name));
  return {
    ...run,
    exchange,
    weights: {
      parameters: weights.parameters,
      read: shared(weights),
      readAlone: (name) => weights.read(name),
    },
    adaptation: adaptation?.from
      ? { ...adaptation, from: { ...adaptation.from, read: shared(adaptation.from) } }
      : adaptation,
  };
}

/** Tells the others of a run, and gives it as rank 0 has it. */
export async function shareRun<Settings extends { stages?: number }>(
  run: PreparedRun,
  settings: Settings,
  exchange: Exchange,
): Promise<PreparedRun> {
  const paths = Object.fromEntries(
    Object.entries(run.folder).filter(([, value]) => typeof value === "string"),
  ) as RunFacts<object>["paths"];
  const { id, batch, config, weights: { parameters }, adaptation } = run;
  const plain = parameters.map(({ name, shape }) => ({ name, shape }));
  await exchange.share((): RunFacts<object> => {
    const { from, merged: _, ...trained } = adaptation ?? {};
    return {
      id,
      batch,
      config,
      parameters: plain,
      adaptation: adaptation && { plain: trained as Adaptation, isFromFile: from !== undefined },
      paths,
      settings,
    };
  });
  return withOthers(run, stagesAmong(exchange, settings));
}

/** The ranks of a run, where its layers are divided in stages. */
function stagesAmong(exchange: Exchange, { stages = 1 }: { stages?: number }): Exchange {
  return stages === 1 ? exchange : exchange.divide(stages);
}

const NO_TOKENS: TokenSource = { name: "the data of rank 0", length: 0, window: byFirst };

/** A run as a rank has it that is not the first: from what {@link shareRun} tells. */
export async function receiveRun<Settings extends { stages?: number }>(
  gpu: Gpu,
  exchange: Exchange,
): Promise<{ run: PreparedRun; settings: Settings }> {
  const facts = await exchange.share<RunFacts<Settings>>(byFirst);
  return {
    run: followedRun(facts, gpu, stagesAmong(exchange, facts.settings)),
    settings: facts.settings,
  };
}

function followedRun(facts: RunFacts<object>, gpu: Gpu, exchange: Exchange): PreparedRun {
  const start = { phase: PHASES[0], step: 0 };
  return {
    id: facts.id,
    gpu,
    exchange,
    batch: facts.batch,
    folder: { ...facts.paths, release() {} },
    config: facts.config,
    adaptation: facts.adaptation && {
      ...facts.adaptation.plain,
      ...(facts.adaptation.isFromFile
        ? { from: { read: () => exchange.share<Float32Array>(byFirst), hash: byFirst } }
        : {}),
    },
    weights: { parameters: facts.parameters, read: () => exchange.share<Float32Array>(byFirst) },
    tokens: { train: NO_TOKENS, validation: NO_TOKENS, test: NO_TOKENS },
    tokenizerPath: facts.paths.tokenizer,
    metrics: { append: byFirst, sync: byFirst, close() {}, problem: undefined, found: undefined },
    resume: { checkpoints: new Map(), last: start, lastRow: start, problems: [] },
    control: { beforeStep: byFirst, slackAt: () => undefined },
    state: { set: () => Promise.resolve() },
  };
}

/** Rank 0's way to have all ranks find tokens. */
export function encoderOf({ exchange }: Ranks): WithEncoder {
  return (path, work) => withEncoders(exchange, () => readText(path, MAX_JSON_BYTES), work);
}

/**
 * Helps rank 0 to the end, on a device of this rank's own.
 *
 * @param options `before`: what is done before that is opened; `help`: what is done on it; gives undefined where it was stopped
 * @returns whether it came to its end
 */
export async function followOnDevice(
  ranks: Ranks,
  thread: CommandThread,
  { before, help }: { before?(): Promise<unknown>; help(gpu: Gpu): Promise<object | undefined> },
): Promise<boolean> {
  const { exchange } = ranks;
  const { reporter } = thread;
  const start = await exchange.share<StartSettings | undefined>(byFirst);
  if (!start) {
    await ranks.close();
    return true;
  }
  exchange.waitFor(start.rankLimit);
  // What is to be fetched rank 0 fetches.
  thread.leaveNet();
  await before?.();
  const gpu = await openGpuOfRank(ranks, start, byFirst, reporter);
  let ended: object | undefined;
  try {
    ended = await help(gpu);
  } finally {
    await gpu.end();
  }
  await ranks.close();
  return ended !== undefined;
}

/**
 * Helps rank 0 with its run to the end.
 *
 * @param body what rank 0 does with the run too; gives undefined where it was stopped
 * @returns whether it came to its end
 */
export async function followFirst<Settings extends { stages?: number }>(
  ranks: Ranks,
  thread: CommandThread,
  body: (
    settings: Settings,
    run: PreparedRun,
    reporter: Reporter,
    signal: AbortSignal,
  ) => Promise<object | undefined>,
): Promise<boolean> {
  const { exchange } = ranks;
  return await followOnDevice(ranks, thread, {
    async before() {
      const texts = await encodeForFirst(exchange);
      if (texts > 0) thread.reporter.message(`found the tokens of ${texts} texts for rank 0`);
    },
    async help(gpu) {
      const { run, settings } = await receiveRun<Settings>(gpu, exchange);
      thread.logTo(join(run.folder.path, `rank-${exchange.rank}.log`));
      return await body(settings, run, thread.reporter, exchange.signal);
    },
  });
}

/** What rank 0 tells all, at every rank that is not the first. */
export async function hearFirst<Told>(exchange: Exchange): Promise<Told> {
  return await exchange.share<Told>(byFirst);
}
