/**
 * A finished run as one page that needs nothing else: the result in words, the table, charts as SVG, which heads stay
 * open, and what is needed to make it again.
 *
 * No script, and no `style` attribute: `deno task serve` lets only the one style block through.
 *
 * @module
 */
import glossary from "./glossary.json" with { type: "json" };
import style from "./report.css" with { type: "text" };
import { readSlackChanges, type SlackChange } from "../runs/control.ts";
import { exists, readJson, writeAll, writeAtomically } from "../files.ts";
import { fixed } from "../fixed.ts";
import { flagsOf, shellWord } from "../flags.ts";
import { frontSection } from "./front_chart.ts";
import { type Filling, type Markup, markup } from "./markup.ts";
import { pageHtml } from "./page.ts";
import { type MetricRow, readMetrics } from "../runs/metrics.ts";
import type { PretrainSummary } from "../training/pretrain.ts";
import { LIVE_EDGES } from "../training/evaluate.ts";
import { formatDuration, formatShare } from "./progress.ts";
import { mainRows, reportCharts, type RunEvent } from "./report_charts.ts";
import { PRETRAIN, SPARSIFY } from "../settings.ts";
import { faultOfNeed } from "../settings/checks.ts";
import type { SettingsTable } from "../settings/table.ts";
import { readRunConfig, type RunConfig } from "../runs/run_config.ts";
import type { RunFolder } from "../runs/run_folder.ts";
import { AGAINST_DIVERGENCE, healthBoundsOf, signaturesOf, tellsDivergence } from "../training/signatures.ts";
import type { SparsifySummary } from "../training/sparsify.ts";

/** What a report is made of. */
export interface ReportData {
  /** The run's. */
  name: string;
  config: RunConfig;
  rows: readonly MetricRow[];
  summary: SparsifySummary | PretrainSummary;
  slackChanges?: readonly SlackChange[];
}

/** Rows of the table of evaluations, at most. */
const LISTED_EVALUATIONS = 100;
/** Settings that say where and how a run is shown, not what it is. */
const BESIDE_THE_POINT = ["runs", "name", "json", "quiet", "debug", "serve", "port"];
const PAPER = "https://arxiv.org/abs/2512.05865";

/**
 * Writes a finished run's report.html, atomically.
 *
 * @throws {UserError} when the run's config.json or metrics.arrows is damaged
 */
export async function writeReport(folder: RunFolder): Promise<void> {
  const page = reportHtml({
    name: folder.name,
    config: await readRunConfig(folder.config),
    rows: await exists(folder.metrics) ? await readMetrics(folder.metrics) : [],
    summary: await readJson(folder.summary) as ReportData["summary"],
    slackChanges: await readSlackChanges(folder.path),
  });
  await writeAtomically(folder.report, (file) => writeAll(file, new TextEncoder().encode(page)));
}

/** The report as HTML. */
export function reportHtml(data: ReportData): string {
  const { name, config } = data;
  const { model } = config.settings as { model?: string };
  const subject = model === undefined ? "a new model" : String(model);
  const sparsified = isSparsified(data.summary) ? data.summary : undefined;
  const events = eventsOf(data);
  return pageHtml({
    title: `${name}: ${sparsified ? "sparse attention of" : "pre-training of"} ${subject}`,
    styles: [style],
    main: markup`<p class="of">${
      sparsified ? markup`<a href="${PAPER}">Sparse attention post-training</a> of` : "Pre-training of"
    } ${subject}</p>
<h1>${name}</h1>
${sparsified ? sparsifiedResult(sparsified, data, events) : pretrainedResult(data.summary as PretrainSummary)}
<h2>The course of the run</h2>
${reportCharts({ config, rows: data.rows, summary: sparsified, events })}
${eventList(events)}
${sparsified && frontSection(sparsified)}
${sparsified && headMap(sparsified.sparse.open_by_head)}
<h2>How it was made</h2>
${facts(data)}
${evaluations(data.rows, sparsified?.sparse.feasible ? sparsified.sparse.step : undefined)}
${settingsTable(config)}
${words(glossary)}`,
  });
}

function isSparsified(summary: ReportData["summary"]): summary is SparsifySummary {
  return "sparse" in summary;
}

/** A number that may be missing, as JSON has no NaN. */
type Value = number | null | undefined;

const isNumber = (value: Value): value is number => Number.isFinite(value);
const MISSING = "–";

/** A value with `digits` decimals. */
function decimals(value: Value, digits: number): string {
  return fixed(value, digits).replace("-", "−");
}

const share = (value: Value): string => isNumber(value) ? formatShare(value) : MISSING;
const count = (value: Value): string => isNumber(value) ? value.toLocaleString("en-US") : MISSING;
/** Decimals that losses of this size need: of one near 0, three would say nothing. */
const lossDigits = (...losses: Value[]): number =>
  losses.some((loss) => isNumber(loss) && loss < 0.1) ? 5 : 3;

/** A loss beside another: `0.045 below`. */
function beside(loss: Value, other: Value, digits: number): string | undefined {
  if (!isNumber(loss) || !isNumber(other)) return undefined;
  const difference = decimals(Math.abs(loss - other), digits);
  return Number(difference) === 0 ? "the same as" : `${difference} ${loss < other ? "below" : "above"}`;
}

/** The result in words. */
export function resultSentence({ dense, control, sparse, test_tokens }: SparsifySummary): string {
  const digits = lossDigits(dense.ce, sparse.ce);
  const distance = beside(sparse.ce, dense.ce, digits);
  const sentences = [
    `${share(sparse.open_fraction)} of the attention edges stay open at a loss of ${
      decimals(sparse.ce, digits)
    } nats on ${count(test_tokens)} test tokens${distance ? `, ${distance} the dense model’s` : ""}.`,
  ];
  if (control) {
    const gain = beside(control.ce, sparse.ce, digits);
    sentences.push(
      `Fine-tuned as long without gates, the dense model reaches ${decimals(control.ce, digits)}${
        gain ? `, ${gain} the sparse one` : ""
      }.`,
    );
  }
  return sentences.join(" ");
}

/** Whether the target is met, by the step that was chosen, and what was named on the way. */
function outcome(
  { sparse, target_loss, validation_tokens, steps }: SparsifySummary,
  rows: readonly MetricRow[],
  signatures: number,
): Markup {
  const row = mainRows(rows).findLast(({ step }) => step === sparse.step);
  const target = row?.target ?? target_loss;
  const digits = Math.max(4, lossDigits(row?.validation_ce, target));
  const measured = isNumber(row?.validation_ce)
    ? ` on ${count(validation_tokens)} validation tokens: loss ${
      decimals(row.validation_ce, digits)
    } nats, target τ ${decimals(target, digits)}, ${share(row.open_fraction)} of the edges open`
    : "";
  const which = sparse.feasible ? "Chosen step" : "Last step";
  const warnings = signatures === 0
    ? ""
    : ` ${count(signatures)} failure signature${signatures === 1 ? "" : "s"} on the way, listed below.`;
  return markup`<p class="outcome"><strong class="${sparse.feasible ? "met" : "missed"}">${
    sparse.feasible ? "✓ Target met" : "✕ Target missed"
  }</strong>${which} ${count(sparse.step)} of ${count(steps)}${measured}.${warnings}</p>`;
}

function sparsifiedResult(
  summary: SparsifySummary,
  { config: { settings }, rows: metrics }: ReportData,
  events: readonly NamedEvent[],
): Markup {
  const { dense, control, sparse, heads, steps, target_loss, dense_validation_ce } = summary;
  const digits = Math.max(4, lossDigits(dense.ce, sparse.ce, control?.ce));
  const exact = Math.max(dense.exact_rows, sparse.exact_rows) > 0.01;
  const { context } = settings as { context?: number };
  // A query at position n looks at itself and the n before it.
  const pairs = isNumber(context) ? (context + 1) / 2 : null;
  const models = [
    { label: "dense", losses: dense, open: 1, edges: pairs, dead: 0, live: heads },
    ...(control
      ? [{ label: "dense fine-tuned", losses: control, open: 1, edges: pairs, dead: 0, live: heads }]
      : []),
    {
      label: "sparse",
      losses: sparse,
      open: sparse.open_fraction,
      edges: sparse.edges_per_query,
      dead: sparse.dead_queries,
      live: sparse.live_heads,
    },
  ];
  const rows: [string, (model: typeof models[number]) => string][] = [
    ["loss, nats", ({ losses }) => decimals(losses.ce, digits)],
    ["perplexity", ({ losses }) => decimals(losses.perplexity, losses.perplexity < 2 ? 4 : 2)],
    ...(exact
      ? [["exact answers", ({ losses }) => share(losses.exact_rows)] satisfies typeof rows[number]]
      : []),
    ["open edges", ({ open }) => share(open)],
    ["edges per query", ({ edges }) => decimals(edges, 2)],
    ["queries without an edge", ({ dead }) => share(dead)],
    [
      `live heads (an edge for every ${1 / LIVE_EDGES} queries or fewer)`,
      ({ live }) => `${count(live)} of ${count(heads)}`,
    ],
  ];
  const chosen = (n: number): Markup | undefined =>
    n === models.length - 1 ? markup` class="chosen"` : undefined;
  const target = `τ = ${decimals(target_loss, digits)} nats`;
  const measured = `${count(summary.validation_tokens)} validation tokens, where the dense model’s loss is ${
    decimals(dense_validation_ce, digits)
  }`;
  const signatures = events.filter(({ isSignature }) => isSignature).length;
  return markup`${outcome(summary, metrics, signatures)}
<p class="result">${resultSentence(summary)}</p>
${
    sparse.feasible ? undefined : markup`<p class="warning">The constraint held at no evaluation: the loss was
never at or below ${target} on ${measured}. These are the last step’s weights.${
      events.some(({ message }) => tellsDivergence(message))
        ? ` The loss ran away. ${AGAINST_DIVERGENCE}.`
        : undefined
    }</p>`
  }
${
    scrollable("Results", [
      markup`<table class="results"><thead><tr><td></td>${
        models.map(({ label }, n) => markup`<th scope="col"${chosen(n)}>${label}</th>`)
      }</tr></thead><tbody>${
        rows.map(([label, cell]) =>
          markup`<tr><th scope="row">${label}</th>${
            models.map((model, n) => markup`<td${chosen(n)}>${cell(model)}</td>`)
          }</tr>`
        )
      }</tbody></table>`,
    ])
  }
<p class="note">Measured on ${
    count(summary.test_tokens)
  } test tokens that nothing was trained on or chosen by. ${
    sparse.feasible
      ? `The weights are those of step ${count(sparse.step)} of ${
        count(steps)
      }: of the evaluations at or below ` +
        `${target}, the one with the fewest open edges. τ is held on ${measured}.`
      : undefined
  } Edges per query are those of one head.${
    control
      ? undefined
      : " No dense control was trained, so how much of the loss is owed to training on alone is not known."
  }</p>`;
}

function pretrainedResult({ test, validation, parameters }: PretrainSummary): Markup {
  const digits = Math.max(4, lossDigits(test.ce));
  return markup`<p class="result">A model of ${count(parameters)} parameters reaches a loss of ${
    decimals(test.ce, digits)
  } nats (perplexity ${decimals(test.perplexity, 2)}) on ${count(test.tokens)} test tokens${
    test.open_fraction < 1 ? `, with ${share(test.open_fraction)} of the attention edges open` : undefined
  }.</p>
<p class="note">On ${count(validation.tokens)} validation tokens: ${
    decimals(validation.ce, digits)
  } nats. Next token right: ${share(test.accuracy)}. Rows answered exactly: ${share(test.exact_rows)}.</p>`;
}

/** Something that happened, and whether it is a sign of failure rather than somebody's wish. */
interface NamedEvent extends RunEvent {
  isSignature: boolean;
}

/** Failure signatures and what was changed on the way, in order. */
function eventsOf({ rows, config, slackChanges = [] }: ReportData): NamedEvent[] {
  const found = signaturesOf(mainRows(rows), healthBoundsOf(config));
  const changes = slackChanges.map(({ step, slack }) => ({
    step: step + 1,
    message: `slack set to ${decimals(slack, 4)} nats from step ${step + 1} on`,
  }));
  const settings = (config.changes ?? []).map(({ setting, step, before, now }) => ({
    step: step + 1,
    message: `${setting} ${now} in place of ${before} from step ${step + 1} on, as it was resumed`,
  }));
  return [
    ...found.map(({ step, message }) => ({ step, message, isSignature: true })),
    ...[...changes, ...settings].map((event) => ({ ...event, isSignature: false })),
  ].sort((a, b) => a.step - b.step);
}

function eventList(events: readonly RunEvent[]): Markup {
  if (events.length === 0) return markup`<p class="note">No failure signature was named.</p>`;
  return markup`<h2>What happened on the way</h2>
<p class="note">The numbers are those in the charts.</p>
<ol>${events.map(({ message }) => markup`<li>${message}</li>`)}</ol>`;
}

/** Upper ends of the classes of open fractions, by which a cell is coloured; the first is 0 itself. */
export const CLASSES = [0, 0.0001, 0.001, 0.01, 0.05, 0.2, 0.5, 1];

/** Percent as it fits a cell. */
function cellText(fraction: Value): string {
  if (!isNumber(fraction)) return MISSING;
  const percent = 100 * fraction;
  if (percent === 0) return "0";
  if (percent < 0.001) return "<0.001";
  return percent >= 10 ? percent.toFixed(1) : String(Number(percent.toPrecision(2)));
}

function headMap(openByHead: readonly (readonly Value[])[]): Markup | undefined {
  const heads = Math.max(0, ...openByHead.map((row) => row.length));
  if (heads === 0) return undefined;
  const classOf = (fraction: Value): number => {
    const found = isNumber(fraction) ? CLASSES.findIndex((end) => fraction <= end) : 0;
    return found < 0 ? CLASSES.length - 1 : found;
  };
  const percent = (fraction: number): string => String(100 * fraction);
  const key = CLASSES.map((end, n) =>
    markup`<li class="h${n}">${
      n === 0 ? "0" : `${n === 1 ? ">0" : percent(CLASSES[n - 1])} to ${percent(end)}`
    }</li>`
  );
  return markup`<h2>Open edges by head</h2>
<figure><figcaption><span>Per cent of a head’s causal pairs that are open in the saved model, on the test tokens.</span></figcaption>
${
    scrollable("Open edges by layer and head", [
      markup`<table class="heads"><thead><tr><td></td>${
        Array.from({ length: heads }, (_, head) => markup`<th scope="col">head ${head}</th>`)
      }</tr></thead><tbody>${
        openByHead.map((row, layer) =>
          markup`<tr><th scope="row">layer ${layer}</th>${
            row.map((fraction) => markup`<td class="h${classOf(fraction)}">${cellText(fraction)}</td>`)
          }</tr>\n`
        )
      }</tbody></table>`,
    ])
  }
<ul class="key" aria-label="Colours, in per cent">${key}</ul></figure>`;
}

/** A wide thing that scrolls by itself, also with the keyboard. */
function scrollable(label: string, content: Filling): Markup {
  return markup`<div class="scroll" role="region" aria-label="${label}" tabindex="0">${content}</div>`;
}

function facts({ name, config, summary, rows, slackChanges = [] }: ReportData): Markup {
  const { model, tokenizer, versions } = config;
  const { layers, heads, width, contextLength, vocabularySize } = model.config;
  const skipped = rows.filter((row) => row.skipped).length;
  const sparsified = isSparsified(summary) ? summary : undefined;
  const [validation, test] = sparsified
    ? [sparsified.validation_tokens, sparsified.test_tokens]
    : [(summary as PretrainSummary).validation.tokens, (summary as PretrainSummary).test.tokens];
  const entries: [string, Filling][] = [
    [
      "Model",
      `${layers} layers of ${heads} heads, width ${width}, context ${count(contextLength)}, vocabulary ${
        count(vocabularySize)
      }`,
    ],
    ["Model’s hash", markup`<code>${model.hash}</code>`],
    ["Tokenizer’s hash", markup`<code>${tokenizer.hash}</code>`],
    [
      "Tokens",
      `${count(summary.tokens)} in ${count(summary.steps)} training steps; ${count(validation)} validation, ${
        count(test)
      } test`,
    ],
    ["Seed", String(summary.seed)],
    ["Adapter", summary.adapter],
    ["Versions", `sparse-attention ${versions?.project ?? MISSING}, Deno ${versions?.deno ?? MISSING}`],
    [
      "Wall time",
      isNumber(summary.seconds) ? `${formatDuration(summary.seconds)}, without what a kill lost` : MISSING,
    ],
    ...(skipped > 0
      ? [["Skipped steps", `${count(skipped)}, as their gradient was not finite`] as [string, Filling]]
      : []),
  ];
  return markup`<dl>${entries.map(([term, value]) => markup`<dt>${term}</dt><dd>${value}</dd>\n`)}</dl>
<details><summary>Make it again</summary>
<pre>${commandOf(config).map(shellWord).join(" \\\n  ")}</pre>
<p class="note">${
    config.changes?.length
      ? "It has the last value of each setting and gives other bits than this run’s, as settings changed on the way" +
        (slackChanges.length > 0 ? ", and the slack, of which the command has nothing." : ".")
      : slackChanges.length > 0
      ? "It gives other bits than this run’s: the slack was changed on the way, of which the command has nothing."
      : "The same bits come from the same adapter."
  } Paths are as they were given to <code>${name}</code>.</p>
</details>`;
}

/** The arguments that make the run again: all settings that have an effect, also the defaults, which may change. */
export function commandOf(
  { command, settings, ranks = 1 }: Pick<RunConfig, "command" | "settings" | "ranks">,
): string[] {
  const table: SettingsTable = command === "pretrain" ? PRETRAIN : SPARSIFY;
  const own = Object.entries(settings).filter(([name]) =>
    !BESIDE_THE_POINT.includes(name) &&
    !(name in table && faultOfNeed(table, name, settings) !== undefined)
  );
  const launcher = ranks > 1 ? ["mpirun", "-n", String(ranks)] : [];
  return [...launcher, "deno", "task", command, ...flagsOf(Object.fromEntries(own))];
}

function evaluations(rows: readonly MetricRow[], chosen: Value): Markup | undefined {
  const all = mainRows(rows).filter((row) => row.validation_ce !== null);
  if (all.length === 0) return undefined;
  const every = Math.ceil(all.length / LISTED_EVALUATIONS);
  const shown = all.filter((row, n) => (all.length - 1 - n) % every === 0 || row.step === chosen);
  const digits = Math.max(4, lossDigits(...shown.map((row) => row.validation_ce)));
  const heads = [
    "step",
    "tokens",
    "training loss",
    "validation loss",
    "τ",
    "λ in the loss",
    "open edges",
    "queries without an edge",
  ];
  return markup`<details><summary>Evaluations</summary>
${
    scrollable("Evaluations", [
      markup`<table>${
        every > 1
          ? markup`<caption>One in ${every} of ${count(all.length)}, and the chosen one.</caption>`
          : undefined
      }<thead><tr>${heads.map((head) => markup`<th scope="col">${head}</th>`)}</tr></thead><tbody>${
        shown.map((row) =>
          markup`<tr><th scope="row">${count(row.step)}${row.step === chosen ? " (chosen)" : undefined}</th>${
            [
              count(row.tokens),
              decimals(row.ce, digits),
              decimals(row.validation_ce, digits),
              decimals(row.target, digits),
              isNumber(row.lambda_acting) ? row.lambda_acting.toPrecision(3) : MISSING,
              share(row.open_fraction),
              share(row.dead_queries),
            ].map((cell) => markup`<td>${cell}</td>`)
          }</tr>\n`
        )
      }</tbody></table>`,
    ])
  }</details>`;
}

/** The words that the report uses, each once. */
function words(entries: readonly { term: string; text: string }[]): Markup {
  return markup`<details><summary>Words</summary>
<dl>${entries.map(({ term, text }) => markup`<dt>${term}</dt><dd>${text}</dd>\n`)}</dl></details>`;
}

function settingsTable({ settings }: RunConfig): Markup {
  const text = (value: unknown): string =>
    Array.isArray(value)
      ? value.join(", ")
      : typeof value === "string"
      ? value
      : JSON.stringify(value) ?? MISSING;
  return markup`<details><summary>Settings</summary>
<div class="scroll"><table class="settings"><tbody>${
    Object.entries(settings).map(([name, value]) =>
      markup`<tr><th scope="row"><code>${name}</code></th><td>${text(value)}</td></tr>\n`
    )
  }</tbody></table></div></details>`;
}
