/**
 * `deno task study from-scratch`: whether a model that is sparse from early on ends with smaller circuits than one that is
 * made sparse afterwards.
 *
 * @module
 */
import { join } from "node:path";
import { formatFactor, formatMean, formatMeanShare, formatSigned } from "../report/progress.ts";
import { readMetrics } from "../runs/metrics.ts";
import { intervalOf, type SweepRow } from "../sweep/results.ts";
import { type SweepRun, sweepRun } from "../sweep/sweep_file.ts";
import type { PretrainSummary } from "../training/pretrain.ts";
import { differs, type Estimate, estimateText, pairedDifference, pairedRatio } from "./paired.ts";
import type { CircuitSizes, PartResult, Study, StudyPart, StudyTools } from "./study.ts";

/** Of the tokens before the last third, shares after which the constraint is switched on; 1 is post-training. */
const SHARES = [0, 0.25, 0.5, 0.75, 1];
/** Share of all tokens that every arm is under the constraint, at least: as long as post-training lasts. */
const POST_TRAINING = 1 / 3;

/** A model that is trained from scratch. */
interface Design {
  title: string;
  /** Settings of `pretrain`, paths from the project's folder. */
  settings: Readonly<Record<string, unknown>>;
  /** Those of the gates. */
  gates: Readonly<Record<string, number>>;
  /** How far above the dense model's validation loss τ lies, nats. */
  slack: number;
  seeds: readonly number[];
  /** What `circuits` is asked for. */
  circuits: readonly string[];
  /** Whether whole rows can be answered exactly. */
  exact: boolean;
}

const ADDITION: Design = {
  title: "Addition of two numbers",
  settings: {
    data: ["data/addition/examples.jsonl.gz"],
    tokenizer: "data/addition",
    layers: 2,
    heads: 4,
    width: 64,
    context: 8,
    batch: 64,
    steps: 1000,
    lr: 4e-3,
    warmup: 50,
    evalEvery: 50,
    checkpointEvery: 500,
  },
  // Those that data/addition recommends for post-training, but for λ: with its ceiling of 5 an arm that is sparse from the
  // start never learns the task.
  gates: {
    gateBias: 3,
    constraintScale: 0.01,
    lambdaRate: 0.03,
    lambdaStart: 0.05,
    lambdaMax: 50,
    lambdaGain: 0,
    constraintEvery: 4,
    saturationWeight: 0.01,
  },
  slack: 0.01,
  seeds: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
  circuits: ["--task", "addition"],
  exact: true,
};

const ENGLISH: Design = {
  title: "English",
  settings: {
    data: ["data/english/text.jsonl.gz"],
    tokenizer: "data/english",
    layers: 2,
    heads: 4,
    width: 64,
    batch: 4,
    steps: 1200,
    lr: 5e-3,
    evalTokens: 16384,
    validationTokens: 8192,
    evalEvery: 100,
    checkpointEvery: 600,
  },
  // Those that data/english recommends for post-training, but for λ, which has fewer steps for what it has to make up.
  gates: {
    gateBias: 0,
    lambdaRate: 0.03,
    lambdaStart: 1,
    lambdaMax: 20,
    lambdaGain: 0,
    constraintEvery: 8,
  },
  slack: 0.025,
  seeds: [1, 2, 3],
  circuits: ["--pairs", "data/english/previous-word.jsonl", "--prompts", "32"],
  exact: false,
};

/** Sizes of `--quick`. */
const QUICK = {
  layers: 1,
  heads: 2,
  width: 16,
  batch: 16,
  steps: 6,
  warmup: 2,
  evalTokens: 128,
  validationTokens: 128,
  evalEvery: 1,
  checkpointEvery: 6,
  autotune: false,
};

/** What a design has in common, its paths whole. */
function commonOf({ settings }: Design, { quick, project }: StudyTools): Record<string, unknown> {
  const { data, tokenizer, ...rest } = settings as { data: string[]; tokenizer: string };
  return {
    ...rest,
    data: data.map((path) => join(project, path)),
    tokenizer: join(project, tokenizer),
    ...(quick ? QUICK : {}),
  };
}

/** A run of an arm with what was found out about it. */
export interface ArmRun {
  row: SweepRow;
  /** Tokens up to the first evaluation with gates at or below τ; null where there is none. */
  tokensToTarget: number | null;
  circuit: CircuitSizes | null;
}

/** The runs of one share. */
export interface Arm {
  /** Undefined for dense. */
  share: number | undefined;
  runs: readonly ArmRun[];
}

const summaryOf = ({ row }: ArmRun): PretrainSummary | null =>
  row.summary as unknown as PretrainSummary | null;

/** A value of the runs that have one, by seed. */
function valuesOf(arm: Arm, read: (run: ArmRun, summary: PretrainSummary) => number | null | undefined) {
  return new Map(
    arm.runs.flatMap((run) => {
      const summary = summaryOf(run);
      const value = summary && read(run, summary);
      return typeof value === "number" ? [[run.row.run.seed, value] as const] : [];
    }),
  );
}

const openOf = (_: ArmRun, { test }: PretrainSummary): number => test.open_fraction;
const lossOf = (_: ArmRun, { test }: PretrainSummary): number => test.ce;
/** Whether a run is dense or met its target, so that it is at the dense model's loss but for the slack. */
const isAtLoss = ({ constraint }: PretrainSummary): boolean =>
  constraint === undefined || constraint.feasible;
const openAtLoss = (run: ArmRun, summary: PretrainSummary): number | null =>
  isAtLoss(summary) ? openOf(run, summary) : null;
const edgesAtLoss = ({ circuit }: ArmRun, summary: PretrainSummary): number | null | undefined =>
  isAtLoss(summary) ? circuit?.edges : null;
const headsAtLoss = ({ circuit }: ArmRun, summary: PretrainSummary): number | null | undefined =>
  isAtLoss(summary) ? circuit?.heads : null;

const percentOf = (share: number): string => `${Math.round(100 * share)} %`;

function labelOf({ share }: Arm): string {
  return share === undefined ? "dense" : share === 1 ? "100 % (post-training)" : percentOf(share);
}

/** The mean over seeds with half its interval. */
const overSeeds = (values: ReadonlyMap<unknown, number>) => intervalOf([...values.values()]);

/** What the arms say; the last is post-training. */
export function fromScratchResult(
  { title, exact }: Pick<Design, "title" | "exact">,
  dense: Arm,
  arms: readonly Arm[],
): Omit<PartResult, "pages" | "done" | "of" | "circuits"> {
  const post = arms.at(-1)!;
  const effects = arms.slice(0, -1).map((arm) => ({
    arm,
    // Few edges with a loss above the target are no better.
    open: pairedRatio(valuesOf(arm, openAtLoss), valuesOf(post, openAtLoss)),
    edges: pairedRatio(valuesOf(arm, edgesAtLoss), valuesOf(post, edgesAtLoss)),
    heads: pairedRatio(valuesOf(arm, headsAtLoss), valuesOf(post, headsAtLoss)),
  }));
  const ended = (arm: Arm): ArmRun[] => arm.runs.filter((run) => summaryOf(run));
  const met = (arm: Arm): number => ended(arm).filter((run) => summaryOf(run)!.constraint?.feasible).length;
  const byTokens = [dense, ...arms].map((arm) => [
    labelOf(arm),
    String(ended(arm).length),
    formatMeanShare(overSeeds(valuesOf(arm, openOf))),
    formatMean(overSeeds(valuesOf(arm, lossOf)), (value) => value.toFixed(4)),
    arm === dense
      ? "–"
      : estimateText(pairedDifference(valuesOf(arm, lossOf), valuesOf(dense, lossOf)), formatSigned),
    ...(exact ? [formatMeanShare(overSeeds(valuesOf(arm, (_, { test }) => test.exact_rows)))] : []),
    arm === dense ? "–" : `${met(arm)} of ${ended(arm).length}`,
    arm === dense
      ? "–"
      : formatMean(overSeeds(valuesOf(arm, ({ tokensToTarget }) => tokensToTarget)), millions),
  ]);
  const byLoss = [dense, ...arms].map((arm) => {
    const effect = effects.find((each) => each.arm === arm);
    return [
      labelOf(arm),
      String(valuesOf(arm, edgesAtLoss).size),
      formatMean(overSeeds(valuesOf(arm, edgesAtLoss)), (value) => value.toFixed(1)),
      effect ? estimateText(effect.edges, formatFactor) : "–",
      formatMean(overSeeds(valuesOf(arm, headsAtLoss)), (value) => value.toFixed(1)),
      effect ? estimateText(effect.heads, formatFactor) : "–",
    ];
  });
  return {
    title,
    findings: [
      ...finding(
        "open edges, where both met their target,",
        effects.map(({ arm, open }) => ({ arm, ratio: open })),
      ),
      ...finding("edges of the circuit", effects.map(({ arm, edges }) => ({ arm, ratio: edges }))),
      ...denseFinding(dense, post),
    ],
    tables: [
      {
        caption:
          "At the same tokens: each arm at its chosen step, on test tokens; means and half of 95 % intervals over " +
          "seeds. Loss less dense is paired by seed. Tokens to τ are those up to the first evaluation with gates at or " +
          "below the target, in millions.",
        head: [
          "constraint after",
          "seeds",
          "open edges",
          "loss",
          "less dense",
          ...(exact ? ["exact answers"] : []),
          "target met",
          "tokens to τ",
        ],
        rows: byTokens,
      },
      {
        caption:
          "At the same loss: circuits of the runs that met their target, which are at the dense model’s validation " +
          "loss plus the slack or below; edges and heads for 90 % of the effect. “Beside post-training” is a ratio, " +
          "paired by seed, with 95 % intervals.",
        head: [
          "constraint after",
          "circuits",
          "edges",
          "beside post-training",
          "heads",
          "beside post-training",
        ],
        rows: byLoss,
      },
    ],
    forests: [
      forestOf(
        "Open edges where both met their target",
        "ratio of open edges",
        effects.map(({ arm, open }) => ({ arm, ratio: open })),
      ),
      forestOf(
        "Edges of the circuit at the same loss",
        "ratio of circuits’ edges",
        effects.map(({ arm, edges }) => ({ arm, ratio: edges })),
      ),
    ],
    adapters: [
      ...new Set(
        [dense, ...arms].flatMap(({ runs }) => runs.flatMap((run) => summaryOf(run)?.adapter ?? [])),
      ),
    ],
  };
}

const millions = (tokens: number): string => (tokens / 1e6).toFixed(2);

interface Compared {
  arm: Arm;
  ratio: Estimate | null;
}

function forestOf(what: string, axis: string, compared: readonly Compared[]): PartResult["forests"][number] {
  return {
    caption: `${what} beside post-training of the same seeds, with 95 % intervals.`,
    axis,
    scale: "log",
    reference: { label: "post-training", value: 1 },
    rows: compared.map(({ arm, ratio }) => ({
      label: `after ${labelOf(arm)}`,
      mean: ratio?.mean ?? null,
      low: ratio?.low ?? null,
      high: ratio?.high ?? null,
    })),
  };
}

/** What differs from post-training, or that nothing does. */
function finding(what: string, compared: readonly Compared[]): string[] {
  const measured = compared.flatMap(({ arm, ratio }) => ratio && ratio.low !== null ? [{ arm, ratio }] : []);
  if (measured.length === 0) return [];
  const apart = measured.filter(({ ratio }) => differs(ratio, 1));
  if (apart.length === 0) {
    return [`In ${what} no arm has an interval that excludes ×1 beside post-training.`];
  }
  return [
    `In ${what} these have an interval that excludes ×1 beside post-training: ${
      apart.map(({ arm, ratio }) => `after ${labelOf(arm)} ${estimateText(ratio, formatFactor)}`).join("; ")
    }.`,
  ];
}

function denseFinding(dense: Arm, post: Arm): string[] {
  const ratio = pairedRatio(valuesOf(dense, edgesAtLoss), valuesOf(post, edgesAtLoss));
  if (!ratio) return [];
  return [
    `The dense model’s circuit has ${
      estimateText(ratio, formatFactor)
    } the edges of that after post-training.`,
  ];
}

/** Tokens up to the first evaluation with gates at or below the target, as a run's metrics have it. */
async function tokensToTarget(folder: string, target: number): Promise<number | null> {
  const rows = await readMetrics(join(folder, "metrics.arrows")).catch(() => []);
  const row = rows.find(({ validation_ce, lambda }) =>
    validation_ce !== null && lambda !== null && validation_ce <= target
  );
  return row?.tokens ?? null;
}

/** The runs of an arm, one for each dense run that has ended, at whose loss it is held. */
export function armRuns(
  share: number,
  dense: readonly SweepRow[],
  common: Readonly<Record<string, unknown>>,
  { gates, slack }: Pick<Design, "gates" | "slack">,
): SweepRun[] {
  return dense.flatMap(({ run, summary }) => {
    if (!summary) return [];
    const { validation } = summary as unknown as PretrainSummary;
    // To four digits, so that a share is a whole step.
    const sparseFrom = Number((share * (1 - POST_TRAINING)).toFixed(4));
    return [sweepRun({
      varied: { sparseFrom },
      common: { ...common, ...gates, sparse: true, targetLoss: Number((validation.ce + slack).toFixed(6)) },
      seed: run.seed,
      command: "pretrain",
    })];
  });
}

async function perform(name: string, design: Design, tools: StudyTools): Promise<PartResult> {
  const { quick } = tools;
  const common = commonOf(design, tools);
  const seeds = quick ? design.seeds.slice(0, 2) : design.seeds;
  const shares = quick ? [0, 1] : SHARES;
  const denseStage = `${name}-dense`;
  const denseRuns = seeds.map((seed) => sweepRun({ varied: {}, common, seed, command: "pretrain" }));
  const denseRows = await tools.runs(denseStage, denseRuns);
  const sparseStage = `${name}-sparse`;
  const ofArms = shares.map((share) => armRuns(share, denseRows, common, design));
  const sparseRows = await tools.runs(sparseStage, ofArms.flat());
  const rowOf = new Map(sparseRows.map((row) => [row.run.name, row]));
  const circuits = { done: 0, of: 0 };
  const measured = async (stage: string, row: SweepRow): Promise<ArmRun> => {
    const summary = row.summary as unknown as PretrainSummary | null;
    const folder = tools.folderOf(stage, row.run);
    // Of a quick study one circuit is enough to see that they are looked for.
    const wanted = summary && isAtLoss(summary) &&
      (!quick || (stage === denseStage && row.run.seed === seeds[0]));
    const circuit = wanted ? await tools.circuits(stage, row.run, design.circuits) : null;
    if (wanted) circuits.of++;
    if (circuit) circuits.done++;
    const target = summary?.constraint?.target_loss;
    return {
      row,
      tokensToTarget: target === undefined ? null : await tokensToTarget(folder, target),
      circuit,
    };
  };
  const armOf = async (share: number | undefined, stage: string, rows: readonly SweepRow[]): Promise<Arm> => {
    const runs: ArmRun[] = [];
    for (const row of rows) runs.push(await measured(stage, row));
    return { share, runs };
  };
  const dense = await armOf(undefined, denseStage, denseRows);
  const arms: Arm[] = [];
  for (const [n, share] of shares.entries()) {
    arms.push(await armOf(share, sparseStage, ofArms[n].map((run) => rowOf.get(run.name)!)));
  }
  const all = [...denseRows, ...sparseRows];
  return {
    ...fromScratchResult(design, dense, arms),
    done: all.filter(({ status }) => status === "finished").length,
    of: seeds.length * (1 + shares.length),
    circuits,
    pages: [],
  };
}

function part(name: string, design: Design, inQuick: boolean): StudyPart {
  return { name, inQuick, perform: (tools) => perform(name, design, tools) };
}

/** The study. */
export const FROM_SCRATCH: Study = {
  name: "from-scratch",
  title: "Sparse from scratch",
  question:
    "Does a model that is trained under the constraint from early on end with fewer open edges and smaller circuits than " +
    "one that is made sparse afterwards?",
  protocol: [
    "Models with random weights are trained on addition (2 layers, 4 heads, width 64, 1,000 steps of 64 rows, ten " +
    "seeds) and English (2 layers, 4 heads, width 64, 1,200 steps of 4 rows of 128 tokens, three seeds): sizes at " +
    "which a run takes one core 45 seconds and two and a half minutes. All arms of a seed have the same initial " +
    "weights, the same tokens in the same order, and one schedule of the learning rate.",
    "The constraint is switched on after 0, 25, 50, 75 or 100 % of the first two thirds of the tokens; before, training is " +
    "dense. The last third is under the constraint in every arm, so that 100 % is post-training with as many tokens in " +
    "all. That post-training shares the schedule of the learning rate, rather than beginning one after another has " +
    "ended, is ours.",
    "The dense arm comes first. The others are held to its loss on the validation tokens at the end, plus a slack of 0.01 " +
    "nats (addition) or 0.025 (English): a constant target, which an arm that is sparse from the start cannot meet for " +
    "long, so that its multiplier stands at its ceiling meanwhile.",
    "The gates’ settings are those that the embedded models recommend for post-training, but for the multiplier, " +
    "which grows by at most 3 % a step, from 0.05 up to 50 (addition) or from 1 up to 20 (English). In pilots of " +
    "single seeds an arm that was sparse from the start did not learn to add with a ceiling of 5; with 50 it did, " +
    "and one that became sparse at 25 %, before its loss began to fall, did not. Such a run ends above its target, " +
    "and is counted so.",
    "At the same tokens: loss and open edges of the step that was chosen on validation tokens, on test tokens. At the same " +
    "loss: circuits (EAP-IG, edges and heads for 90 % of the effect) of runs that met their target; of addition the task " +
    "itself, of English the word before the last.",
    "The seed is the unit: arms are set beside post-training by seed, as ratios with Student’s intervals on the logarithms.",
  ],
  parts: [part("addition", ADDITION, true), part("english", ENGLISH, false)],
};
