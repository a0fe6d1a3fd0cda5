/**
 * What the small files of a run say, checked before anything is made of it: another program may have written them, or
 * half of them.
 *
 * @module
 */
import { join } from "node:path";
import {
  type ControlRequest,
  readControl,
  readSlackChanges,
  type SlackChange,
} from "../pipeline/runs/control.ts";
import { isObject, MAX_SMALL_JSON_BYTES } from "../pipeline/files.ts";
import { type MetricRow, PHASES } from "../pipeline/runs/metrics.ts";
import { readRunConfig, type RunConfig } from "../pipeline/runs/run_config.ts";
import type { RunState } from "../pipeline/runs/run_state.ts";
import type { CircuitSize, RunDetail, RunResult } from "./api.ts";
import { ownFile, readOwnJson, UnfitFileError } from "./own_files.ts";

const STATES = ["preparing", "training", "paused", "stopped", "failed", "finished"];
/** Characters of a run's last words that are shown. */
const MOST_CHARACTERS = 500;
const MOST_SLACK_CHANGES = 10_000;
/** Of JSON that is passed on: a summary's lists of heads are 3 deep. */
const MOST_DEPTH = 8;

const isText = (value: unknown): value is string => typeof value === "string";
const isNumber = (value: unknown): value is number => typeof value === "number";
const isNumberOrMissing = (value: unknown): boolean => value === undefined || Number.isFinite(value);
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0;

/** A text on one line, cut where it is long. */
export function oneLine(text: string): string {
  const [line] = text.split(/[\r\n]/, 1);
  return line.length <= MOST_CHARACTERS ? line : `${line.slice(0, MOST_CHARACTERS - 3)}...`;
}

/** A point in time as ISO 8601; null for one that no calendar has. */
export function isoTime(time: Date | null): string | null {
  return time && Number.isFinite(time.getTime()) ? time.toISOString() : null;
}

/** Whether JSON is nested no deeper than so: what is deeper cannot be written again. */
function isShallow(value: unknown, depth = MOST_DEPTH): boolean {
  if (typeof value !== "object" || value === null) return true;
  return depth > 0 && Object.values(value).every((part) => isShallow(part, depth - 1));
}

/**
 * A run's config.json; undefined when there is none.
 *
 * @throws {UserError} when it is damaged
 */
export async function runConfig(run: string): Promise<RunConfig | undefined> {
  const path = join(run, "config.json");
  if (!await ownFile(path, MAX_SMALL_JSON_BYTES)) return undefined;
  const config = await readRunConfig(path);
  if (!isUsable(config)) throw new UnfitFileError(path, "is damaged");
  return config;
}

/** Whether a config.json's settings are what this server makes use of. */
function isUsable({ command, settings }: RunConfig): boolean {
  const { steps, lambdaMin, lambdaMax } = settings;
  return isShallow(settings) && (command === "circuits" || isCount(steps)) &&
    isNumberOrMissing(lambdaMin) && isNumberOrMissing(lambdaMax);
}

/**
 * A run's state.json; undefined when there is none.
 *
 * @throws {UserError} when it is damaged
 */
export async function runState(run: string): Promise<RunState | undefined> {
  const path = join(run, "state.json");
  const value = await readOwnJson(path);
  if (value === undefined) return undefined;
  const { state, error = null, since } = isObject(value) ? value : {};
  const sound = isText(state) && STATES.includes(state) && (error === null || isText(error)) &&
    isText(since) &&
    isoTime(new Date(since)) !== null;
  if (!sound) throw new UnfitFileError(path, "is damaged");
  return { ...value as unknown as RunState, error: error === null ? null : oneLine(error) };
}

/** Whether a row has what every row has; the other columns may be null. */
export function isRow(row: MetricRow): boolean {
  const { phase, step, tokens, ce, learning_rate, grad_norm, skipped, seconds } = row;
  return PHASES.includes(phase) && isCount(step) &&
    [tokens, ce, learning_rate, grad_norm, skipped, seconds].every(isNumber);
}

/** A finished run's summary.json; null when there is none that could be shown. */
export async function runSummary(run: string, command: string): Promise<RunDetail["summary"]> {
  const value = await readOwnJson(join(run, "summary.json")).catch(() => undefined);
  if (!isObject(value) || !isShallow(value)) return null;
  if (command === "circuits") return isText(value.task) ? value : null;
  const { dense, control = null, sparse, test_tokens } = value;
  const isResult = (part: unknown): boolean => isObject(part) && isNumber(part.ce);
  const sound = !("sparse" in value) ||
    (isResult(dense) && (control === null || isResult(control)) && isResult(sparse) &&
      isNumber((sparse as { open_fraction?: unknown }).open_fraction) && isNumber(test_tokens));
  return sound ? value : null;
}

/** What a summary comes to, briefly; null for one that is none of a command's. */
export function resultOf(command: string, summary: RunDetail["summary"]): RunResult | null {
  if (!isObject(summary)) return null;
  const { dense, control, sparse, test, test_tokens, task } = summary as Record<string, unknown>;
  if (command === "circuits") {
    if (!isText(task)) return null;
    const { models } = summary as Record<string, unknown>;
    return { kind: "circuits", task: oneLine(task), models: circuitSizes(models, { dense, sparse }) };
  }
  if (command === "pretrain") {
    if (!isObject(test)) return null;
    const { ce, open_fraction, tokens } = test;
    if (!isNumber(ce) || !isNumber(open_fraction) || !isNumber(tokens)) return null;
    return { kind: "pretrain", ce, open_fraction, test_tokens: tokens };
  }
  if (!isObject(sparse) || !isObject(dense)) return null;
  return {
    kind: "sparsify",
    ce: sparse.ce as number,
    open_fraction: sparse.open_fraction as number,
    dense_ce: dense.ce as number,
    control_ce: isObject(control) ? control.ce as number : null,
    test_tokens: test_tokens as number,
  };
}

/** Sizes of the models that a summary lists; of one from before there could be two of a kind, by kind. */
function circuitSizes(models: unknown, byKind: Record<"dense" | "sparse", unknown>): CircuitSize[] {
  const named = Array.isArray(models)
    ? models.map((model) =>
      [isObject(model) && isText(model.name) ? oneLine(model.name) : "?", model] as const
    )
    : Object.entries(byKind);
  return named.flatMap(([name, model]) => circuitSize(name, model) ?? []);
}

function circuitSize(name: string, value: unknown): CircuitSize | null {
  if (!isObject(value) || !isNumber(value.performance)) return null;
  const count = (of: unknown): number | null => isNumber(of) ? of : null;
  const able = value.able === true;
  return {
    name,
    able,
    performance: value.performance,
    edges: count(value.n90_edges),
    heads: count(value.n90_heads),
  };
}

/** Changes of slack that took effect; none when they cannot be read. */
export async function runSlackChanges(run: string): Promise<SlackChange[]> {
  try {
    if (!await ownFile(join(run, "slack.json"), MAX_SMALL_JSON_BYTES)) return [];
    return (await readSlackChanges(run)).slice(-MOST_SLACK_CHANGES);
  } catch {
    return [];
  }
}

/**
 * What is wanted of a run.
 *
 * @throws {UserError} when its control.json is none
 */
export async function runControl(run: string): Promise<ControlRequest> {
  const found = await ownFile(join(run, "control.json"), MAX_SMALL_JSON_BYTES);
  return found ? await readControl(run) : { paused: false, stop: false, slack: null };
}
