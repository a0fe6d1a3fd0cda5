/**
 * `deno task page-frames`: what the page costs a browser where there is most to draw, in headless Chromium without a GPU:
 * an explorer of 48 × 32 heads, 256 tokens and 20,000 edges of each of two models, the map of as many heads through a
 * run's history, and a list of 1,000 runs. Prints one line of JSON: of each action the frames it allows a second, as they
 * came and by the processor time of the page's main thread, which another program beside changes less.
 *
 * @module
 */
import { join } from "node:path";
import { type CDPSession, chromium, type Page } from "playwright-core";
import { createApp } from "../../serve/app.ts";
import { readAssets } from "../../serve/assets.ts";
import type { AttentionAnswer } from "../../serve/api.ts";
import type { Explorer } from "../../serve/explorer.ts";
import { openRuns } from "../../serve/runs.ts";
import { CHROMIUM } from "../support/chromium.ts";
import { fakeRun } from "../support/fake_run.ts";
import { MANY_EDGES } from "../support/many_edges.ts";
import { metricRow } from "../support/metric_row.ts";

const LIMIT = 10 * 60_000;
const FRAMES = 40;
const RUNS = 1000;
const [LAYERS, HEADS] = [MANY_EDGES.layers, MANY_EDGES.heads];

const explorer = {
  ask: (_: unknown, { model }: { model: "sparse" | "dense" }) =>
    Promise.resolve({
      model,
      weights: { kind: model === "sparse" ? "model" : "dense", step: null },
      truncated: false,
      omitted: 0,
      next: [],
      ...MANY_EDGES,
    } as AttentionAnswer),
  close() {},
} as unknown as Explorer;

const rows = Array.from({ length: 20 }, (_, n) =>
  metricRow(n + 1, {
    seconds: n + 1,
    expected_open_by_head: Array.from(
      { length: LAYERS * HEADS },
      (_, head) => (head * n * 7919 % 1000) / 1000,
    ),
    ...((n + 1) % 10 === 0 ? { validation_ce: 1.2, open_fraction: 0.1 } : {}),
  }));

/** One run of many heads, and others of few rows. */
async function fill(folder: string): Promise<void> {
  await fakeRun(folder, "large", { live: false, rows, layers: LAYERS, heads: HEADS });
  const first = await fakeRun(folder, "r0", {
    live: false,
    rows: rows.map((row) => ({ ...row, expected_open_by_head: null })),
  });
  const files = (await Array.fromAsync(Deno.readDir(first.path))).filter(({ isFile }) => isFile);
  for (let n = 1; n < RUNS - 1; n++) {
    const path = join(folder, `r${n}`);
    await Deno.mkdir(path);
    for (const { name } of files) await Deno.copyFile(join(first.path, name), join(path, name));
  }
}

/** Processor seconds of the page's main thread so far. */
async function cpuOf(session: CDPSession): Promise<number> {
  const { metrics } = await session.send("Performance.getMetrics");
  return metrics.find(({ name }) => name === "TaskDuration")!.value;
}

/** Does something in each of so many frames: `act` is JavaScript, which knows `at` and the frame `n`. */
async function measured(page: Page, session: CDPSession, selector: string, act: string): Promise<object> {
  const before = await cpuOf(session);
  const milliseconds = await page.evaluate(`(async () => {
    const at = document.querySelector(${JSON.stringify(selector)});
    const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
    await frame();
    const begun = performance.now();
    for (let n = 0; n < ${FRAMES}; n++) {
      ${act}
      await frame();
    }
    return performance.now() - begun;
  })()`) as number;
  const cpu = 1000 * (await cpuOf(session) - before) / FRAMES;
  return {
    cpu_ms: Number(cpu.toFixed(1)),
    frames_per_second: Math.round(1000 * FRAMES / milliseconds),
    by_cpu: Math.round(1000 / cpu),
  };
}

const SLIDE = `at.value = String(n * 5 % 6); at.dispatchEvent(new Event("input", { bubbles: true }));`;

async function measure(url: string): Promise<object> {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu"],
  });
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(LIMIT);
    await page.setViewportSize({ width: 1280, height: 900 });
    const session = await page.context().newCDPSession(page);
    await session.send("Performance.enable", { timeDomain: "threadTicks" });
    const on = (selector: string, act: string) => measured(page, session, selector, act);

    await page.goto(`${url}/#/runs/large`);
    await page.locator("#charts[data-last='sparse:20']").waitFor();
    const nothing = await on("body", "");
    const heads = await on("#heads input", SLIDE.replace("n * 5 % 6", "n % 20"));
    await page.getByRole("button", { name: "Show attention" }).click();
    await page.locator("figure.attention[data-model=dense]").waitFor();
    await page.locator(".head-choice").scrollIntoViewIfNeeded();
    const leastWeight = await on("#explorer input[type=range]", SLIDE);
    const pointed = await on(
      "figure.attention svg",
      `at.children[n].dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));`,
    );
    const map = await on(
      ".thumbnails",
      `at.dispatchEvent(new KeyboardEvent("keydown", { key: n % 2 ? "ArrowDown" : "ArrowRight", bubbles: true }));`,
    );
    const head = await on(
      ".thumbnails",
      `for (const key of [n % 2 ? "ArrowDown" : "ArrowRight", "Enter"]) at.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));`,
    );
    await page.getByRole("button", { name: "all heads" }).click();
    const scrolled = await on("figure.attention .scroll", "at.scrollLeft = 60 * n;");
    await page.getByLabel("drawn as").selectOption("matrix");
    const matrix = await on("#explorer input[type=range]", SLIDE);

    const lists = [];
    for (let n = 0; n < 3; n++) {
      await page.goto("about:blank");
      const before = await cpuOf(session);
      const begun = performance.now();
      await page.goto(url);
      await page.locator("table.runs tbody tr").nth(199).waitFor();
      await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
      const shown = performance.now() - begun;
      lists.push({ ms: Math.round(shown), cpu_ms: Math.round(1000 * (await cpuOf(session) - before)) });
    }
    const typed = await on(
      ".tools input",
      `at.value = n % 2 ? "r1" : ""; at.dispatchEvent(new Event("input", { bubbles: true }));`,
    );
    return {
      nothing,
      map_of_heads: heads,
      least_weight: leastWeight,
      least_weight_matrix: matrix,
      token_pointed_at: pointed,
      head_on_the_map: map,
      head_picked: head,
      scrolled,
      list_of_1000: lists,
      list_filtered: typed,
    };
  } finally {
    await browser.close();
  }
}

if (!CHROMIUM) throw new Error("Cannot measure the page as no Chromium is installed");
const folder = await Deno.makeTempDir();
const ending = new AbortController();
try {
  await fill(folder);
  const app = createApp({
    runs: openRuns(folder),
    explorer,
    assets: await readAssets(),
    token: "a-token-for-a-benchmark",
    tokenToRead: false,
    allowedHosts: [],
    signal: ending.signal,
  });
  const server = Deno.serve(
    { hostname: "127.0.0.1", port: 0, signal: ending.signal, onListen() {} },
    app.fetch,
  );
  console.log(JSON.stringify(await measure(`http://127.0.0.1:${server.addr.port}`)));
} finally {
  ending.abort();
  await Deno.remove(folder, { recursive: true });
}
Deno.exit(0);
