import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { writeSealedJson } from "../../../pipeline/files.ts";
import { openMetrics } from "../../../pipeline/runs/metrics.ts";
import type { PretrainSummary } from "../../../pipeline/training/pretrain.ts";
import {
  commandOf,
  type ReportData,
  reportHtml,
  resultSentence,
  writeReport,
} from "../../../pipeline/report/report.ts";
import glossary from "../../../pipeline/report/glossary.json" with { type: "json" };
import { means, speedPoints } from "../../../pipeline/report/report_charts.ts";
import { createRun } from "../../../pipeline/runs/run_folder.ts";
import { SPARSIFY } from "../../../pipeline/settings.ts";
import { parseCommand } from "../../../pipeline/settings/parse.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import type { SparsifySummary } from "../../../pipeline/training/sparsify.ts";
import { metricRow } from "../../support/metric_row.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { CONFIG, DATA, losses, phaseRows, SUMMARY } from "./report_data.ts";

/** Fails unless every tag is closed in its order and every attribute is quoted. */
function assertWellFormed(html: string): void {
  const body = html.replace(/^<!DOCTYPE html>/, "").replace(/<style>[^<]*<\/style>/, "");
  const tag = /<(\/?)([a-z][a-z0-9]*)((?:\s+[a-z-]+="[^"<]*")*|(?:\s+open)?)\s*(\/?)>/gi;
  const open: string[] = [];
  const text = body.replace(tag, (_, close, name, __, selfClosing) => {
    if (close) assertEquals(name, open.pop(), `</${name}> closes the last open tag`);
    else if (!selfClosing) open.push(name);
    return "";
  });
  assertEquals(open, []);
  assertEquals(/[<>]/.exec(text)?.[0], undefined, "no stray bracket");
  assertEquals(/&(?!(?:amp|lt|gt|quot|#39);)/.exec(text)?.[0], undefined, "no stray ampersand");
}

/** What holds of every report. */
function assertSound(html: string): void {
  assertWellFormed(html);
  assert(!/<script|<link|<img|<iframe|@import|url\(|\son[a-z]+=/i.test(html), "nothing is loaded or run");
  assert(!/\sstyle=/i.test(html), "no style attribute");
  assertEquals(html.split("<style>").length, 2, "one style block");
  const outside = new Set(html.match(/https?:\/\/[^\s"<]+/g) ?? []);
  outside.delete("https://arxiv.org/abs/2512.05865");
  assertEquals([...outside], []);
  assert(
    !/NaN|Infinity|undefined|\[object/.test(html),
    /.{40}(NaN|Infinity|undefined|\[object).{20}/.exec(html)?.[0],
  );
}

Deno.test("a report holds the summary's figures, and loads and runs nothing", () => {
  const html = reportHtml(DATA);
  assertSound(html);
  for (
    const figure of [
      "4.4656",
      "4.3756",
      "4.4206",
      "83.15",
      "3.85 %",
      "2.48",
      "64.50",
      "5 of 6",
      "90dd43b7",
      "19d4441a",
    ]
  ) assertStringIncludes(html, figure);
  assertStringIncludes(html, "307,200 in 300 training steps; 16,384 validation, 65,536 test");
  assertStringIncludes(html, "a &lt;fast&gt; adapter");
  assertEquals(html.match(/<svg /g)?.length, 4);
  assertEquals(html.match(/<svg [^>]*role="img" aria-label="[^"]{20,}"/g)?.length, 4);
});

Deno.test("the result stands in words", () => {
  assertEquals(
    resultSentence(SUMMARY),
    "3.85 % of the attention edges stay open at a loss of 4.421 nats on 65,536 test tokens, 0.045 below the dense " +
      "model’s. Fine-tuned as long without gates, the dense model reaches 4.376, 0.045 below the sparse one.",
  );
  const small = {
    ...SUMMARY,
    control: null,
    dense: { ...losses, ce: 0.00007 },
    sparse: { ...SUMMARY.sparse, ce: 0.00795 },
  };
  assertStringIncludes(
    resultSentence(small),
    "0.00795 nats on 65,536 test tokens, 0.00788 above the dense",
  );
  const same = { ...SUMMARY, control: null, sparse: { ...SUMMARY.sparse, ce: losses.ce + 1e-5 } };
  assertStringIncludes(resultSentence(same), "the same as the dense model’s");
});

Deno.test("a report says so where the constraint held at no evaluation, and where no control was trained", () => {
  const warning = "The constraint held at no evaluation";
  assert(!reportHtml(DATA).includes(warning));
  const summary = { ...SUMMARY, control: null, sparse: { ...SUMMARY.sparse, feasible: false } };
  const html = reportHtml({ ...DATA, summary });
  assertSound(html);
  assertStringIncludes(html, warning);
  assertStringIncludes(html, "No dense control was trained");
  assertStringIncludes(reportHtml(DATA), "of the evaluations at or below");
  assert(!html.includes("of the evaluations at or below"));
});

Deno.test("whether the target is met stands above the result, with the chosen step as its row has it", () => {
  const outcomeOf = (data: ReportData): string =>
    /<p class="outcome">(.*?)<\/p>/.exec(reportHtml(data))![1].replace(/<[^>]*>/g, "");
  assertEquals(
    outcomeOf(DATA),
    "✓ Target metChosen step 200 of 300 on 16,384 validation tokens: loss 4.2500 nats, target τ 4.5000, 0.25 % of the " +
      "edges open.",
  );
  const summary = { ...SUMMARY, sparse: { ...SUMMARY.sparse, feasible: false, step: 300 } };
  const rows = DATA.rows.map((row) => row.step === 100 ? { ...row, constraint: 0.75 } : row);
  assertEquals(
    outcomeOf({ ...DATA, rows, summary, slackChanges: [{ phase: "sparse", step: 59, slack: -0.02 }] }),
    "✕ Target missedLast step 300 of 300 on 16,384 validation tokens: loss 4.2500 nats, target τ 4.5000, 0.17 % of the " +
      "edges open. 1 failure signature on the way, listed below.",
  );
  assertEquals(outcomeOf({ ...DATA, rows: [] }), "✓ Target metChosen step 200 of 300.");
});

Deno.test("a command gives the same bits only where nothing was changed on the way, which is said", () => {
  const same = "The same bits come from the same adapter";
  assertStringIncludes(reportHtml(DATA), same);
  const slack = reportHtml({ ...DATA, slackChanges: [{ phase: "sparse", step: 59, slack: -0.02 }] });
  assertEquals([slack.includes(same), slack.includes("gives other bits than this run’s: the slack")], [
    false,
    true,
  ]);
  const changes = [{ setting: "lr", phase: "sparse", step: 3, before: 1, now: 2 }];
  const changed = reportHtml({ ...DATA, config: { ...CONFIG, changes } });
  assertEquals([changed.includes(same), changed.includes("has the last value of each setting")], [
    false,
    true,
  ]);
});

/** What stands in the cells of a part of the page, without its tags. */
const plain = (html: string): string => html.replace(/<[^>]*>/g, "");
const cellsOf = (html: string): string[][] =>
  [...html.matchAll(/<tr>(.*?)<\/tr>/gs)].map(([, row]) =>
    [...row.matchAll(/<t[hd][^>]*>(.*?)<\/t[hd]>/gs)].map(([, cell]) => plain(cell))
  );

Deno.test("every figure of the table of results is the summary's", () => {
  const [table] = /<table class="results">.*?<\/table>/s.exec(reportHtml(DATA))!;
  assertEquals(cellsOf(table), [
    ["", "dense", "dense fine-tuned", "sparse"],
    ["loss, nats", "4.4656", "4.3756", "4.4206"],
    ["perplexity", "86.97", "79.49", "83.15"],
    ["open edges", "100.0 %", "100.0 %", "3.85 %"],
    // Of 128 positions a query has 64.5 keys, itself among them.
    ["edges per query", "64.50", "64.50", "2.48"],
    ["queries without an edge", "0.00 %", "0.00 %", "75.0 %"],
    ["live heads (an edge for every 100 queries or fewer)", "6 of 6", "6 of 6", "5 of 6"],
  ]);
  const alone = reportHtml({ ...DATA, summary: { ...SUMMARY, control: null } });
  assertEquals(cellsOf(/<table class="results">.*?<\/table>/s.exec(alone)![0])[0], ["", "dense", "sparse"]);
  const answers = {
    ...SUMMARY,
    dense: { ...losses, exact_rows: 0.75 },
    sparse: { ...SUMMARY.sparse, exact_rows: 0.5 },
  };
  const exact = cellsOf(reportHtml({ ...DATA, summary: answers })).find(([label]) =>
    label === "exact answers"
  );
  assertEquals(exact, ["exact answers", "75.0 %", "0.00 %", "50.0 %"]);
});

Deno.test("what was measured where, and how the run was made, stand in a report as they are", () => {
  const rows = DATA.rows.map((row) =>
    row.step === 7 && row.phase === "sparse" ? { ...row, skipped: 1 } : row
  );
  const html = reportHtml({ ...DATA, rows });
  const note = plain(/<p class="note">(Measured on.*?)<\/p>/s.exec(html)![1]).replace(/\s+/g, " ");
  assertEquals(
    note,
    "Measured on 65,536 test tokens that nothing was trained on or chosen by. The weights are those of step 200 of 300: " +
      "of the evaluations at or below τ = 4.5279 nats, the one with the fewest open edges. τ is held on 16,384 " +
      "validation tokens, where the dense model’s loss is 4.5579. Edges per query are those of one head.",
  );
  const [made] = /<h2>How it was made<\/h2>.*?<\/dl>/s.exec(html)!;
  const facts = [...made.matchAll(/<dt>(.*?)<\/dt><dd>(.*?)<\/dd>/gs)].map(([, ...both]) => both.map(plain));
  assertEquals(facts, [
    ["Model", "2 layers of 3 heads, width 96, context 128, vocabulary 4,096"],
    ["Model’s hash", "90dd43b7"],
    ["Tokenizer’s hash", "19d4441a"],
    ["Tokens", "307,200 in 300 training steps; 16,384 validation, 65,536 test"],
    ["Seed", "7"],
    ["Adapter", "a &lt;fast&gt; adapter"],
    ["Versions", "sparse-attention 0.1.0, Deno 2.9.6"],
    ["Wall time", "3m48s, without what a kill lost"],
    ["Skipped steps", "1, as their gradient was not finite"],
  ]);
  assert(!reportHtml(DATA).includes("Skipped steps"));
});

Deno.test("evaluations and settings stand in tables, row for row", () => {
  const html = reportHtml(DATA);
  const part = (title: string): string[][] =>
    cellsOf(new RegExp(`<summary>${title}</summary>.*?</details>`, "s").exec(html)![0]);
  const [head, ...rows] = part("Evaluations");
  assertEquals(head, [
    "step",
    "tokens",
    "training loss",
    "validation loss",
    "τ",
    "λ in the loss",
    "open edges",
    "queries without an edge",
  ]);
  const evaluated = phaseRows("sparse").filter((row) => row.validation_ce !== null);
  assertEquals(
    rows,
    evaluated.map(({ step, tokens, open_fraction }) => [
      step === 200 ? "200 (chosen)" : String(step),
      tokens.toLocaleString("en-US"),
      "4.7500",
      "4.2500",
      "4.5000",
      "3.00",
      `${(100 * open_fraction!).toFixed(2)} %`,
      "50.0 %",
    ]),
  );
  // Of many, so many as can be read, the chosen one among them.
  const many = { ...SUMMARY, steps: 1000, sparse: { ...SUMMARY.sparse, step: 333 } };
  const all = Array.from({ length: 1000 }, (_, n) => metricRow(n + 1, { validation_ce: 4.25 }));
  const thinned = reportHtml({ ...DATA, rows: all, summary: many });
  assertStringIncludes(thinned, "<caption>One in 10 of 1,000, and the chosen one.</caption>");
  assertStringIncludes(thinned, "333 (chosen)");
  assertEquals(part("Settings"), [
    ["model", "data/english"],
    ["data", "text &amp; more.txt"],
    ["steps", "300"],
    ["context", "128"],
    ["lambdaMin", "0.02"],
    ["lambdaMax", "5"],
  ]);
});

Deno.test("the words of the glossary stand in a report as they are", () => {
  const html = reportHtml(DATA);
  for (const { term, text } of glossary) assertStringIncludes(html, `<dt>${term}</dt><dd>${text}</dd>`);
});

Deno.test("open edges are never drawn above 100 %, of one row neither", () => {
  for (const open of [0.75, 1]) {
    const rows = [metricRow(1, { expected_open: open, open_fraction: open, validation_ce: 1 })];
    const chart = /aria-label="Open edges\..*?<\/svg>/s.exec(reportHtml({ ...DATA, rows }))![0];
    const ticks = [...chart.matchAll(/text-anchor="end" dominant-baseline="central">([^<]*)</g)].map((
      [, text],
    ) => Number(text));
    assert(ticks.length > 0 && Math.max(...ticks) <= 100, ticks.join());
  }
});

Deno.test("every head's open share stands in a cell coloured by its class", () => {
  const html = reportHtml(DATA);
  const cells = [...html.matchAll(/<td class="(h\d)">([^<]*)<\/td>/g)].map(([, name, text]) =>
    `${name} ${text}`
  );
  assertEquals(cells, ["h5 10.6", "h0 0", "h2 0.093", "h1 &lt;0.001", "h7 60.0", "h7 100.0"]);
});

Deno.test("failure signatures and changes of slack are listed in order and numbered in the charts", () => {
  const rows = phaseRows("sparse").map((row) => row.step === 100 ? { ...row, constraint: 0.75 } : row);
  const html = reportHtml({ ...DATA, rows, slackChanges: [{ phase: "sparse", step: 59, slack: -0.02 }] });
  assertSound(html);
  const items = [...html.matchAll(/<li>([^<]*)<\/li>/g)].map(([, text]) => text);
  assertEquals(items.length, 2);
  assertStringIncludes(items[0], "slack set to −0.0200 nats from step 60 on");
  assertStringIncludes(items[1], "loss spike at step 100: CE stands 0.75 above its target");
  // In the charts of loss, open edges and λ.
  for (const label of ["1", "2", "chosen"]) {
    assertEquals(
      html.split(`dominant-baseline="central">${label}</text></g>`).length - 1 +
        html.split(`dominant-baseline="central">${label}</text><path class="mark"`).length - 1,
      3,
      label,
    );
  }
});

Deno.test("a hostile name, path or setting is text and no markup", () => {
  const evil = `"><script>alert('1')</script>&amp;\0`;
  const html = reportHtml({
    ...DATA,
    name: evil,
    config: {
      ...CONFIG,
      settings: { ...CONFIG.settings, model: evil, data: [evil], other: evil },
    },
    summary: { ...SUMMARY, adapter: evil },
  });
  assertSound(html.replaceAll("&amp;amp;", ""));
  assertStringIncludes(
    html,
    "<h1>&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;amp;\ufffd</h1>",
  );
});

Deno.test("missing numbers, rows and phases leave a report that says what there is", () => {
  const none = null as unknown as number;
  const gaps: ReportData[] = [
    { ...DATA, rows: [] },
    { ...DATA, rows: [metricRow(1)] },
    { ...DATA, rows: phaseRows("sparse").map((row) => ({ ...row, ce: NaN, lambda: NaN, expected_open: 0 })) },
    {
      ...DATA,
      rows: phaseRows("sparse").map((row) => ({ ...row, validation_ce: row.validation_ce && Infinity })),
    },
    // A resumed run's clock starts again.
    { ...DATA, rows: phaseRows("sparse").map((row) => ({ ...row, seconds: row.step % 100 })) },
    {
      ...DATA,
      config: { ...CONFIG, settings: {} },
      summary: {
        ...SUMMARY,
        dense: { ce: none, perplexity: none, accuracy: none, exact_rows: none },
        sparse: { ...SUMMARY.sparse, ce: none, open_fraction: none, open_by_head: [] },
        seconds: none,
        target_loss: none,
      },
    },
  ];
  for (const data of gaps) assertSound(reportHtml(data));
  assertStringIncludes(reportHtml(gaps[0]), "There are no metrics of this run");
  assertStringIncludes(reportHtml(gaps[2]), "Zeros, which a logarithmic axis cannot show, are left out");
});

Deno.test("pre-training is reported with its loss, without the charts of gates that it has not", () => {
  const summary: PretrainSummary = {
    validation: { ce: 4.5, tokens: 100 },
    test: { ce: 4.25, perplexity: 70.105, accuracy: 0.25, exact_rows: 0, open_fraction: 1, tokens: 200 },
    parameters: 1_234_567,
    steps: 300,
    tokens: 3000,
    seconds: 5,
    adapter: "one",
    seed: 1,
  };
  const rows = phaseRows("control").map((row) => ({ ...row, phase: "pretrain" as const, constraint: null }));
  const html = reportHtml({
    ...DATA,
    rows,
    summary,
    config: { ...CONFIG, command: "pretrain", settings: { steps: 300 } },
  });
  assertSound(html);
  assertStringIncludes(html, "1,234,567 parameters reaches a loss of 4.2500 nats (perplexity 70.11) on 200");
  assertEquals(html.match(/<figcaption><strong>(\w+)/g), [
    "<figcaption><strong>Loss",
    "<figcaption><strong>Speed",
  ]);
});

Deno.test("a report of a long run stays small", () => {
  const rows = Array.from({ length: 20_000 }, (_, n) =>
    metricRow(n + 1, {
      ce: 3 + Math.sin(n),
      lambda: 1.5 + Math.sin(n),
      expected_open: 0.5 + 0.4 * Math.sin(n),
      open_fraction: n % 20 === 0 ? 0.1 : null,
      validation_ce: n % 20 === 0 ? 3 + Math.sin(n) : null,
      seconds: n,
    }));
  const heads = Array.from({ length: 48 }, () => Array.from({ length: 25 }, () => 0.123));
  const html = reportHtml({
    ...DATA,
    rows,
    summary: { ...SUMMARY, sparse: { ...SUMMARY.sparse, open_by_head: heads } },
  });
  const bytes = new TextEncoder().encode(html).length;
  assert(bytes < 300_000, `${bytes} bytes`);
});

Deno.test("a report names no plateau that the run did not: edges come to rest with the learning rate", () => {
  const rows = Array.from(
    { length: 250 },
    (_, n) => metricRow(n + 1, { expected_open: 0.2, constraint: -0.1, lambda: 1 }),
  );
  const of = (decay: number): string =>
    reportHtml({ ...DATA, rows, config: { ...CONFIG, settings: { ...CONFIG.settings, steps: 250, decay } } });
  const plateaus = (html: string): number => html.split("plateau").length - 1;
  assertEquals(plateaus(of(0)) - plateaus(of(0.9)), 1);
});

Deno.test("the command that makes a run again parses to the run's settings", () => {
  const settings = {
    ...defaultsOf(SPARSIFY),
    slack: -0.03,
    control: false,
    data: ["a", "it's"],
    name: "x",
    gpu: "llvmpipe",
    json: true,
  };
  const [deno, task, command, ...args] = commandOf({ command: "sparsify", settings });
  assertEquals([deno, task, command], ["deno", "task", "sparsify"]);
  const byRanks = commandOf({ command: "sparsify", settings, ranks: 2 });
  assertEquals(byRanks, ["mpirun", "-n", "2", deno, task, command, ...args]);
  const { given } = parseCommand(SPARSIFY, args);
  const {
    runs: _,
    name: __,
    json: ___,
    quiet: _4,
    debug: _5,
    serve: _6,
    port: _7,
    // No flag without an effect is said, which would be refused.
    teacher: _8,
    frontSlack: _9,
    ...expected
  } = settings as Record<string, unknown>;
  // What no flag says is not said.
  assertEquals({ ...given }, JSON.parse(JSON.stringify(expected)));
});

Deno.test("means skip what is not finite and end at their stretch's end", () => {
  assertEquals(means([[1, 2], [2, 4], [3, NaN], [4, 8], [5, 1]], 2), [[2, 3], [4, 8], [5, 1]]);
  assertEquals(means([[1, NaN]], 1), [[1, NaN]]);
});

Deno.test("speed is taken between waits, and anew where a resumed process's clock starts again", () => {
  // Rows of four steps are read back at once: every fourth second, with 100 tokens a step.
  const rows = Array.from(
    { length: 40 },
    (_, n) => metricRow(n + 1, { tokens: 100 * (n + 1), seconds: 4 * (Math.floor((n % 20) / 4) + 1) }),
  );
  const points = speedPoints(rows);
  assertEquals(points.map(([step]) => step), [8, 12, 16, 20, 21, 28, 32, 36, 40]);
  assertEquals(points.map(([, speed]) => speed), [100, 100, 100, 100, NaN, 100, 100, 100, 100]);
  assertEquals(speedPoints(rows.slice(0, 1)), []);
});

Deno.test("writing a report reads the run's folder, and writing it again gives the same bytes", async () => {
  await using runs = await temporaryFolder();
  const folder = await createRun(runs.path, "sparsify", "a-run");
  try {
    await folder.begin(CONFIG);
    await Deno.writeTextFile(folder.summary, JSON.stringify(SUMMARY));
    const metrics = await openMetrics(folder.metrics);
    await metrics.append(phaseRows("sparse"));
    metrics.close();
    await writeReport(folder);
    const first = await Deno.readTextFile(folder.report);
    assertSound(first);
    assertStringIncludes(first, "<h1>a-run</h1>");
    await writeSealedJson(join(folder.path, "slack.json"), {
      changes: [{ phase: "sparse", step: 9, slack: 0.5 }],
    });
    await writeReport(folder);
    assertStringIncludes(await Deno.readTextFile(folder.report), "slack set to 0.5000 nats from step 10 on");
    await Deno.remove(join(folder.path, "slack.json"));
    await writeReport(folder);
    assertEquals(await Deno.readTextFile(folder.report), first);
  } finally {
    folder.release();
  }
});

const FRONT: SparsifySummary["front"] = [
  { above: 0, target: 4.5, step: 200, ce: 4.4206, open_fraction: 0.0385 },
  { above: 0.05, target: 4.55, step: 240, ce: 4.4712, open_fraction: 0.0211 },
  { above: 0.2, target: 4.7, step: null, ce: null, open_fraction: null },
];

Deno.test("a run with a front shows it beside dense and control, and what missed its target as missed", () => {
  const html = reportHtml({ ...DATA, summary: { ...SUMMARY, front: FRONT } });
  assertSound(html);
  for (
    const part of [
      "<h2>The trade-off</h2>",
      "2.11 % open at a loss of 4.4712. 3.85 % open at a loss of 4.4206.",
      '<th scope="row">+0.2000</th><td>4.7000</td><td>missed</td><td>–</td><td>–</td><td>–</td><td>–</td>',
      // 4.4712 beside the dense model's 4.4656 and the control's 4.3756.
      "<td>2.11 %</td><td>4.4712</td><td>+0.0056</td><td>+0.0956</td>",
    ]
  ) assertStringIncludes(html, part);
  const section = html.slice(html.indexOf("The trade-off"), html.indexOf("Open edges by head"));
  for (const line of ["dense", "dense fine-tuned"]) {
    assertStringIncludes(section, `dominant-baseline="central">${line}</text>`);
  }
  assert(!reportHtml(DATA).includes("The trade-off"));
  const alone = reportHtml({ ...DATA, summary: { ...SUMMARY, control: null, front: FRONT } });
  assert(!alone.includes("less fine-tuned"));
});
