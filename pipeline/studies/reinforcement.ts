/**
 * `deno task study reinforcement`: whether attention can be made sparse under a reward as it can under a loss.
 *
 * @module
 */
import { join } from "node:path";
import { formatFactor, formatMean, formatMeanShare } from "../report/progress.ts";
import { readMetrics } from "../runs/metrics.ts";
import { intervalOf, type SweepRow } from "../sweep/results.ts";
import { type SweepRun, sweepRun } from "../sweep/sweep_file.ts";
import type { ReinforceSettings, ReinforceSummary } from "../training/reinforce.ts";
import type { SparsifySummary } from "../training/sparsify.ts";
import type { ConstraintSettings } from "../training/training_run.ts";
import { differs, type Estimate, estimateText, pairedRatio } from "./paired.ts";
import { performReinforcement } from "./reinforcement_run.ts";
import {
  type CircuitSizes,
  pagesOf,
  type PartResult,
  type Study,
  type StudyPart,
  type StudyTools,
} from "./study.ts";

/** Share of the dense policy's reward that τ is. */
const KEPT = 0.99;

/** What tells one sparse arm from another. */
type ArmSettings = Pick<ReinforceSettings, "algorithm" | "drawThrough">;

/** An arm by its name, and how many times as long as others it is trained; left out: as long. */
type Arm = ArmSettings & { label: string; times?: number };

const LEAVE_ONE_OUT: Arm = { label: "leave-one-out", algorithm: "leave-one-out", drawThrough: "noise" };
const GRPO: Arm = { label: "GRPO", algorithm: "grpo", drawThrough: "noise" };
const LONGER: Arm = { ...LEAVE_ONE_OUT, label: "leave-one-out, three times as long", times: 3 };
const HARD: Arm = {
  label: "leave-one-out, drawn through hard gates",
  algorithm: "leave-one-out",
  drawThrough: "hard",
};
/** How the dense policy is trained, to whose reward all arms are held. */
const DENSE: ArmSettings = { algorithm: "leave-one-out", drawThrough: "noise" };

interface Sizes {
  seeds: readonly number[];
  /** Rows of a step. */
  rows: number;
  /** Of `pretrain`, at a constant learning rate: the policy that dense reinforcement begins with stands on its way. */
  pretrain: Readonly<Record<string, unknown>>;
  /** The validation loss at which it begins, nats. */
  startLoss: number;
  /** Of reinforcement, dense and sparse. */
  training: Omit<ReinforceSettings, keyof ArmSettings | keyof ConstraintSettings | "seed" | "targetReward">;
  /** Of the dense policy, where they are others. */
  dense: Pick<ReinforceSettings, "steps" | "attentionRate">;
  gates: ConstraintSettings;
  /** Of `sparsify`, beside those that it shares with sparse reinforcement. */
  supervised: Readonly<Record<string, unknown>>;
}

const FULL: Sizes = {
  seeds: [1, 2, 3, 4, 5],
  rows: 256,
  pretrain: {
    layers: 2,
    heads: 4,
    width: 64,
    batch: 128,
    steps: 600,
    lr: 2e-3,
    decay: 0,
    evalEvery: 10,
    checkpointEvery: 400,
  },
  startLoss: 0.35,
  training: {
    steps: 400,
    accumulate: 1,
    context: 8,
    group: 8,
    lr: 5e-4,
    embeddingRate: 1,
    attentionRate: 4,
    warmup: 20,
    decay: 0.2,
    weightDecay: 0.01,
    clip: 1,
    evalEvery: 25,
    checkpointEvery: 100,
    keepCheckpoints: 2,
    shardOptimizer: false,
    validationTokens: 16384,
    evalTokens: 65536,
  },
  dense: { steps: 300, attentionRate: 1 },
  gates: {
    gateBias: 3,
    temperature: 1,
    saturationWeight: 0.01,
    saturationBound: 6,
    lambdaStart: 5,
    constraintScale: 0.05,
    average: 0.95,
    lambdaRate: 0.015,
    lambdaGain: 1.5,
    lambdaMin: 0.02,
    lambdaMax: 20,
  },
  supervised: {
    control: false,
    slack: 0.01,
    constraintScale: 0.01,
    constraintEvery: 4,
    average: 0.9,
    lambdaStart: 0.1,
    lambdaMax: 5,
  },
};

/** Sizes of `--quick`. */
const QUICK: Sizes = {
  seeds: [1, 2],
  rows: 16,
  pretrain: {
    layers: 1,
    heads: 2,
    width: 16,
    batch: 16,
    steps: 4,
    warmup: 1,
    decay: 0,
    evalTokens: 128,
    validationTokens: 128,
    evalEvery: 2,
    checkpointEvery: 4,
    autotune: false,
  },
  startLoss: Infinity,
  training: {
    ...FULL.training,
    steps: 4,
    group: 4,
    warmup: 2,
    evalEvery: 2,
    checkpointEvery: 2,
    validationTokens: 128,
    evalTokens: 128,
  },
  dense: { ...FULL.dense, steps: 4 },
  gates: FULL.gates,
  supervised: { ...FULL.supervised, autotune: false },
};

/** A run of an arm with what was found out about it. */
export interface PolicyRun {
  seed: number;
  /** On test rows. */
  exact: number;
  /** Expected reward at temperature 1; null of a supervised one, of which it is not measured. */
  reward: number | null;
  open: number;
  liveHeads: number;
  /** Nats a token, and KL from the policy that it began with; null of a supervised one. */
  entropy: number | null;
  divergence: number | null;
  /** Share of the steps of the second half whose roll-outs had a mean reward below τ; null where there is no τ of reward. */
  violated: number | null;
  /** Whether the constraint was met; null where there is none. */
  met: boolean | null;
  circuit: CircuitSizes | null;
  adapter: string;
}

/** The runs of one arm. */
export interface PolicyArm {
  label: string;
  runs: readonly PolicyRun[];
}

const points = (value: number): string => `${(100 * value).toFixed(1)} %`;
const nats = (value: number): string => value.toFixed(3);
const tenths = (value: number): string => value.toFixed(1);

/** Mean and half an interval over the runs that have a value. */
function meanOf(
  { runs }: PolicyArm,
  read: (run: PolicyRun) => number | null | undefined,
  text: (value: number) => string,
): string {
  return formatMean(intervalOf([...valuesOf(runs, read).values()]), text);
}

function valuesOf(
  runs: readonly PolicyRun[],
  read: (run: PolicyRun) => number | null | undefined,
): Map<number | undefined, number> {
  return new Map(runs.flatMap((run) => {
    const value = read(run);
    return typeof value === "number" ? [[run.seed, value] as const] : [];
  }));
}

/** Runs that met their constraint; a run without one has nothing to meet. */
const met = (runs: readonly PolicyRun[]): PolicyRun[] => runs.filter((run) => run.met !== false);

/** What policies say; `start` are those that all began with. */
export function reinforcementResult(
  { start, dense, sparse, supervised }: {
    start: readonly Pick<ReinforceSummary["start"], "exact_rows" | "reward">[];
    dense: PolicyArm;
    sparse: readonly PolicyArm[];
    supervised: PolicyArm;
  },
): Pick<PartResult, "findings" | "tables" | "forests"> {
  const compared = sparse.map((arm) => {
    const beside = (read: (run: PolicyRun) => number | null | undefined): Estimate | null =>
      pairedRatio(valuesOf(met(arm.runs), read), valuesOf(met(supervised.runs), read));
    return { arm, open: beside(({ open }) => open), edges: beside(({ circuit }) => circuit?.edges) };
  });
  const ofArm = (arm: PolicyArm): string => {
    const withConstraint = arm.runs.filter((run) => run.met !== null);
    return withConstraint.length === 0 ? "–" : `${met(withConstraint).length} of ${withConstraint.length}`;
  };
  const arms = [dense, ...sparse, supervised];
  const startOf = (read: (of: { exact_rows: number; reward: number }) => number): string =>
    formatMean(intervalOf(start.map(read)), points);
  return {
    findings: [
      ...(start.length > 0
        ? [
          `The policies that reinforcement begins with expect a reward of ${
            startOf(({ reward }) => reward)
          } and answer ${
            startOf(({ exact_rows }) => exact_rows)
          } of the validation prompts rightly; dense, it takes them to ${
            meanOf(dense, ({ reward }) => reward, points)
          } and ${meanOf(dense, ({ exact }) => exact, points)} of the test prompts.`,
        ]
        : []),
      ...sparse.filter(({ runs }) => runs.length > 0).map((arm) =>
        `${arm.label}: the reward was held in ${ofArm(arm)} runs, with ${
          formatMeanShare(intervalOf(arm.runs.map(({ open }) => open)))
        } of the edges open and ${meanOf(arm, ({ exact }) => exact, points)} answered rightly.`
      ),
      ...compared.flatMap(({ arm, open }) =>
        open === null ? [] : [
          `${arm.label} beside the supervised runs of the same seeds, where both met their constraint: ${
            estimateText(open, formatFactor)
          } the open edges${
            open.low === null ? "" : differs(open, 1) ? "" : ", an interval that does not exclude ×1"
          }.`,
        ]
      ),
    ],
    tables: [
      {
        caption:
          "On test rows, gates open or closed without noise; means and half of 95 % intervals over seeds. Answers are the " +
          "likeliest tokens; the reward is the expected one at temperature 1. Entropy, and KL from the policy that each began " +
          "with, are of a token, in nats. Below τ: share of the steps of the second half whose roll-outs had a mean reward below τ. A " +
          "supervised run is held to the loss of the dense policy.",
        head: [
          "policy",
          "seeds",
          "exact answers",
          "reward",
          "open edges",
          "live heads",
          "entropy",
          "KL from the start",
          "steps below τ",
          "constraint met",
        ],
        rows: arms.map((arm) => [
          arm.label,
          String(arm.runs.length),
          meanOf(arm, ({ exact }) => exact, points),
          meanOf(arm, ({ reward }) => reward, points),
          formatMeanShare(intervalOf(arm.runs.map(({ open }) => open))),
          meanOf(arm, ({ liveHeads }) => liveHeads, tenths),
          meanOf(arm, ({ entropy }) => entropy, nats),
          meanOf(arm, ({ divergence }) => divergence, nats),
          meanOf(arm, ({ violated }) => violated, points),
          ofArm(arm),
        ]),
      },
      {
        caption:
          "Circuits of the runs that met their constraint: edges and heads for 90 % of the effect. “Beside supervised” are " +
          "ratios, paired by seed, with 95 % intervals.",
        head: ["policy", "circuits", "edges", "beside supervised", "heads", "open edges beside supervised"],
        rows: arms.map((arm) => {
          const of = { ...arm, runs: met(arm.runs) };
          const beside = compared.find((each) => each.arm === arm);
          return [
            arm.label,
            String(valuesOf(of.runs, ({ circuit }) => circuit?.edges).size),
            meanOf(of, ({ circuit }) => circuit?.edges, tenths),
            beside ? estimateText(beside.edges, formatFactor) : "–",
            meanOf(of, ({ circuit }) => circuit?.heads, tenths),
            beside ? estimateText(beside.open, formatFactor) : "–",
          ];
        }),
      },
    ],
    forests: [{
      caption: "Open edges beside the supervised runs of the same seeds, where both met their constraint.",
      axis: "ratio of open edges",
      scale: "log",
      reference: { label: "supervised", value: 1 },
      rows: compared.map(({ arm, open }) => ({
        label: arm.label,
        mean: open?.mean ?? null,
        low: open?.low ?? null,
        high: open?.high ?? null,
      })),
    }],
  };
}

/** Of the steps of the second half, the share whose roll-outs had a mean reward below τ. */
async function violatedOf(folder: string): Promise<number | null> {
  const rows = await readMetrics(join(folder, "metrics.arrows"));
  const constraints = rows.slice(Math.floor(rows.length / 2)).flatMap(({ constraint }) => constraint ?? []);
  if (constraints.length === 0) return null;
  return constraints.filter((constraint) => constraint > 0).length / constraints.length;
}

/** The first step evaluated at a validation loss or below, as a run's metrics have it. */
async function stepAtLoss(folder: string, loss: number): Promise<number | undefined> {
  const rows = await readMetrics(join(folder, "metrics.arrows"));
  return rows.find(({ validation_ce }) => validation_ce !== null && validation_ce <= loss)?.step;
}

/** τ of a seed, by its dense run. */
export function targetReward({ validation }: Pick<ReinforceSummary, "validation">): number {
  return Number((KEPT * validation.reward).toFixed(6));
}

/** A policy that another begins with. */
interface Beginning {
  seed: number;
  /** Folder of its model. */
  model: string;
}

/** Pre-trains the policies that dense reinforcement begins with: once to see where the loss is low enough, and again to there. */
async function pretrainPolicies(
  tools: StudyTools,
  { seeds, pretrain, startLoss, training: { context } }: Sizes,
  data: readonly string[],
): Promise<{ rows: SweepRow[]; policies: Beginning[] }> {
  const runOf = (seed: number, more: Readonly<Record<string, unknown>> = {}): SweepRun => {
    const common = { data, tokenizer: join(tools.project, "data/addition"), context };
    return sweepRun({
      varied: {},
      common: { ...common, ...pretrain, ...more },
      seed,
      command: "pretrain",
    });
  };
  const rows = await tools.runs("pretrain", seeds.map((seed) => runOf(seed)));
  const startRuns: SweepRun[] = [];
  for (const { run, summary } of rows) {
    if (!summary) continue;
    const steps = await stepAtLoss(tools.folderOf("pretrain", run), startLoss);
    if (steps !== undefined) startRuns.push(runOf(run.seed!, { steps }));
    else if (!tools.onlyTable) tools.fail(`${run.name} (never at a loss of ${startLoss})`);
  }
  const startRows = await tools.runs("start", startRuns);
  return { rows: [...rows, ...startRows], policies: policiesOf(tools, "start", startRows) };
}

/** The models of a stage's finished runs. */
function policiesOf(tools: StudyTools, stage: string, rows: readonly SweepRow[]): Beginning[] {
  return rows.filter(({ summary }) => summary).map(({ run }) => ({
    seed: run.seed!,
    model: join(tools.folderOf(stage, run), "model"),
  }));
}

/** Trains policies by reinforcement in a stage, each from another; without a target they are dense. */
async function trainPolicies(
  tools: StudyTools,
  sizes: Sizes,
  { stage, data, policies }: {
    stage: string;
    data: readonly string[];
    policies: readonly (Beginning & { arm: Omit<Arm, "label">; targetReward: number | null })[];
  },
): Promise<SweepRow[]> {
  const { rows: batch, training, gates } = sizes;
  const prepared = policies.map(({ seed, model, arm: { times = 1, ...arm }, targetReward }) => {
    const dense = targetReward === null;
    const own = { ...training, ...(dense ? sizes.dense : { steps: times * training.steps }), ...arm };
    const run = sweepRun({
      varied: dense ? {} : { ...arm, ...(times === 1 ? {} : { steps: own.steps }) },
      // Gates make no other run of a dense one.
      common: { ...own, ...(dense ? {} : { ...gates, targetReward }), model, data, batch },
      seed,
    });
    return { run, model, settings: { ...own, ...gates, seed, targetReward } };
  });
  return await tools.trained(stage, prepared.map(({ run }) => run), async (run, runs) => {
    const { model, settings } = prepared.find((each) => each.run === run)!;
    await performReinforcement(settings, { run, runs, model, data, batch }, tools);
  });
}

/** What finished runs of reinforcement came to. */
async function measuredPolicies(
  tools: StudyTools,
  stage: string,
  rows: readonly SweepRow[],
  circuitOf: (stage: string, row: SweepRow, met: boolean) => Promise<CircuitSizes | null>,
): Promise<PolicyRun[]> {
  const found: PolicyRun[] = [];
  for (const row of rows) {
    if (!row.summary) continue;
    const { test, constraint, adapter } = row.summary as unknown as ReinforceSummary;
    const met = constraint && constraint.feasible;
    found.push({
      seed: row.run.seed!,
      exact: test.exact_rows,
      reward: test.reward,
      open: test.open_fraction,
      liveHeads: test.live_heads,
      entropy: test.entropy,
      divergence: test.kl_start,
      violated: constraint && await violatedOf(tools.folderOf(stage, row.run)),
      met,
      circuit: await circuitOf(stage, row, met !== false),
      adapter,
    });
  }
  return found;
}

/** What finished runs of supervision came to. */
async function measuredSupervised(
  rows: readonly SweepRow[],
  circuitOf: (stage: string, row: SweepRow, met: boolean) => Promise<CircuitSizes | null>,
): Promise<PolicyRun[]> {
  const found: PolicyRun[] = [];
  for (const row of rows) {
    if (!row.summary) continue;
    const { sparse, adapter }: SparsifySummary = row.summary;
    found.push({
      seed: row.run.seed!,
      exact: sparse.exact_rows,
      reward: null,
      open: sparse.open_fraction,
      liveHeads: sparse.live_heads,
      entropy: null,
      divergence: null,
      violated: null,
      met: sparse.feasible,
      circuit: await circuitOf("supervised", row, sparse.feasible),
      adapter,
    });
  }
  return found;
}

/** The arms of a part, and whether it counts what it is set beside as its own. */
interface Design {
  title: string;
  arms: readonly Arm[];
  first: boolean;
}

async function perform({ title, arms, first }: Design, tools: StudyTools): Promise<PartResult> {
  const sizes = tools.quick ? QUICK : FULL;
  const data = [join(tools.project, "data/addition/examples.jsonl.gz")];
  const start = await pretrainPolicies(tools, sizes, data);
  const denseRows = await trainPolicies(tools, sizes, {
    stage: "dense",
    data,
    policies: start.policies.map((policy) => ({ ...policy, arm: DENSE, targetReward: null })),
  });
  const dense = policiesOf(tools, "dense", denseRows);
  const { group: _, accumulate: __, shardOptimizer: ___, ...shared } = sizes.training;
  const supervisedRows = await tools.runs(
    "supervised",
    dense.map(({ seed, model }) =>
      sweepRun({
        varied: {},
        common: { ...shared, ...sizes.gates, ...sizes.supervised, model, data, batch: sizes.rows },
        seed,
      })
    ),
  );
  const denseSummaries = denseRows.flatMap(({ run, summary }) =>
    summary ? [{ seed: run.seed, summary: summary as unknown as ReinforceSummary }] : []
  );
  const held = dense.map((policy) => ({
    ...policy,
    targetReward: targetReward(denseSummaries.find(({ seed }) => seed === policy.seed)!.summary),
  }));
  const sparseRows = await trainPolicies(tools, sizes, {
    stage: "sparse",
    data,
    // Seed by seed, so that what is there when it is stopped can be compared.
    policies: held.flatMap((policy) => arms.map(({ label: _, ...arm }) => ({ ...policy, arm }))),
  });

  const circuits = { done: 0, of: 0 };
  const findCircuit = async (
    stage: string,
    { run }: SweepRow,
    met: boolean,
  ): Promise<CircuitSizes | null> => {
    // Of a quick study one circuit is enough to see that they are looked for.
    if (!met || (tools.quick && (!first || circuits.of > 0))) return null;
    const own = first || stage === "sparse";
    if (own) circuits.of++;
    const circuit = await tools.circuits(stage, run, ["--task", "addition"]);
    if (own && circuit) circuits.done++;
    return circuit;
  };
  const denseArm: PolicyArm = {
    label: "dense",
    runs: await measuredPolicies(tools, "dense", denseRows, findCircuit),
  };
  const supervised = await measuredSupervised(supervisedRows, findCircuit);
  const sparse: PolicyArm[] = [];
  for (const [n, { label }] of arms.entries()) {
    const rows = sparseRows.filter((_, index) => index % arms.length === n);
    sparse.push({ label, runs: await measuredPolicies(tools, "sparse", rows, findCircuit) });
  }
  const own = first ? [...start.rows, ...denseRows, ...supervisedRows, ...sparseRows] : sparseRows;
  const all = [denseArm, ...sparse].flatMap(({ runs }) => runs);
  return {
    title,
    done: own.filter(({ status }) => status === "finished").length,
    of: sizes.seeds.length * (arms.length + (first ? 4 : 0)),
    circuits,
    ...reinforcementResult({
      start: denseSummaries.map(({ summary: { start } }) => start),
      dense: denseArm,
      sparse,
      supervised: { label: "supervised, sparse", runs: supervised },
    }),
    pages: first ? pagesOf("supervised", supervisedRows, "every supervised run, by open edges and loss") : [],
    adapters: [...new Set([...all, ...supervised].map(({ adapter }) => adapter))],
  };
}

function part(name: string, design: Design, inQuick: boolean): StudyPart {
  return { name, inQuick, perform: (tools) => perform(design, tools) };
}

/** The study. */
export const REINFORCEMENT: Study = {
  name: "reinforcement",
  title: "Reinforcement learning under the constraint",
  question:
    "Can as few edges stay open where the constraint is a reward instead of a loss, and are the circuits as small as those " +
    "of supervised training?",
  protocol: [
    "Addition of two numbers of two digits, rewarded by 1 where all three digits of the sum are right and else by 0. For each " +
    "of five seeds a dense model of 2 layers, 4 heads and width 64 is pre-trained at a constant learning rate until its loss is " +
    "0.35 nats a digit on validation examples, where its expected reward is meant to be 30 to 70 %: from none there is no " +
    "signal, from all nothing to learn. A first run of 600 steps tells at which step that is, a second ends there.",
    "By reinforcement, 300 steps, the dense policy is trained from it; that is what is made sparse, in 400 steps, by " +
    "reinforcement and by supervision: ours, as post-training has it.",
    "Each step draws 8 answers to each of 32 prompts at temperature 1, by the network that the step trains, through gates " +
    "with the very noise of the training pass; the log-likelihoods of the one are those of the other. As no text is longer " +
    "than 8 tokens, no keys and values are kept.",
    "Leave-one-out: an answer’s advantage is its reward less the mean of the prompt’s other answers. GRPO: its reward less the " +
    "mean of all, over their standard deviation plus 1e-4. Each roll-out has one update, so that GRPO’s ratio of new to old " +
    "likelihoods is 1 and its clipping never acts. There is no KL term; how far a policy went from the start is measured.",
    "The open edges are minimised subject to a mean reward of τ or more, 99 % of what the dense policy of the same seed " +
    "expects on validation prompts. The controller is that of the loss: its violation is τ " +
    "less the mean reward of the step’s roll-out, noise and all, averaged over some 20 steps. There is no dead zone: near τ " +
    "the multiplier moves by the distance alone. The result is the step with the fewest open edges of those whose expected " +
    "reward on validation prompts, through gates without noise, is τ or more.",
    "Two further arms are parts of their own. One is trained three times as long by leave-one-out, still beside supervision of " +
    "400 steps, as a reward tells less of a row than its answer. The other draws answers through gates without noise, as the model is used, and trains with noise, " +
    "without correcting for the mismatch.",
    "Beside them stands supervised sparse training of the same dense policy, as many steps of as many rows, held to the dense " +
    "policy’s loss plus 0.01 nats. The seed is the unit: ratios are paired by seed, with Student’s intervals on the " +
    "logarithms.",
    "Not in this study: reinforcement with the gates of a supervised sparse model held, a loss as the constraint with the " +
    "reward in the objective, and a pretrained model.",
  ],
  parts: [
    part("addition", { title: "Addition of two numbers", arms: [LEAVE_ONE_OUT, GRPO], first: true }, true),
    part("longer", { title: "Three times as long", arms: [LONGER], first: false }, false),
    part("mismatch", { title: "Drawn through gates without noise", arms: [HARD], first: false }, true),
  ],
};
