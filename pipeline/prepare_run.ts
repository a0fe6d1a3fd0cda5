/**
 * Opens everything a training run needs, new or resumed: inputs are checked before the device is opened, and the device
 * is checked before anything is trained.
 *
 * @module
 */
import { Gpu } from "../kernels/core/gpu.ts";
import project from "../deno.json" with { type: "json" };
import { listCheckpoints } from "./checkpoint.ts";
import { openControl } from "./control.ts";
import { inputError, UserError } from "./errors.ts";
import { hashFile, writeJson } from "./files.ts";
import { budgetMemory, describeNeeds, type MemorySettings } from "./memory_budget.ts";
import { type MetricRow, openMetrics, PHASES } from "./metrics.ts";
import type { ModelConfig } from "./model_config.ts";
import { createRun, openRun, type RunFolder } from "./run_folder.ts";
import { createRunState } from "./run_state.ts";
import { assertSelfCheck } from "./self_check.ts";
import {
  checkContext,
  defaultsOf,
  requireData,
  resumedSettings,
  type SettingsOf,
  type SettingsTable,
} from "./settings.ts";
import { tokenise } from "./tokenise.ts";
import { openTuner } from "./tuning_cache.ts";
import { loadTokenizer, type Tokenizer } from "./tokenizer.ts";
import type { PreparedRun, Reporter, WeightsSource } from "./training_run.ts";

/** A run's config.json. */
export interface RunConfig {
  command: string;
  settings: Record<string, unknown>;
  adapter: string;
  versions: { project: string; deno: string };
  model: { config: ModelConfig; hash: string };
  tokenizer: { hash: string };
}

/** The settings that preparing a run looks at. */
interface PreparedSettings extends MemorySettings {
  data: string[];
  autotune: boolean;
  runs: string;
  name: string | undefined;
}

/** What a command knows of its model before the run is opened. */
export interface RunModel {
  config: ModelConfig;
  weights: WeightsSource;
  /** Tells the model from another. */
  hash: string;
  /** What error messages call it. */
  label: string;
  /** tokenizer.json or its folder. */
  tokenizer: string;
}

/**
 * Opens the device and checks its arithmetic against the float64 references.
 *
 * @param autotune whether variants of kernels are chosen by measuring
 */
export async function openCheckedGpu(reporter: Reporter, autotune: boolean): Promise<Gpu> {
  const gpu = await Gpu.open();
  await assertSelfCheck(gpu);
  if (autotune) gpu.tuner = await openTuner(gpu);
  reporter.message(
    `adapter ${gpu.adapter.name}${gpu.adapter.software ? ", a CPU driver" : ""}; self-check passed`,
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
): Promise<{ folder: RunFolder; settings: SettingsOf<Table> }> {
  const folder = await openRun(runs, name);
  try {
    const saved = await readRunConfig(folder.config);
    if (saved.command !== command) {
      throw inputError(`Cannot resume ${name} by ${command} as it is a run of ${saved.command}`);
    }
    const settings = { ...defaultsOf(table), ...saved.settings } as SettingsOf<Table>;
    return { folder, settings: resumedSettings(settings, given, name) };
  } catch (error) {
    folder.release();
    throw error;
  }
}

/**
 * Reads a run's config.json.
 *
 * @throws {UserError} when it is damaged
 */
export async function readRunConfig(path: string): Promise<RunConfig> {
  let config: Partial<RunConfig> | null = null;
  try {
    config = JSON.parse(await Deno.readTextFile(path));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  const { command, settings, model, tokenizer } = config ?? {};
  const whole = typeof command === "string" && typeof settings === "object" && settings !== null &&
    typeof model?.hash === "string" && typeof model.config === "object" &&
    typeof tokenizer?.hash === "string";
  if (!whole) throw inputError(`Cannot use ${path} as it is no run's config.json, or a damaged one`);
  return config as RunConfig;
}

/**
 * Prepares a run.
 *
 * @param folder the locked folder of a resumed run; left out for a new one
 * @throws {UserError} on bad input, when nothing is left behind
 */
export async function prepareRun(
  command: string,
  settings: PreparedSettings,
  model: RunModel,
  reporter: Reporter,
  folder?: RunFolder,
): Promise<PreparedRun> {
  requireData(settings.data);
  checkContext(settings.context, model.config.contextLength, model.label);
  const tokenizer = await loadTokenizer(model.tokenizer);
  if (tokenizer.vocabularySize > model.config.vocabularySize) {
    throw inputError(
      `Cannot use ${tokenizer.path} with ${model.label} as the model's vocabulary has ${model.config.vocabularySize} ` +
        `entries: ${tokenizer.vocabularySize}`,
    );
  }
  const gpu = await openCheckedGpu(reporter, settings.autotune);
  const budget = await budgetMemory(gpu, model.config, settings).catch((error) => {
    gpu.close();
    folder?.release();
    throw error;
  });
  reporter.message(describeNeeds(budget));
  const chosen = { ...settings, batch: budget.batch };
  return await prepareOn(gpu, command, chosen, model, tokenizer, reporter, folder);
}

/** The rest of {@link prepareRun}, on an open device, with the batch chosen. */
async function prepareOn(
  gpu: Gpu,
  command: string,
  settings: PreparedSettings & { batch: number },
  model: RunModel,
  tokenizer: Tokenizer,
  reporter: Reporter,
  resumedFolder: RunFolder | undefined,
): Promise<PreparedRun> {
  const resumed = resumedFolder !== undefined;
  const folder = resumedFolder ?? await createRun(settings.runs, command, settings.name);
  try {
    const config: RunConfig = {
      command,
      settings: { ...settings },
      adapter: gpu.adapter.name,
      versions: { project: project.version, deno: Deno.version.deno },
      model: { config: model.config, hash: model.hash },
      tokenizer: { hash: await hashFile(tokenizer.path) },
    };
    if (resumed) await checkUnchanged(folder, config, reporter);
    else await writeJson(folder.config, config);
    reporter.message(`run ${folder.path}`);
    const control = await openControl({
      run: folder.path,
      async onPause(paused) {
        reporter.message(paused ? "paused from outside" : "going on");
        await state.set({ state: paused ? "paused" : "training" });
      },
      onSlack: ({ step, slack }) => reporter.message(`slack ${slack} from step ${step + 1} on`),
      onProblem: (message) => reporter.warning(message),
    });
    // From here on others may ask for something.
    const state = await createRunState(folder.state);
    reporter.message("tokenising");
    const tokens = await tokenise({ sources: settings.data, tokenizer, folder: folder.tokens });
    const { metadata } = tokens.train;
    reporter.message(
      `${metadata.get("all_tokens")} tokens in ${metadata.get("all_documents")} documents; held out ` +
        `${
          metadata.get("split_rule")
        }: ${tokens.validation.length} validation, ${tokens.test.length} test tokens`,
    );
    const metrics = await openMetrics(folder.metrics, await resumePoint(folder));
    return {
      gpu,
      batch: settings.batch,
      folder,
      config: model.config,
      weights: model.weights,
      tokens,
      tokenizerPath: tokenizer.path,
      metrics,
      control,
      state,
    };
  } catch (error) {
    gpu.close();
    folder.release();
    if (!resumed && error instanceof UserError) await Deno.remove(folder.path, { recursive: true });
    throw error;
  }
}

/** A resumed run must have the model and the tokenizer it began with; on another adapter its bits will differ. */
async function checkUnchanged(folder: RunFolder, now: RunConfig, reporter: Reporter): Promise<void> {
  const before = await readRunConfig(folder.config);
  if (before.model.hash !== now.model.hash || before.tokenizer.hash !== now.tokenizer.hash) {
    throw inputError(`Cannot resume ${folder.name} as its model or tokenizer has changed since it began`);
  }
  if (before.adapter !== now.adapter) {
    reporter.warning(`the run began on ${before.adapter}: the same bits come only from the same adapter`);
  }
}

/** The last step that a checkpoint holds. */
async function resumePoint(folder: RunFolder): Promise<{ phase: MetricRow["phase"]; step: number }> {
  const { checkpoints } = await listCheckpoints(folder.checkpoints);
  for (const phase of PHASES.toReversed()) {
    const last = checkpoints.findLast((entry) => entry.phase === phase);
    if (last) return { phase, step: last.step };
  }
  return { phase: PHASES[0], step: 0 };
}
