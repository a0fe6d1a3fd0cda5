import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { markup } from "../../../pipeline/report/markup.ts";
import {
  type Chart,
  formatTick,
  linearTicks,
  lineChart,
  linePath,
  logTicks,
  placeAxis,
  type Point,
  thin,
} from "../../../pipeline/report/svg_chart.ts";

Deno.test("linear ticks are multiples of 1, 2 or 5 times a power of ten, without rounding errors", () => {
  assertEquals(linearTicks(0, 300), [0, 100, 200, 300]);
  assertEquals(linearTicks(0, 0.5), [0, 0.1, 0.2, 0.3, 0.4, 0.5]);
  assertEquals(linearTicks(4.28, 4.81), [4.4, 4.6, 4.8]);
  assertEquals(linearTicks(-1, 1), [-1, -0.5, 0, 0.5, 1]);
  assertEquals(linearTicks(1e-7, 3e-7), [1e-7, 1.5e-7, 2e-7, 2.5e-7, 3e-7]);
});

Deno.test("logarithmic ticks are as fine as the range is short", () => {
  assertEquals(logTicks(0.02, 5), [0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]);
  assertEquals(logTicks(1e-4, 10), [1e-4, 1e-3, 1e-2, 1e-1, 1, 10]);
  assertEquals(logTicks(1e-12, 1e6), [1e-12, 1e-9, 1e-6, 1e-3, 1, 1e3, 1e6]);
  assertEquals(logTicks(6, 9), [6, 7, 8, 9], "no power of ten nor its double or fivefold is near");
});

Deno.test("ticks refuse a range that is none, and a logarithmic one that is not above 0", () => {
  assertThrows(() => linearTicks(1, 1), RangeError, "from 1 to 1");
  assertThrows(() => linearTicks(0, Infinity), RangeError, "finite");
  assertThrows(() => logTicks(0, 1), RangeError, "must be above 0");
  assertThrows(() => logTicks(-1, 1), RangeError, "must be above 0");
  assertThrows(() => logTicks(1, NaN), RangeError, "must be a range");
});

Deno.test("ticks are written as people write numbers", () => {
  const written = [0, 4.25, -0.5, 1000, 0.0001, 0.00001, 25_000_000, 1e6].map(formatTick);
  assertEquals(written, ["0", "4.25", "−0.5", "1,000", "0.0001", "10⁻⁵", "2.5·10⁷", "10⁶"]);
});

Deno.test("an axis ends at ticks unless it is told where, and shows no value that is not finite", () => {
  const axis = placeAxis({ label: "" }, [4.28, 4.81, NaN, Infinity], 100, 0);
  assertEquals([axis.at(4.2), axis.at(5)], [100, 0]);
  assertEquals(axis.at(NaN), NaN);
  const fixed = placeAxis({ label: "", from: 0, to: 290 }, [1, 290], 0, 290);
  assertEquals([fixed.at(0), fixed.at(145), fixed.at(290)], [0, 145, 290]);
});

Deno.test("a logarithmic axis gives each decade the same length and cannot show 0 or less", () => {
  const axis = placeAxis({ label: "", scale: "log" }, [0.01, 1, 100, 0, -3], 0, 400);
  assertEquals([0.01, 0.1, 1, 10, 100].map((value) => Math.round(axis.at(value))), [0, 100, 200, 300, 400]);
  assertEquals([axis.at(0), axis.at(-3)], [NaN, NaN]);
});

Deno.test("an axis of one value, or of none, is an axis all the same", () => {
  for (const scale of ["linear", "log"] as const) {
    for (const values of [[5], [0], [], [NaN], [1e-300], [-2]]) {
      const { ticks, at } = placeAxis({ label: "", scale }, values, 0, 100);
      assert(ticks.length >= 2, `${scale} of ${values} has ticks: ${ticks}`);
      const [value] = values;
      if (Number.isFinite(value) && (scale === "linear" || value > 0)) {
        assert(at(value) >= 0 && at(value) <= 100, `${scale} shows ${value} at ${at(value)}`);
      }
    }
  }
});

Deno.test("a line goes through its points and breaks where there is no value", () => {
  const axis = { ticks: [], at: (value: number) => value };
  assertEquals(linePath([[0, 1], [1, 2.26], [2, 3]], axis, axis), "M0 1L1 2.3L2 3");
  assertEquals(linePath([[0, 1], [1, 1], [2, NaN], [3, 1], [4, 1]], axis, axis), "M0 1L1 1M3 1L4 1");
  assertEquals(linePath([[0, NaN], [1, 5], [2, NaN]], axis, axis), "M1 5h0", "a lone point is a dot");
  assertEquals(linePath([], axis, axis), "");
});

Deno.test("a thinned series keeps its ends, its order and every spike", () => {
  const points: Point[] = Array.from({ length: 10_000 }, (_, n) => [n, Math.sin(n)]);
  points[4321] = [4321, 50];
  points[8765] = [8765, -50];
  const thinned = thin(points, 600);
  assert(thinned.length <= 600, `${thinned.length} points`);
  assertEquals([thinned[0], thinned.at(-1)], [points[0], points.at(-1)]);
  assert(thinned.every(([x], n) => n === 0 || x > thinned[n - 1][0]), "in order");
  for (const spike of [4321, 8765]) assert(thinned.includes(points[spike]), `keeps ${spike}`);
  const broken = thin(points.map(([x, y]) => [x, x > 3000 && x < 4000 ? NaN : y]), 600);
  assert(broken.some(([, y]) => Number.isNaN(y)), "a stretch without values stays one");
  assert(thin(points.slice(0, 600), 600).length === 600, "a short one is left alone");
});

const CHART: Chart = {
  description: 'Loss of "a" & b',
  x: { label: "step", from: 0, to: 10 },
  y: { label: "nats", from: 0, to: 1 },
  series: [
    { label: "<script>", points: [[0, 0], [10, 1]], colour: "blue", marker: "circle" },
    { label: "other", points: [[0, 1], [10, 0]], colour: "green", dash: "dashed", faint: true },
  ],
  references: [{ label: "τ", y: 0.5, colour: "vermillion", dash: "dashed" }],
  marks: [{ x: 5, label: "1" }, { x: 5, label: "2" }],
};

Deno.test("a chart's corners are where the axes meet", () => {
  const { markup: svg } = lineChart(CHART);
  const [, left, bottom, right, top] = /class="blue" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)" fill="none"/
    .exec(svg)!;
  assertStringIncludes(svg, `<path class="axis" d="M${left} ${bottom}H${right}"`);
  assertStringIncludes(svg, `class="green faint" d="M${left} ${top}L${right} ${bottom}"`);
  assertStringIncludes(svg, `class="vermillion" d="M${left} ${(Number(top) + Number(bottom)) / 2}H${right}"`);
});

Deno.test("a chart escapes its text, says what it shows, and has no style of its own", () => {
  const { markup: svg } = lineChart(CHART);
  assertStringIncludes(svg, 'role="img" aria-label="Loss of &quot;a&quot; &amp; b"');
  assertStringIncludes(svg, "&lt;script&gt;</text>");
  assert(!/<script|style=|href/.test(svg));
});

Deno.test("badges of marks at one step stand in rows of their own", () => {
  const { markup: svg } = lineChart(CHART);
  const tops = [...svg.matchAll(/class="badge" x="[\d.]+" y="([\d.]+)"/g)].map(([, y]) => Number(y));
  assertEquals(tops.length, 2);
  assertEquals(tops[1] - tops[0], 20);
});

Deno.test("markers are drawn while they do not crowd", () => {
  const circles = (count: number): number => {
    const points: Point[] = Array.from({ length: count }, (_, n) => [n, n]);
    const { markup: svg } = lineChart({
      ...CHART,
      references: [],
      marks: [],
      x: { label: "" },
      y: { label: "" },
      series: [{ label: "", points, colour: "blue", marker: "circle" }],
    });
    return svg.split("m-3.4 0a").length - 1;
  };
  assertEquals(circles(10), 11, "ten and the legend's");
  assertEquals(circles(100), 1, "the legend's");
});

Deno.test("a chart without series, and one with nothing to show, can be drawn", () => {
  const empty = lineChart({ description: "", x: { label: "" }, y: { label: "", scale: "log" }, series: [] });
  const nothing = lineChart({
    ...CHART,
    series: [{ label: "", points: [[NaN, NaN]], colour: "ink" }],
    references: [{ label: "", y: NaN, colour: "ink", dash: "solid" }],
    marks: [{ x: NaN, label: "never" }],
  });
  for (const { markup: svg } of [empty, nothing]) assert(!/NaN|Infinity|undefined|never/.test(svg), svg);
});

Deno.test("markup escapes what is filled in and leaves markup as it is", () => {
  const inner = markup`<b title="${"\"&'"}">${"<i>\0"}</b>`;
  assertEquals(inner.markup, '<b title="&quot;&amp;&#39;">&lt;i&gt;\ufffd</b>');
  assertEquals(markup`${[inner, undefined, null, 1]}!`.markup, inner.markup + "1!");
});
