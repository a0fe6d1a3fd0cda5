/**
 * Which steps of a run there are weights of, and what is known of them. Nothing is written, and a run that goes on meanwhile
 * is not disturbed.
 *
 * @module
 */
import { join } from "node:path";
import { inputError, usageError } from "../errors.ts";
import { exists, isObject, readJson } from "../files.ts";
import { listCheckpoints, readCheckpoint, type TornCheckpoint } from "../runs/checkpoint.ts";
import { readMetrics } from "../runs/metrics.ts";
import { bestOf, frontOf } from "../runs/resume.ts";
import { readRunConfig, type RunConfig } from "../runs/run_config.ts";
import { isRunName } from "../runs/run_folder.ts";

/** A run as its folder tells it. */
export interface StoredRun {
  name: string;
  path: string;
  config: RunConfig;
  /** The phase whose weights are the run's result. */
  phase: "sparse" | "pretrain";
  /** What it came to; undefined before its end. */
  summary: Record<string, unknown> | undefined;
}

/** A step whose weights are there. */
export interface KeptStep {
  step: number;
  /** Its checkpoints, all of the same weights. */
  paths: string[];
  /** On validation tokens, nats; undefined where it was not evaluated. */
  ce?: number;
  /** Share of the causal pairs there. */
  openFraction?: number;
}

/** What a run has kept. */
export interface KeptSteps {
  /** Ascending. */
  steps: KeptStep[];
  /**
   * The step of each level of the front, of which the first is the run's own target, null where none meets it; of a run
   * without a front that alone, or nothing where no step is chosen.
   */
  levels: (number | null)[];
  torn: TornCheckpoint[];
}

/**
 * Opens a run.
 *
 * @throws {UserError} when there is none, it is damaged or trains no model
 */
export async function openStoredRun(runs: string, name: string): Promise<StoredRun> {
  const path = join(runs, name);
  if (!isRunName(name) || !await exists(join(path, "config.json"))) {
    throw usageError(`Cannot export ${name} as ${path} is no run`);
  }
  const config = await readRunConfig(join(path, "config.json"));
  const phases: Record<string, StoredRun["phase"]> = { sparsify: "sparse", pretrain: "pretrain" };
  const phase = Object.hasOwn(phases, config.command) ? phases[config.command] : undefined;
  if (phase === undefined) {
    throw inputError(`Cannot export ${name} as it is a run of ${config.command}, which trains no model`);
  }
  const summary = await readJson(join(path, "summary.json")).catch(() => undefined);
  return { name, path, config, phase, summary: isObject(summary) ? summary : undefined };
}

/** Lists the steps of a run. */
export async function keptSteps({ path, config, phase, summary }: StoredRun): Promise<KeptSteps> {
  const { checkpoints, torn } = await listCheckpoints(join(path, "checkpoints"));
  const rows = await readMetrics(join(path, "metrics.arrows")).catch(() => []);
  const steps = new Map<number, KeptStep>();
  // A best step comes first, as no other file of it will be removed while the run goes on.
  const own = [`${phase}-best`, phase];
  for (const entry of own.flatMap((of) => checkpoints.filter((each) => each.phase === of))) {
    const { step } = entry;
    const row = rows.findLast((row) =>
      row.phase === phase && row.step === step && row.validation_ce !== null
    );
    const known = row && { ce: row.validation_ce!, openFraction: row.open_fraction ?? undefined };
    steps.set(step, { step, ...known, paths: [...steps.get(step)?.paths ?? [], entry.path] });
  }
  const last = checkpoints.findLast((entry) => entry.phase === phase);
  const checkpoint = last && await readCheckpoint(last.path);
  const ofRun = checkpoint?.run === config.id ? checkpoint : undefined;
  const levels = ofRun ? [bestOf(ofRun), ...frontOf(ofRun)].map((best) => best?.step ?? null) : [];
  return {
    steps: [...steps.values()].toSorted((a, b) => a.step - b.step),
    levels: levelsIn(summary) ?? levels,
    torn: torn.filter(({ path }) => own.some((of) => path.includes(`${of}-`))),
  };
}

/** What a run's summary says of its front, if it has one. */
function levelsIn(summary: Record<string, unknown> | undefined): (number | null)[] | undefined {
  const { front } = summary ?? {};
  if (!Array.isArray(front)) return undefined;
  return front.map((level) =>
    isObject(level) && Number.isSafeInteger(level.step) ? level.step as number : null
  );
}
