/**
 * `deno task study sensitivity`: how the result of sparse post-training depends on its settings.
 *
 * @module
 */
import { join } from "node:path";
import { PROJECT } from "../files.ts";
import { readRunConfig } from "../runs/run_config.ts";
import { formatFactor, formatMeanShare, formatShare, formatSigned } from "../report/progress.ts";
import { SPARSIFY } from "../settings.ts";
import { resolveSettings } from "../settings/resolve.ts";
import { groupsOf, type SweepGroup, type SweepRow } from "../sweep/results.ts";
import { type SweepRun, sweepRuns } from "../sweep/sweep_file.ts";
import type { SparsifySummary } from "../training/sparsify.ts";
import { bySeed, differs, type Estimate, estimateText, pairedDifference, pairedRatio } from "./paired.ts";
import { pagesOf, type PartResult, type Study, type StudyPart, type StudyTools } from "./study.ts";

type Settings = Readonly<Record<string, number>>;

/** What is varied of one model, from its own recommendation, one setting at a time. */
interface Design {
  model: string;
  title: string;
  /** What all its runs are given beside what the model recommends. */
  sizes: Readonly<Record<string, number>>;
  /** Other values of each setting than the recommended one. */
  values: Readonly<Record<string, readonly number[]>>;
  /** Distillation and bias together, where no other setting is so. */
  together: readonly Settings[];
}

const ADDITION: Design = {
  model: "data/addition",
  title: "Addition of two numbers",
  sizes: { steps: 600 },
  values: {
    temperature: [0.5, 2],
    gateBias: [0, 1.5, 6],
    distill: [0.3, 1],
    saturationWeight: [0, 1e-3, 0.1],
    lambdaRate: [0.01, 0.04],
    lambdaGain: [1.5, 3],
    slack: [0, 0.003, 0.03],
    lr: [5e-4, 2e-3],
  },
  together: [{ distill: 1, gateBias: 0 }],
};

const ENGLISH: Design = {
  model: "data/english",
  title: "English",
  sizes: { evalTokens: 32768 },
  values: {
    ...ADDITION.values,
    gateBias: [1.5, 3, 6],
    distill: [0, 1, 16],
    lambdaRate: [0.015, 0.06],
    slack: [0, 0.05, 0.1],
    lr: [7.5e-4, 3e-3],
  },
  together: [{ distill: 0, gateBias: 3 }],
};

const SEEDS = [1, 2, 3];

/** Sizes of `--quick`: steps of milliseconds. */
const QUICK = {
  steps: 6,
  batch: 16,
  evalTokens: 256,
  validationTokens: 256,
  evalEvery: 3,
  checkpointEvery: 6,
  autotune: false,
};

/** The runs of a design: the recommended settings first. */
function sensitivityRuns(
  { model, sizes, values, together }: Design,
  { quick, project }: Pick<StudyTools, "quick" | "project">,
): SweepRun[] {
  const one = Object.entries(values).flatMap(([name, of]) => of.map((value) => ({ [name]: value })));
  return sweepRuns(
    {
      // How much of the loss is owed to training on is not asked here.
      settings: { model: join(project, model), control: false, ...(quick ? QUICK : sizes) },
      list: quick ? [{}, { temperature: 2 }] : [{}, ...one, ...together],
      seeds: quick ? SEEDS.slice(0, 2) : SEEDS,
    },
    "the study of sensitivity",
    project,
  );
}

/**
 * What the model recommends of the settings that are varied, or what they are by default: as one of the runs in these
 * folders began, or else as they are now.
 */
async function recommendedOf({ model, values }: Design, begun: readonly string[]): Promise<Settings> {
  const settings = await settingsOfFirst(begun) ?? await resolveSettings(SPARSIFY, {
    given: { model: join(PROJECT, model) },
    config: undefined,
    folder: PROJECT,
  });
  return Object.fromEntries(
    Object.keys(values).map((name) => [name, settings[name as keyof typeof settings] as number]),
  );
}

/** The settings of the first run in these folders that has begun. */
async function settingsOfFirst(folders: readonly string[]): Promise<Settings | undefined> {
  for (const folder of folders) {
    const config = await readRunConfig(join(folder, "config.json")).catch(() => undefined);
    if (config) return config.settings as Settings;
  }
  return undefined;
}

const open = ({ sparse }: SparsifySummary): number => sparse.open_fraction;
const loss = ({ sparse }: SparsifySummary): number => sparse.ce;

/** The settings of a group in words. */
function label(group: SweepGroup): string {
  const entries = Object.entries(group.varied);
  return entries.length === 0
    ? "as recommended"
    : entries.map(([name, value]) => `${name} ${value}`).join(", ");
}

/** What the rows of a design say. */
export function sensitivityResult(
  design: { title: string; recommended: Settings },
  rows: readonly SweepRow[],
  stage: string,
): PartResult {
  const groups = groupsOf(rows);
  const [base, ...others] = groups;
  const [baseOpen, baseLoss] = [open, loss].map((read) => bySeed(base.rows, read));
  const effects = others.map((group) => ({
    group,
    ratio: pairedRatio(bySeed(group.rows, open), baseOpen),
    difference: pairedDifference(bySeed(group.rows, loss), baseLoss),
  }));
  const line = (group: SweepGroup, ratio: Estimate | null, difference: Estimate | null): string[] => [
    label(group),
    formatMeanShare(group.open),
    estimateText(ratio, formatFactor),
    group.above ? formatSigned(group.above.mean) : "–",
    estimateText(difference, formatSigned),
    `${group.feasible} of ${group.finished}`,
  ];
  const settings = Object.entries(design.recommended).map(([name, value]) => `${name} ${value}`).join(", ");
  return {
    title: design.title,
    done: rows.filter(({ status }) => status === "finished").length,
    of: rows.length,
    findings: findingsOf(base, effects),
    tables: [{
      caption:
        `Means over seeds. Recommended: ${settings}. “Beside recommended” is paired by seed: a ratio of open ` +
        `edges, and a difference of test loss in nats, with 95 % intervals.`,
      head: [
        "setting",
        "open edges",
        "beside recommended",
        "loss less dense",
        "beside recommended",
        "target met",
      ],
      rows: [
        line(base, null, null),
        ...effects.map(({ group, ratio, difference }) => line(group, ratio, difference)),
      ],
    }],
    forests: [{
      caption: "Open edges beside those of the recommended settings, with 95 % intervals over seeds.",
      axis: "ratio of open edges",
      scale: "log",
      reference: { label: "as recommended", value: 1 },
      rows: effects.map(({ group, ratio }) => ({
        label: label(group),
        mean: ratio?.mean ?? null,
        low: ratio?.low ?? null,
        high: ratio?.high ?? null,
      })),
    }],
    pages: pagesOf(stage, rows, "every run, by open edges and loss"),
    adapters: [...new Set(rows.flatMap(({ summary }) => summary ? [summary.adapter] : []))],
  };
}

interface Effect {
  group: SweepGroup;
  ratio: Estimate | null;
}

/** The figures in sentences. */
function findingsOf(base: SweepGroup, effects: readonly Effect[]): string[] {
  if (!base.open) return ["No run with the recommended settings has ended."];
  const findings = [
    `With the recommended settings ${
      formatShare(base.open.mean)
    } of the edges stay open (${base.finished} seeds), and ` +
    `${base.feasible} of ${base.finished} runs meet their target.`,
  ];
  const measured = effects.flatMap(({ group, ratio }) => ratio ? [{ group, ratio }] : []);
  if (measured.length === 0) return findings;
  // A setting that buys few edges with a loss above the target is no better.
  const met = measured.filter(({ group }) => group.feasible === group.rows.length);
  const apart = met.filter(({ ratio }) => differs(ratio, 1));
  const list = (of: typeof measured): string =>
    of.map(({ group, ratio }) => `${label(group)} ${estimateText(ratio, formatFactor)}`).join("; ");
  findings.push(
    apart.length === 0
      ? `Of ${met.length} other settings whose runs all met their target none has an interval that excludes ×1.`
      : `Of ${met.length} other settings whose runs all met their target these have an interval that excludes ×1: ${
        list(apart)
      }.`,
  );
  const missed = measured.filter(({ group }) => group.feasible < group.finished);
  if (missed.length > 0) {
    findings.push(
      `The target was missed with ${
        missed.map(({ group }) => `${label(group)} (${group.finished - group.feasible} of ${group.finished})`)
          .join("; ")
      }.`,
    );
  }
  return findings;
}

function part(name: string, design: Design, inQuick: boolean): StudyPart {
  return {
    name,
    inQuick,
    perform: async (tools) => {
      const rows = await tools.runs(name, sensitivityRuns(design, tools));
      const asRecommended = rows.filter(({ run }) => Object.keys(run.varied).length === 0);
      const recommended = await recommendedOf(
        design,
        asRecommended.map(({ run }) => tools.folderOf(name, run)),
      );
      return sensitivityResult({ title: design.title, recommended }, rows, name);
    },
  };
}

/** The study. */
export const SENSITIVITY: Study = {
  name: "sensitivity",
  title: "Sensitivity to settings",
  question: "How do open edges and loss depend on the settings of sparse post-training, each by itself?",
  protocol: [
    "Both embedded models, from the settings that they recommend (sparsify.json), one setting changed at a time: the " +
    "gates’ temperature and bias, the weights of distillation and of the pull on saturated gates, the rate and the " +
    "proportional factor of the multiplier, slack and learning rate. Distillation and bias are also set together, so " +
    "that with and without each stand beside the other: the paper’s ablations. The values are ours.",
    "Three seeds each, the same for all settings. Data and target are those that the model recommends, and so are " +
    "English’s steps; addition has 600, a third of those recommended, and English is measured on 32,768 test " +
    "tokens. There is no dense control, so that what distils does so from the dense model.",
    "What is measured: open edges and loss with hard gates on test tokens, at the step that was chosen on validation " +
    "tokens. A setting is set beside the recommended ones by seed; intervals are Student’s t over seeds, of three seeds " +
    "wide ones. Some twenty comparisons are made of each model, of which at 95 % one excludes “no difference” by chance.",
    "A setting whose runs missed their target may have few edges or many: it is named, and not counted as better.",
  ],
  parts: [part("addition", ADDITION, true), part("english", ENGLISH, false)],
};
