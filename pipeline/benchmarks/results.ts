/**
 * What a benchmark leaves: a line of JSON for each task, a table for people, and items with their scores as Arrow.
 *
 * @module
 */
import { Bool, Float64, Int32, Table, tableToIPC, Utf8, vectorFromArray } from "apache-arrow";
import { join } from "node:path";
import { writeAll, writeAtomically, writeJson } from "../files.ts";
import { fixed } from "../fixed.ts";
import { formatTable } from "../report/table.ts";
import type { FrozenType } from "../model/op.ts";
import type { Item, Needle } from "./items.ts";
import { ITEMS, RESULTS } from "./output_folder.ts";
import type { BenchmarkScore, Differences, ItemScore, PlacedMean } from "./scores.ts";

/** What one model did. */
export interface ModelScores {
  /** The model as it was named, with its commit on the hub. */
  model: string;
  mode: "gated" | "dense";
  /** How its matrices lay on the device; left out: as f32. */
  frozen?: FrozenType;
  /** Items that are longer than the model, and were cut at their beginning. */
  cut: number;
  items: readonly ItemScore[];
  score: BenchmarkScore;
}

/** A benchmark and what came of it. */
export interface BenchmarkResult {
  task: string;
  items: readonly Item[];
  /** One, or with another to set beside it two. */
  models: readonly ModelScores[];
  differences?: Differences;
}

/** One task as `--json` prints it. */
export function jsonOf({ task, models: [own, other], differences }: BenchmarkResult): object {
  const told = ({ model, mode, frozen, cut, score }: ModelScores): object => ({
    model,
    mode,
    ...(frozen ? { frozen } : {}),
    cut,
    ...score,
  });
  return { task, ...told(own), ...(other ? { against: told(other), difference: differences } : {}) };
}

const percent = (value: number | null | undefined): string => value == null ? "" : (100 * value).toFixed(2);

const HEAD = ["", "model", "items", "cut", "acc", "±", "acc_norm", "±", "perplexity", "bits/byte"];

const named = ({ model, mode, frozen }: ModelScores): string =>
  `${model} (${frozen ? `${mode}, ${frozen}` : mode})`;

/** The same for people, all tasks in one table, and for each whose items are made one by their lengths and depths. */
export function resultsText(results: readonly BenchmarkResult[]): string {
  return [tasksText(results), ...results.map(placesText).filter((text) => text !== "")].join("\n\n");
}

/** Right answers by length and by depth, of all models; empty of items that have neither. */
function placesText({ task, models }: BenchmarkResult): string {
  const table = (name: string, of: (score: BenchmarkScore) => readonly (readonly [string, PlacedMean])[]) => {
    const [rows, ...others] = models.map(({ score }) => of(score));
    return rows.map(([label, mean], n) => [
      `${name} ${label}`,
      String(mean.n),
      mean.distance.toFixed(1),
      ...[mean, ...others.map((rows) => rows[n][1])].flatMap(({ acc, acc_stderr }) =>
        [acc, acc_stderr].map(percent)
      ),
    ]);
  };
  const rows = [
    ...table("length", ({ by_length = [] }) => by_length.map((mean) => [String(mean.length), mean])),
    ...table("depth", ({ by_depth = [] }) => by_depth.map((mean) => [`${mean.depth} %`, mean])),
  ];
  if (rows.length === 0) return "";
  const head = [task, "items", "distance", ...models.flatMap((model) => [named(model), "±"])];
  return `${
    formatTable([head, ...rows])
  }\nacc in %; length: of an item in tokens; depth: how much of the filler stands ` +
    "before the number; distance: mean tokens from the number back to where it was told";
}

/** All tasks in one table. */
function tasksText(results: readonly BenchmarkResult[]): string {
  const rows = results.flatMap(({ task, models, differences }) => [
    ...models.map((of, n) => {
      const { cut, score } = of;
      const perplexity = score.perplexity ?? score.word_perplexity;
      return [
        n === 0 ? task : "",
        named(of),
        String(score.n),
        cut > 0 ? String(cut) : "",
        ...[score.acc, score.acc_stderr, score.acc_norm, score.acc_norm_stderr].map(percent),
        perplexity === undefined ? "" : fixed(perplexity, 2),
        score.bits_per_byte?.toFixed(4) ?? "",
      ];
    }),
    ...Object.entries(differences ?? {}).map(([metric, { value, low, high, p_value: p }]) => {
      const isShare = metric.startsWith("acc");
      const shown = (number: number): string =>
        `${number < 0 ? "−" : "+"}${isShare ? percent(Math.abs(number)) : Math.abs(number).toFixed(4)}`;
      const text = `${metric} ${shown(value)} [${shown(low)}, ${shown(high)}]${
        p === undefined ? "" : `, p ${p.toPrecision(2)}`
      }`;
      return ["", text, ...Array<string>(HEAD.length - 2).fill("")];
    }),
  ]);
  const used = HEAD.map((name, n) => name === "" || rows.some((row) => row[n] !== ""));
  const shown = [HEAD, ...rows].map((row) => row.filter((_, n) => used[n]));
  const differences = results.flatMap((result) => Object.values(result.differences ?? {}));
  const notes = [
    ...(used[HEAD.indexOf("acc")] ? ["acc and acc_norm in %, ± their standard errors"] : []),
    ...(used[HEAD.indexOf("cut")]
      ? ["cut: of the items, those longer than the model, of which it saw the end alone"]
      : []),
    ...(differences.length > 0
      ? ["below two models the first's less the second's with 95 % of a bootstrap over items"]
      : []),
    ...(differences.some(({ p_value }) => p_value !== undefined) ? ["p by McNemar's exact test"] : []),
  ];
  return formatTable(shown) + (notes.length > 0 ? `\n${notes.join("; ")}` : "");
}

const needleOf = (item: Item): Needle | undefined => item.kind === "word" ? item.needle : undefined;

/** Writes `results.json`, and `items.arrow` with a row for each choice of each item and model. */
export async function saveBenchmarks(folder: string, results: readonly BenchmarkResult[]): Promise<void> {
  const rows = results.flatMap(({ task, items, models }) =>
    models.flatMap(({ model, mode, items: scores }) =>
      items.flatMap((item, index) => {
        const { logLikelihoods, greedy, acc, accNorm } = scores[index];
        return logLikelihoods.map((logLikelihood, choice) => ({
          task,
          model,
          mode,
          item: index,
          choice,
          set: item.kind === "choices" ? item.set ?? null : null,
          ...(needleOf(item) ?? { length: null, depth: null, distance: null }),
          // A document is too long for a table.
          context: item.kind === "rolling" ? null : item.requests[choice].context,
          continuation: item.kind === "rolling" ? null : item.requests[choice].continuation,
          right: item.kind === "choices" ? item.right[choice] : null,
          logLikelihood,
          greedy: greedy[choice],
          acc: Number.isNaN(acc) ? null : acc,
          accNorm: Number.isNaN(accNorm) ? null : accNorm,
        }));
      })
    )
  );
  const texts = (name: "task" | "model" | "mode" | "set" | "context" | "continuation") =>
    vectorFromArray(rows.map((row) => row[name]), new Utf8());
  const numbers = (name: "logLikelihood" | "acc" | "accNorm") =>
    vectorFromArray(rows.map((row) => row[name]), new Float64());
  const places = (name: keyof Needle) => vectorFromArray(rows.map((row) => row[name]), new Int32());
  const table = new Table({
    task: texts("task"),
    model: texts("model"),
    mode: texts("mode"),
    item: vectorFromArray(rows.map(({ item }) => item), new Int32()),
    choice: vectorFromArray(rows.map(({ choice }) => choice), new Int32()),
    set: texts("set"),
    context: texts("context"),
    continuation: texts("continuation"),
    right: vectorFromArray(rows.map(({ right }) => right), new Bool()),
    log_likelihood: numbers("logLikelihood"),
    greedy: vectorFromArray(rows.map(({ greedy }) => greedy), new Bool()),
    acc: numbers("acc"),
    acc_norm: numbers("accNorm"),
    length: places("length"),
    depth: places("depth"),
    distance: places("distance"),
  });
  const bytes = tableToIPC(table, "file");
  await writeAtomically(join(folder, ITEMS), (file) => writeAll(file, bytes));
  await writeJson(join(folder, RESULTS), results.map(jsonOf));
}
