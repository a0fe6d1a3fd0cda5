/** What the page computes before it shows it, and what it has in common with reports and the README. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import glossary from "../../pipeline/report/glossary.json" with { type: "json" };
import { CLASSES as REPORT_CLASSES } from "../../pipeline/report/report.ts";
import type { RunOverview } from "../../serve/api.ts";
import { withSpeed } from "../../serve/page/charts.js";
import { mainRows } from "../../serve/page/compare.js";
import { folder, setting, shorten } from "../../serve/page/format.js";
import { frontOf, frontPicture } from "../../serve/page/front.js";
import { CLASSES, classOf } from "../../serve/page/heads.js";
import { logRange } from "../../serve/page/plot.js";
import { choice, standing } from "../../serve/page/status.js";
import { metricRow } from "../support/metric_row.ts";

Deno.test("page and report colour open edges by the same classes", () => {
  assertEquals(CLASSES, REPORT_CLASSES);
  assertEquals([0, null, 1e-9, 0.0001, 0.00011, 0.2, 0.51, 1].map(classOf), [0, 0, 1, 1, 2, 5, 7, 7]);
});

Deno.test("the README has every word of the glossary as it is", async () => {
  const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
  for (const { term, text } of glossary) assertStringIncludes(readme, `\n- **${term}**: ${text}\n`);
});

Deno.test("speed breaks where another process goes on, and is never taken across", () => {
  // 10 steps of one second, then a process that was killed is gone on with: 5 of half a second.
  const rows = Array.from(
    { length: 15 },
    (_, n) => metricRow(n + 1, { tokens: 100 * (n + 1), seconds: n < 10 ? n + 1 : (n - 9) / 2 }),
  );
  const speeds = withSpeed(rows).map(({ speed }) => speed);
  assertEquals(speeds[0], null);
  assertEquals(speeds.slice(2, 10), new Array(8).fill(100));
  assertEquals(speeds.slice(10), [null, undefined, undefined, undefined, 200]);
});

Deno.test("the time of a run goes on where another process does", () => {
  const rows = [1, 2, 3, 1, 2].map((seconds, n) => metricRow(n + 1, { seconds }));
  const control = metricRow(1, { phase: "control", seconds: 9 });
  assertEquals(mainRows([...rows, control]).map(({ time }) => time), [1, 2, 3, 4, 5]);
});

Deno.test("a logarithmic axis goes by powers of ten, and never above what there can be", () => {
  const range = logRange(100);
  assertEquals(range(undefined, 0.3, 42), [0.1, 100]);
  assertEquals(range(undefined, 100, 100), [10, 100]);
  assertEquals(range(undefined, 12.5, 12.5), [10, 100]);
  assertEquals(range(undefined, 1, 1), [1, 10]);
  assertEquals(range(undefined, null, null), [0.1, 1]);
  assertEquals(logRange(Infinity)(undefined, 300, 300), [100, 1000]);
});

Deno.test("a long name keeps its beginning and its end", () => {
  assertEquals(shorten("short", 5), "short");
  const short = shorten("english-slack-0.025-seed-1-of-many-10", 20);
  assertEquals([short, short.length], ["english…d-1-of-many-10".slice(0, 7) + short.slice(7), 20]);
  assert(short.startsWith("english") && short.endsWith("many-10") && short.includes("…"), short);
  assertEquals(folder("/somewhere/models/a/b/"), "a/b");
  assertEquals([setting(["x/y/z", 1], true), setting(true), setting(null)], ["y/z, 1", "yes", "–"]);
  assertEquals([setting(3 * 0.0001), setting(1e-7), setting(12345678)], ["0.0003", "1e-7", "12345678"]);
});

const at = (step: number, validation_ce: number) => ({
  step,
  validation_ce,
  target: 1.25,
  open_fraction: 0.125,
});
const run = (of: Partial<RunOverview>): RunOverview =>
  ({
    command: "sparsify",
    status: "finished",
    phases: [{ phase: "sparse", step: 300, steps: 300 }],
    evaluation: at(300, 1.5),
    chosen: at(200, 1.125),
    target_met: true,
    ...of,
  }) as RunOverview;

Deno.test("the step that counts is told with its own figures, and what it is", () => {
  assertEquals(
    choice(run({})),
    "Chosen step 200 of 300: loss 1.1250 nats on validation tokens, target τ 1.2500 (−0.125), 12.5 % of the edges open.",
  );
  assertStringIncludes(
    choice(run({ target_met: null, status: "training" }))!,
    "Chosen so far: step 200 of 300",
  );
  assertEquals(
    choice(run({ target_met: false, chosen: at(300, 1.5) })),
    "No evaluation was at or below the target. Last step, 300 of 300: loss 1.5000 nats on validation tokens, target τ 1.2500, " +
      "12.5 % of the edges open.",
  );
  assertStringIncludes(
    choice(run({ target_met: null, chosen: null, status: "stopped", evaluation: at(50, 1.5) }))!,
    "No evaluation is at or below the target yet. Step 50 of 300: loss 1.5000",
  );
  assertEquals(choice(run({ command: "pretrain" })), undefined);
  assertEquals(choice(run({ evaluation: null, chosen: null, target_met: null })), undefined);
});

Deno.test("a run that goes on stands by its last evaluation, one that ended by the chosen one", () => {
  assertEquals(standing(run({ status: "training" }))?.step, 300);
  assertEquals(standing(run({}))?.step, 200);
  assertEquals(standing(run({ chosen: null }))?.step, 300);
});

Deno.test("the page finds a run's front, whatever its summary holds, and places it beside dense and control", () => {
  const level = (above: number, open_fraction: number | null, ce: number | null) => ({
    above,
    step: ce === null ? null : 8,
    open_fraction,
    ce,
  });
  const summary = {
    dense: { ce: 4 },
    control: { ce: 3.9 },
    front: [level(0, 0.05, 4.01), level(0.1, 0.02, 4.1), level(0.2, null, null)],
  };
  for (
    const none of [null, {}, { dense: { ce: 4 } }, { ...summary, front: [] }, { ...summary, front: "x" }]
  ) {
    assertEquals(frontOf(none), null);
  }
  assertEquals(frontOf({ ...summary, front: [null, { above: "0" }] }), null);
  assertEquals(frontOf({ ...summary, control: null })!.control, null);
  const front = frontOf(summary)!;
  assertEquals(front.levels.length, 3);
  const { points, lines, ticks } = frontPicture(front);
  // Sparsest first, and without what missed its target.
  assertEquals(points.map(({ open }) => open), [0.02, 0.05]);
  assert(points[0].x < points[1].x && points[0].y < points[1].y, "a higher loss stands higher");
  assertEquals(lines.map(({ label }) => label), ["dense", "dense fine-tuned"]);
  assert(lines[0].y < lines[1].y && lines[0].y > points[1].y);
  // Lines that lie on each other have labels that do not.
  const { lines: close } = frontPicture({ ...front, control: front.dense + 1e-4 });
  assert(Math.abs(close[0].textY - close[1].textY) >= 15 && close[1].textY < close[0].textY);
  assertEquals(lines.map(({ y, textY }) => y === textY), [true, true]);
  assertEquals(ticks.map(({ open }) => open), [0.01, 0.1, 1]);
  assert(ticks.every(({ x }, n) => n === 0 || x > ticks[n - 1].x));
});
