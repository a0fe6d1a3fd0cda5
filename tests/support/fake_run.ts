/**
 * A folder of a run that no training made, for tests of the server.
 *
 * @module
 */
import { gpt2Config } from "../../pipeline/model/config.ts";
import { type MetricRow, openMetrics } from "../../pipeline/runs/metrics.ts";
import { readRunConfig, type RunConfig } from "../../pipeline/runs/run_config.ts";
import { createRun } from "../../pipeline/runs/run_folder.ts";
import { createRunState, type RunState } from "../../pipeline/runs/run_state.ts";
import { SPARSIFY } from "../../pipeline/settings.ts";
import { defaultsOf } from "../../pipeline/settings/resolve.ts";

/** A run as the server sees it. */
export interface FakeRun {
  readonly path: string;
  /** Appends rows as a training process would. */
  append(rows: readonly MetricRow[]): Promise<void>;
  /** Says what the run is doing. */
  state(change: Partial<RunState>): Promise<void>;
  /** Ends the process that is at it. */
  release(): void;
}

/** What a fake run begins with. */
export interface FakeRunOptions {
  /** Whether a process seems to be training it until {@link FakeRun.release}; true when left out. */
  live?: boolean;
  rows?: readonly MetricRow[];
  steps?: number;
  control?: boolean;
  command?: "sparsify" | "pretrain" | "circuits";
  /** Besides those that the other options name. */
  settings?: Record<string, unknown>;
  /** The model's; 2 when left out. */
  layers?: number;
  heads?: number;
}

/** The config.json of a run, of two layers with two heads unless it is to have others. */
export function fakeConfig(
  command: string,
  settings: Record<string, unknown> = {},
  { layers = 2, heads = 2 }: Pick<FakeRunOptions, "layers" | "heads"> = {},
): RunConfig {
  return {
    id: "a run",
    command,
    settings: { ...defaultsOf(SPARSIFY), model: "nowhere", data: ["text"], ...settings },
    adapter: "a test",
    versions: { project: "0.0.0", deno: "0.0.0" },
    model: {
      config: gpt2Config({
        vocabularySize: 13,
        contextLength: 8,
        width: 8 * heads,
        layers,
        heads,
        mlpWidth: 32 * heads,
      }),
      hash: "0",
    },
    tokenizer: { hash: "0" },
    data: { hash: "0" },
  };
}

/** Makes a run, of two layers with two heads unless it is to have others. */
export async function fakeRun(runs: string, name: string, options: FakeRunOptions = {}): Promise<FakeRun> {
  const {
    live = true,
    rows = [],
    steps = 100,
    control = false,
    command = "sparsify",
    settings,
  } = options;
  const folder = await createRun(runs, command, name);
  await folder.begin(fakeConfig(command, { steps, control, ...settings }, options));
  // A run that is none would be shown as broken.
  await readRunConfig(folder.config);
  const state = await createRunState(folder.state);
  await state.set({ state: "training", phase: "sparse" });
  const metrics = await openMetrics(folder.metrics);
  await metrics.append(rows);
  let held = true;
  const release = (): void => {
    if (held) folder.release();
    if (held) metrics.close();
    held = false;
  };
  if (!live) release();
  return {
    path: folder.path,
    append: (more) => metrics.append(more),
    state: (change) => state.set(change),
    release,
  };
}
