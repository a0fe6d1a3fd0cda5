/**
 * Opens everything a training run needs, new or resumed: inputs are checked before the device is opened, and the device
 * is checked before anything is trained.
 *
 * @module
 */
import { adapterLabel, findAdapter } from "../../kernels/core/gpu_adapters.ts";
import { Gpu } from "../../kernels/core/gpu.ts";
import project from "../../deno.json" with { type: "json" };
import { basename, dirname, join } from "node:path";
import { openControl, readSlackChanges, requestControl, slackIsSteered } from "../runs/control.ts";
import { findDataFiles, type Source, STANDARD_INPUT } from "../text/data_files.ts";
import { inputError, usageError, UserError } from "../errors.ts";
import { hubModel } from "../hub/names.ts";
import {
  digestOf,
  exists,
  isObject,
  MAX_JSON_BYTES,
  readBytes,
  readJson,
  storing,
  TOKENIZER_SETTINGS,
  writeAll,
  writeAtomically,
} from "../files.ts";
import { checkWindows } from "../text/batches.ts";
import { pipelinesOf, shareOfStep } from "../parallel/share_of_step.ts";
import {
  budgetMemory,
  checkLeastMemory,
  describeNeeds,
  type MemorySettings,
  MOST_ROWS,
} from "./memory_budget.ts";
import { openMetrics, phasesFrom } from "../runs/metrics.ts";
import { controlIsFirst } from "../runs/phases.ts";
import { ADAPTER_WEIGHTS, mergedWeights } from "../model/adapter_files.ts";
import { unreachedByGates } from "../model/adapters.ts";
import { openWeights } from "../model/load_weights.ts";
import type { ModelConfig } from "../model/config.ts";
import { isSameModelConfig, readModelConfig } from "../model/config_file.ts";
import { findResumePoint, type ResumePoint } from "../runs/resume.ts";
import { type RunConfig, type SettingChange, writeRunConfig } from "../runs/run_config.ts";
import { checkRunIsNew, createRun, type NewRunFolder, openRun, type RunFolder } from "../runs/run_folder.ts";
import { createRunState } from "../runs/run_state.ts";
import { checkModelFolder } from "../model/save_weights.ts";
import { assertSelfCheck, type Workload } from "../model/self_check.ts";
import { checkContext, checkNeeds, checkOrder, requireData } from "../settings/checks.ts";
import { defaultsOf } from "../settings/resolve.ts";
import { CHANGEABLE, FREE_ON_RESUME, READ_ON_RESUME, resumedSettings } from "../settings/resume.ts";
import type { SettingsOf, SettingsTable } from "../settings/table.ts";
import type { SharedEncoder } from "../text/shared_encoding.ts";
import { hashSources, SPLITS, tokenise, type Tokens } from "../text/tokenise.ts";
import { openTuner } from "../tuning_cache.ts";
import { checkOwnTokenizer, checkTokenizer, loadTokenizer, type Tokenizer } from "../text/tokenizer.ts";
import { type Adaptation, adaptationOf, type AdaptationSettings, teacherIsAdapted } from "./adaptation.ts";
import type { BaseModel, InitialWeights, PreparedRun, Reporter } from "./training_run.ts";

/** The settings that preparing a run looks at. */
interface PreparedSettings extends MemorySettings {
  steps: number;
  /** Left out: 0. */
  distancePower?: number;
  accumulate: number;
  validationTokens: number;
  evalTokens: number;
  checkpointEvery: number;
  stages: number;
  /** Of sparse post-training, what it distils from. */
  teacher?: "dense" | "control" | "auto";
  control?: boolean;
  /** What it is called in config.json and in messages. */
  data: string[];
  /** Where its records have their text; left out: as `text`. */
  textColumn?: string;
  autotune: boolean;
  /** Which adapter; undefined: the fastest. */
  gpu: string | undefined;
  runs: string;
  name: string | undefined;
}

/** What a command knows of its model before the run is opened. */
export interface RunModel {
  config: ModelConfig;
  weights: InitialWeights;
  /** Tells the model from another. */
  hash: string;
  /** What error messages call it. */
  label: string;
  /** tokenizer.json or its folder. */
  tokenizer: string;
  /** Files of its weights; left out for a model that has none yet. */
  files?: readonly string[];
  /** What of it is trained; left out: all. */
  adaptation?: Adaptation;
  /** The model that adapters are trained beside. */
  base?: BaseModel;
}

/**
 * Opens the model of a folder, whole and with finite weights.
 *
 * @param options `tokenizer`: left out: the folder's; `label`: what messages call it, left out: the folder; `adaptation`: the
 * settings that say what of it is trained, left out: all
 * @throws {UserError} naming what is wrong with it
 */
export async function openRunModel(
  folder: string,
  { tokenizer, label = folder, adaptation: settings }: {
    tokenizer?: string;
    label?: string;
    adaptation?: AdaptationSettings;
  } = {},
): Promise<RunModel> {
  const config = await readModelConfig(folder);
  const adaptation = settings && await adaptationOf(settings, config);
  const { merged, from } = adaptation ?? {};
  const base = await openWeights(folder, config);
  const weights = merged ? mergedWeights(base, merged) : base;
  await weights.verify();
  if (tokenizer !== undefined) await checkOwnTokenizer(await loadTokenizer(tokenizer, config), folder);
  const hash = await weights.hash();
  return {
    config,
    weights,
    hash: from ? digestOf([hash, await from.hash()].join("\n")) : hash,
    label,
    tokenizer: tokenizer ?? folder,
    files: weights.files,
    adaptation,
    ...(adaptation?.adapters ? { base: { ...await nameOfBase(folder, label), hash } } : {}),
  };
}

/** What others call the model of a folder: its name on the hub and its commit, or where it lies. */
export async function nameOfBase(folder: string, label: string): Promise<Omit<BaseModel, "hash">> {
  // Of the hub a commit is always named: without one it is a folder that a run was begun with.
  const named = label === folder || !label.includes("@") ? undefined : hubModel(label);
  return named
    ? { model: named.name, revision: named.revision }
    : { model: await Deno.realPath(folder), revision: undefined };
}

/** A run to go on with. */
export interface ResumedRun {
  /** Locked. */
  folder: RunFolder;
  /** What it began with. */
  config: RunConfig;
  /** Whether the data was given anew, and may be another. */
  dataGiven: boolean;
  /** Settings that are to be others from where it goes on. */
  changed?: readonly Pick<SettingChange, "setting" | "before" | "now">[];
  /** The slack from where it goes on, where it was given. */
  slack?: number;
}

/**
 * Opens the device, says which, and checks its arithmetic against the float64 references.
 *
 * @param options `gpu`: which adapter, as a command's `--gpu`; `autotune`: whether variants of kernels are chosen by
 * measuring
 * @param workload what is checked; left out: every operation
 * @throws {AdapterError} when there is no adapter, or none such
 */
export async function openCheckedGpu(
  reporter: Pick<Reporter, "message" | "activity">,
  { gpu: wanted, autotune = false }: { gpu: string | undefined; autotune?: boolean },
  workload?: Workload,
): Promise<Gpu> {
  reporter.activity({ name: "opening the device" });
  const gpu = await Gpu.open({ adapter: wanted });
  try {
    const name = "checking the adapter's arithmetic";
    await assertSelfCheck(gpu, {
      workload: workload && { ...workload, tuned: autotune },
      progress: (done, of) => reporter.activity({ name, done, of }),
    });
    if (autotune) gpu.tuner = await openTuner(gpu);
  } catch (error) {
    gpu.close();
    throw error;
  }
  const { adapter } = gpu;
  reporter.message(
    `adapter ${adapterLabel(adapter)}${adapter.software ? ", a CPU driver" : ""}; self-check passed`,
  );
  return gpu;
}

/** The settings of a run that is to be resumed, with its folder locked. */
export async function openResumed<const Table extends SettingsTable>(
  command: string,
  table: Table,
  runs: string,
  name: string,
  given: Partial<SettingsOf<Table>>,
): Promise<{ resumed: ResumedRun; settings: SettingsOf<Table> }> {
  const { folder, config } = await openRun(runs, name, command);
  try {
    const own = { ...defaultsOf(table), ...config.settings } as SettingsOf<Table>;
    const settings: SettingsOf<Table> & { slack?: number } = resumedSettings(own, given, name);
    checkOrder(table, settings);
    // What is as the run began may be idle there.
    checkNeeds(
      table,
      Object.fromEntries(Object.entries(given).filter(([key]) => FREE_ON_RESUME.includes(key))),
      settings,
    );
    const { slack } = given as { slack?: number };
    if (!("sparse" in table)) await checkTarget(folder, config.id, own, given);
    // What it is at each step stands in slack.json, as where it is changed from outside.
    if (slack !== undefined) settings.slack = (own as { slack: number }).slack;
    const value = (of: object, key: string) => (of as Record<string, number | string>)[key];
    const different = CHANGEABLE.filter((key) => key !== "slack" && value(settings, key) !== value(own, key));
    checkNeeds(table, Object.fromEntries(different.map((key) => [key, value(settings, key)])), settings);
    const changed = different
      .map((setting) => ({ setting, before: value(own, setting), now: value(settings, setting) }));
    return { resumed: { folder, config, dataGiven: "data" in given, changed, slack }, settings };
  } catch (error) {
    folder.release();
    throw error;
  }
}

/**
 * A target that is given must hold from where a run goes on: a slack that is given, or has come since it began, holds in its
 * place.
 *
 * @param own what the run began with
 * @throws {UserError} when it would not
 */
async function checkTarget(
  { name, path }: Pick<RunFolder, "name" | "path">,
  id: string,
  own: { targetLoss?: unknown },
  { targetLoss, slack }: { targetLoss?: unknown; slack?: number },
): Promise<void> {
  if (targetLoss === undefined) return;
  if (slack !== undefined && typeof targetLoss === "number") {
    throw usageError(
      `Cannot resume ${name} with --slack and --target-loss ${targetLoss}, which is the target itself: give one of them`,
    );
  }
  if (targetLoss !== own.targetLoss && await slackIsSteered(path, id)) {
    throw usageError(
      `Cannot resume ${name} with --target-loss ${targetLoss}, as its slack has been changed and holds in its place: ` +
        `give --slack instead`,
    );
  }
}

/**
 * The summary of a run that came to its end, so that nothing is left to do; undefined where a part of its results is
 * missing, or its model or data is not what it was.
 *
 * @throws {UserError} when settings were to be others from here on
 */
export async function finishedSummary(
  resumed: ResumedRun,
  { data }: Pick<PreparedSettings, "data">,
  model: Pick<RunModel, "hash">,
  sources: readonly Source[] = data,
): Promise<object | undefined> {
  const { folder, config, dataGiven, changed = [], slack } = resumed;
  for (const path of [folder.summary, folder.report, join(folder.model, "config.json")]) {
    if (!await exists(path)) return undefined;
  }
  const summary = await readJson(folder.summary).catch(() => undefined);
  if (!isObject(summary) || config.model.hash !== model.hash) return undefined;
  const hash = await hashData(sources, resumed);
  if (config.data?.hash !== hash || (hash === STANDARD_INPUT && dataGiven)) return undefined;
  if (changed.length > 0 || slack !== undefined) {
    throw usageError(
      `Cannot resume ${folder.name} with other settings as it is finished: begin another run with them`,
    );
  }
  await replaceConfig(resumed, { ...config, settings: { ...config.settings, data } });
  return summary;
}

/** {@link hashSources}; of a run that goes on, whoever has moved the data is told how to say where it is. */
async function hashData(sources: readonly Source[], resumed: ResumedRun | undefined): Promise<string> {
  try {
    return await hashSources(sources);
  } catch (error) {
    const places = sources.filter((source) => typeof source === "string" && source !== STANDARD_INPUT);
    const isThere = (await Promise.all(places.map((place) => exists(place as string)))).every((there) =>
      there
    );
    if (!resumed || resumed.dataGiven || isThere || !(error instanceof UserError)) throw error;
    throw inputError(`${error.message}; where the data has moved, give --data with its place`, {
      cause: error,
    });
  }
}

/**
 * Prepares a run.
 *
 * @param options `resumed` is left out for a new one; `sources`: what `settings.data` names, where that is not where the
 * data lies; `onStart` is given what takes a new run's folder away again, for as
 * long as it has not begun; `ranks`: how many train together; `weighted`: whether positions have weights of their own in
 * the loss; `openGpu` opens the device for what it is told, where that is not {@link openCheckedGpu}
 * @throws {UserError} on bad input, when of a new run nothing is left behind
 */
export async function prepareRun(
  command: string,
  settings: PreparedSettings,
  model: RunModel,
  reporter: Reporter,
  options: StartOptions = {},
): Promise<PreparedRun> {
  const { resumed } = options;
  try {
    return await checkAndPrepare(command, settings, model, reporter, options);
  } catch (error) {
    resumed?.folder.release();
    throw error;
  }
}

/**
 * Does something with tokens found by several ranks.
 *
 * @param tokenizer path of the tokenizer.json
 */
export type WithEncoder = <Result>(
  tokenizer: string,
  work: (encoder: SharedEncoder) => Promise<Result>,
) => Promise<Result>;

/** How a run is started. */
interface StartOptions {
  resumed?: ResumedRun;
  sources?: readonly Source[];
  onStart?(abandon: () => Promise<void>): void;
  ranks?: number;
  /** Does what needs tokens of many texts, with the help of other ranks: at most once, before the device is opened. */
  withEncoder?: WithEncoder;
  weighted?: boolean;
  openGpu?(workload: Workload): Promise<Gpu>;
}

/** Inputs are checked, the data to its last token, before the device is opened; config.json comes after both. */
async function checkAndPrepare(
  command: string,
  settings: PreparedSettings,
  model: RunModel,
  reporter: Reporter,
  { resumed, sources = settings.data, onStart, ranks = 1, weighted, withEncoder, openGpu }: StartOptions,
): Promise<PreparedRun> {
  requireData(settings.data);
  const { stages } = settings;
  const pipelines = pipelinesOf({ ranks, stages, layers: model.config.layers });
  checkContext(settings.context, model.config.contextLength, model.label);
  const tokenizer = await loadTokenizer(model.tokenizer, model.config, reporter.message);
  checkTokenizer(tokenizer, model.config, model.label);
  if (!resumed && settings.name !== undefined) await checkRunIsNew(settings.runs, command, settings.name);
  const { train, adapters, frozen } = model.adaptation ?? {};
  const trained = { train, adapters, frozen, teacherAdapted: teacherIsAdapted(settings, model.adaptation) };
  checkLeastMemory(model.config, settings, resumed !== undefined, trained, pipelines);
  // One that is named is looked for before hours of tokenising; ranks have each their own.
  if (settings.gpu !== undefined && !openGpu) await findAdapter(settings.gpu);
  reporter.activity({ name: "reading the data" });
  const data = { hash: await hashData(sources, resumed) };
  const { leftOut } = await findDataFiles(sources.filter((source) => typeof source === "string"));
  if (leftOut.length > 0) {
    reporter.message(
      `${leftOut.length} files left out of the data, such as ${
        leftOut[0]
      }: hidden, a README, or of another kind`,
    );
  }
  if (resumed) checkUnchanged(resumed, { model, tokenizer, data, settings }, reporter);
  let started: NewRunFolder | undefined;
  let gpu: Gpu | undefined;
  try {
    if (!resumed) {
      started = await createRun(settings.runs, command, settings.name);
      onStart?.(started.abandon);
    }
    const folder = resumed?.folder ?? started!;
    reporter.message(`run ${folder.path}`);
    // Not after hours of training.
    await checkModelFolder(folder.model);
    await checkModelFolder(folder.adapter);
    for (
      const target of model.adaptation?.adapters
        ? unreachedByGates(model.config, model.adaptation.adapters)
        : []
    ) {
      reporter.warning(
        `no adapter moves the ${target} of every layer: gates are decided by queries and keys, and only by these`,
      );
    }
    const tokeniseBy = (encoder?: SharedEncoder): Promise<Tokens> =>
      tokeniseInto(folder, { hash: data.hash, sources, tokenizer, encoder, settings, reporter });
    const tokens = withEncoder ? await withEncoder(tokenizer.path, tokeniseBy) : await tokeniseBy();
    const { distancePower } = settings;
    const stored = [{ half: settings.dtype === "f16", adapters, train, frozen }];
    const workload = { models: [model.config], stored, training: true, weighted, distancePower };
    gpu = await openGpu?.(workload) ?? await openCheckedGpu(reporter, settings, workload);
    const budget = await budgetMemory(
      gpu,
      model.config,
      settings,
      resumed !== undefined,
      trained,
      pipelines,
    );
    reporter.message(describeNeeds(budget));
    shareOfStep({ batch: budget.batch, accumulate: settings.accumulate }, pipelines);
    const config: RunConfig = {
      id: resumed?.config.id ?? crypto.randomUUID(),
      command,
      settings: { ...settings, batch: budget.batch },
      adapter: gpu.adapter.name,
      versions: { project: project.version, deno: Deno.version.deno },
      model: { config: model.config, hash: model.hash },
      ...(train && train !== "all" ? { adaptation: { train, ...(adapters ? { adapters } : {}) } } : {}),
      tokenizer: identityOf(tokenizer),
      data,
      ...(pipelines === 1 ? {} : { ranks: pipelines }),
    };
    if (started) {
      await started.begin(config);
      await keepModel(folder, model);
    } else await goOn(resumed!, config, reporter);
    await copyFile(tokenizer.path, folder.tokenizer);
    for (const name of TOKENIZER_SETTINGS) {
      const settingsFile = join(dirname(tokenizer.path), name);
      if (await exists(settingsFile)) await copyFile(settingsFile, join(folder.path, name));
    }
    const run = await fillFolder(folder, {
      gpu,
      config,
      model,
      tokenizer,
      tokens,
      settings,
      batch: budget.batch,
      reporter,
      resumed,
    });
    return started ? { ...run, abandon: started.abandon } : run;
  } catch (error) {
    gpu?.close();
    await started?.abandon();
    throw error;
  }
}

/** Tells how much of the data has been tokenised. */
export function tokenising(
  reporter: Pick<Reporter, "activity">,
): (read: { done: number; of: number | undefined }) => void {
  return (read) => reporter.activity({ name: "tokenising", bytes: true, ...read });
}

/**
 * Tokenises the data into a run's folder.
 *
 * @throws {UserError} when it cannot be read, or is too little
 */
async function tokeniseInto(
  folder: RunFolder,
  { hash, sources, tokenizer, encoder, settings, reporter }: {
    hash: string;
    sources: readonly Source[];
    tokenizer: Tokenizer;
    encoder: SharedEncoder | undefined;
    settings: PreparedSettings;
    reporter: Reporter;
  },
): Promise<Tokens> {
  tokenising(reporter)({ done: 0, of: undefined });
  reporter.message("tokenising");
  const tokens = await tokenise({
    sources,
    textColumn: settings.textColumn,
    hash,
    enough: wantedTokens(settings),
    tokenizer,
    folder: folder.tokens,
    encoder,
    onProgress: tokenising(reporter),
    onDamage: (message) => reporter.warning(message),
    onLoss: (message) => reporter.warning(message),
  });
  const { metadata } = tokens.train;
  reporter.message(
    `${metadata.get("all_tokens")} tokens in ${metadata.get("all_documents")} documents; held out ` +
      `${
        metadata.get("split_rule")
      }: ${tokens.validation.length} validation, ${tokens.test.length} test tokens`,
  );
  if (tokens.train.next) {
    reporter.message("more of the data is fetched and tokenised while the model learns from what is here");
  }
  checkLengths(tokens, settings);
  return tokens;
}

/** Metrics, control and state of a run whose config.json stands. */
async function fillFolder(
  folder: RunFolder,
  { gpu, config, model, tokenizer, tokens, settings, batch, reporter, resumed }: {
    gpu: Gpu;
    config: RunConfig;
    model: RunModel;
    tokenizer: Tokenizer;
    tokens: Tokens;
    settings: PreparedSettings;
    batch: number;
    reporter: Reporter;
    resumed: ResumedRun | undefined;
  },
): Promise<PreparedRun> {
  if (resumed?.slack !== undefined) await askForSlack(resumed);
  const control = await openControl({
    run: folder.path,
    id: config.id,
    async onPause(paused) {
      if (paused) reporter.activity({ name: "paused", keep: true });
      reporter.message(paused ? "paused from outside" : "going on");
      await state.set({ state: paused ? "paused" : "training" });
    },
    onSlack: ({ step, slack }) => reporter.message(`slack ${slack} from step ${step + 1} on`),
    onProblem: (message) => reporter.warning(message),
  });
  // From here on others may ask for something.
  const state = await createRunState(folder.state);
  const phases = phasesFrom(controlIsFirst(config.settings) ? "control" : undefined);
  const resume = await findResumePoint(folder.checkpoints, settings.steps, config.id, phases);
  for (const problem of resume.problems) reporter.warning(problem);
  if (resumed) await writeChanges(resumed, resume.last, settings, reporter);
  const metrics = await openMetrics(folder.metrics, resume.lastRow, config.id);
  if (metrics.problem) reporter.warning(metrics.problem);
  const { found } = metrics;
  const behind = found?.phase === resume.last.phase ? found.step - resume.last.step : 0;
  if (found && (resume.last.step === 0 || behind > settings.checkpointEvery)) {
    reporter.warning(
      `the run came to step ${found.step} of the ${found.phase} phase, but its last checkpoint is of step ` +
        `${resume.last.step}: the steps from there are done again`,
    );
  }
  return {
    id: config.id,
    gpu,
    batch,
    folder,
    // A model that is saved keeps the tokens that ended and began its texts.
    config: {
      ...model.config,
      endOfText: tokenizer.endOfText,
      ...(tokenizer.startOfText === undefined ? {} : { startOfText: tokenizer.startOfText }),
    },
    weights: model.weights,
    ...(model.adaptation ? { adaptation: model.adaptation } : {}),
    ...(model.base ? { base: model.base } : {}),
    tokens,
    tokenizerPath: tokenizer.path,
    metrics,
    resume,
    control,
    state,
  };
}

/** As many tokens of each split as a run looks at, and the row that a grid's offset takes. */
function wantedTokens(
  { steps, accumulate, batch, context, validationTokens, evalTokens }: PreparedSettings,
): Record<typeof SPLITS[number], number> {
  const rows = steps * accumulate * (batch === "auto" ? MOST_ROWS : batch);
  const row = context + 1;
  return {
    train: (rows + 1) * row,
    validation: Math.max(validationTokens, context) + row,
    test: Math.max(evalTokens, context) + row,
  };
}

/**
 * Checks that each split fills a row.
 *
 * @throws {UserError} naming the split
 */
function checkLengths(tokens: Tokens, { context, data }: PreparedSettings): void {
  for (const split of SPLITS) {
    checkWindows({ tokens: tokens[split], context, name: `the ${split} split of ${data.join(", ")}` });
  }
}

/**
 * A resumed run must have the model, the tokenizer and the data it began with.
 *
 * @throws {UserError} when one is another, the data only where it was not given anew
 */
function checkUnchanged(
  { folder: { name }, config: before, dataGiven }: ResumedRun,
  { model, tokenizer, data, settings }: {
    model: RunModel;
    tokenizer: Tokenizer;
    data: { hash: string };
    settings: PreparedSettings;
  },
  reporter: Reporter,
): void {
  const sameModel = before.model.hash === model.hash &&
    isSameModelConfig(before.model.config, model.config);
  if (!sameModel) {
    throw inputError(`Cannot resume ${name} as its model ${model.label} has changed since it began`);
  }
  if (before.tokenizer.hash !== tokenizer.hash) {
    throw inputError(`Cannot resume ${name} as its tokenizer ${tokenizer.path} has changed since it began`);
  }
  const [began, found] = [before.tokenizer, identityOf(tokenizer)];
  const sameEnds = began.endOfText === found.endOfText && began.startOfText === found.startOfText;
  if (began.endOfText !== undefined && !sameEnds) {
    throw inputError(
      `Cannot resume ${name} as the files beside ${tokenizer.path} must name the tokens that began and ended its texts, ` +
        `${began.startOfText ?? "none"} and ${began.endOfText}: ${
          found.startOfText ?? "none"
        } and ${found.endOfText}`,
    );
  }
  if (before.data?.hash === data.hash) {
    if (data.hash !== STANDARD_INPUT || !dataGiven) return;
    throw inputError(
      `Cannot resume ${name} with --data - as it was read from there when it began, and cannot be compared: leave ` +
        `--data out to go on with what was read`,
    );
  }
  const paths = settings.data.join(", ");
  if (!dataGiven) {
    const flags = settings.data.map((path) => `--data ${path}`).join(" ");
    throw inputError(
      `Cannot resume ${name} as its data ${paths} has changed since it began; ${flags} takes it as it is now`,
    );
  }
  reporter.warning(`the data is not what the run began with: it goes on with ${paths} as it is now`);
}

/** Takes up a run: what may be new, its data, goes into its config.json; on another adapter its bits will differ. */
async function goOn(resumed: ResumedRun, now: RunConfig, reporter: Reporter): Promise<void> {
  const { config: before } = resumed;
  if (before.adapter !== now.adapter) {
    reporter.warning(`the run began on ${before.adapter}: the same bits come only from the same adapter`);
  }
  const [ranksBefore, ranks] = [before.ranks ?? 1, now.ranks ?? 1];
  if (ranksBefore !== ranks) {
    reporter.message(
      `going on with ${ranks} ${
        ranks === 1 ? "rank" : "ranks"
      } in place of ${ranksBefore}: the same losses but for ` +
        `rounding, and other bits`,
    );
  }
  // Where what is read lies now; what the run's own folder stands in for keeps its name.
  const read = READ_ON_RESUME.filter((key) => now.settings[key] !== undefined)
    .map((key) => [key, now.settings[key]]);
  const settings = { ...before.settings, ...Object.fromEntries(read) };
  await replaceConfig(resumed, { ...before, settings, data: now.data, ranks: now.ranks });
}

async function replaceConfig(resumed: ResumedRun, config: RunConfig): Promise<void> {
  if (JSON.stringify(config) !== JSON.stringify(resumed.config)) {
    await writeRunConfig(resumed.folder.config, config);
  }
  resumed.config = config;
}

/** Writes down which settings are others from here on, and says so. */
async function writeChanges(
  resumed: ResumedRun,
  { phase, step }: ResumePoint["last"],
  settings: object,
  reporter: Reporter,
): Promise<void> {
  const { config, changed = [] } = resumed;
  if (changed.length === 0) return;
  const now = Object.fromEntries(
    changed.map(({ setting }) => [setting, (settings as Record<string, unknown>)[setting]]),
  );
  const changes = [...config.changes ?? [], ...changed.map((each) => ({ ...each, phase, step }))];
  await replaceConfig(resumed, { ...config, settings: { ...config.settings, ...now }, changes });
  for (const { setting, before, now } of changed) {
    reporter.message(
      `${setting} ${now} in place of ${before} from step ${step + 1} of the ${phase} phase on`,
    );
  }
}

/** Asks for the slack that was given, as whoever watches the run may. */
async function askForSlack({ folder, config, slack }: ResumedRun): Promise<void> {
  const last = (await readSlackChanges(folder.path, config.id)).at(-1)?.slack ?? config.settings.slack;
  if (slack !== last) await requestControl(folder.path, { slack });
}

/** What a run writes down of its tokenizer. */
const identityOf = ({ hash, endOfText, startOfText }: Tokenizer): RunConfig["tokenizer"] => ({
  hash,
  endOfText,
  ...(startOfText === undefined ? {} : { startOfText }),
});

const isOfAdapter = (path: string): boolean => basename(path) === ADAPTER_WEIGHTS;

async function copyFile(from: string, to: string): Promise<void> {
  if (await exists(to)) return;
  const bytes = await readBytes(from, MAX_JSON_BYTES);
  await writeAtomically(to, (file) => writeAll(file, bytes));
}

/**
 * Keeps the model that the run begins with in its folder, so that it can be looked at beside the sparse one later. The
 * weights are linked, which takes no room; where the disk cannot do that the run goes without.
 */
async function keepModel({ dense }: RunFolder, { files, adaptation }: RunModel): Promise<void> {
  // With an adapter it began with it is more than the files of its weights.
  if (!files || adaptation?.from || adaptation?.merged || files.some(isOfAdapter)) return;
  const folder = dirname(files[0]);
  await storing(dense, () => Deno.mkdir(dense));
  try {
    for (const file of files) await Deno.link(await Deno.realPath(file), join(dense, basename(file)));
  } catch {
    for (const file of files) await Deno.remove(join(dense, basename(file))).catch(() => {});
    return await Deno.remove(dense);
  }
  // The last tells that the copy is whole.
  for (const name of ["model.safetensors.index.json", "config.json"]) {
    if (await exists(join(folder, name))) await copyFile(join(folder, name), join(dense, name));
  }
}
