/**
 * The page in a real browser, headless Chromium. Run by page_test.ts in a process of its own, since playwright-core reads
 * files of /proc that Deno lets through with every permission only.
 */
import { assert, assertEquals } from "@std/assert";
import { type Browser, chromium, type Page } from "playwright-core";
import type { AttentionAnswer, AttentionEdge } from "../../serve/api.ts";
import { createApp } from "../../serve/app.ts";
import { readAssets } from "../../serve/assets.ts";
import type { Explorer } from "../../serve/explorer.ts";
import { openRuns } from "../../serve/runs.ts";
import { fakeRun } from "../support/fake_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

const CHROMIUM = Deno.args[0];

const TOKEN = "a-token-for-tests-only";
const EDGES: AttentionEdge[] = [
  [0, 0, 1, 0, 0.5, 1],
  [0, 0, 2, 2, 0.25, 2],
  [0, 1, 2, 0, 1, 3],
  [1, 1, 2, 1, 0.125, 0.5],
];

/** Answers every prompt with the same edges, and twice as many pairs for the dense model. */
const explorer: Explorer = {
  ask: (_, { model }) =>
    Promise.resolve(
      {
        model,
        weights: { kind: model === "sparse" ? "model" : "dense", step: null },
        layers: 2,
        heads: 2,
        tokens: ["one", " two", "<b>three</b>"],
        truncated: false,
        edges: model === "sparse" ? EDGES : [...EDGES, ...EDGES].map((edge) => [...edge.slice(0, 5), null]),
        open: EDGES.length,
        causal_pairs: 24,
        omitted: 0,
        next: [{ token: " four", probability: 0.5 }],
      } as AttentionAnswer,
    ),
  close() {},
};

interface Site {
  folder: string;
  page: Page;
  url: string;
  /** What the page complained of. */
  complaints: string[];
  /** Ends the server, without a word to its clients. */
  stop(): Promise<void>;
  /** Starts it again on the same port. */
  start(): Promise<void>;
}

function pageTest(name: string, body: (site: Site) => Promise<void>): void {
  Deno.test({
    name,
    // The browser is a process with pipes of its own.
    sanitizeOps: false,
    sanitizeResources: false,
    async fn() {
      await using folder = await temporaryFolder();
      const assets = await readAssets();
      let server: Deno.HttpServer | undefined;
      let ending = new AbortController();
      let port = 0;
      const start = async (): Promise<void> => {
        ending = new AbortController();
        const app = createApp({
          runs: openRuns(folder.path),
          explorer,
          assets,
          token: TOKEN,
          tokenToRead: false,
          allowedHosts: [],
          signal: ending.signal,
        });
        server = Deno.serve({ hostname: "127.0.0.1", port, signal: ending.signal, onListen() {} }, app.fetch);
        port = (server.addr as Deno.NetAddr).port;
        await Promise.resolve();
      };
      const stop = async (): Promise<void> => {
        ending.abort();
        await server?.finished;
      };
      await start();
      let browser: Browser | undefined;
      try {
        browser = await chromium.launch({
          executablePath: CHROMIUM,
          args: ["--no-sandbox", "--disable-gpu"],
        });
        const page = await browser.newPage();
        page.setDefaultTimeout(15_000);
        const complaints: string[] = [];
        page.on("console", (message) => {
          if (["error", "warning"].includes(message.type())) complaints.push(message.text());
        });
        page.on("pageerror", (error) => complaints.push(error.message));
        await body({ folder: folder.path, page, url: `http://127.0.0.1:${port}`, complaints, stop, start });
      } finally {
        await browser?.close();
        await stop();
      }
    },
  });
}

const rowsFrom = (first: number, count: number) =>
  Array.from({ length: count }, (_, n) =>
    metricRow(first + n, {
      seconds: first + n,
      expected_open_by_head: [0.5, 0.25, 0.125, (first + n) / 1000],
      ...((first + n) % 10 === 0
        ? { validation_ce: 1.4, open_fraction: 0.1, open_by_head: [0.4, 0, 0, 0] }
        : {}),
    }));

/** What stands in an attribute of the charts. */
const chart = (page: Page, name: string) => page.locator("#charts").getAttribute(name);

pageTest("no run yet: the page says how to begin; then runs appear, broken ones as such", async (site) => {
  const { page, url, folder, complaints } = site;
  await page.goto(url);
  await page.getByText("deno task sparsify").waitFor();
  const run = await fakeRun(folder, "first", { rows: rowsFrom(1, 5) });
  await Deno.mkdir(`${folder}/nothing`);
  await page.locator("tr[data-run=first]").waitFor();
  assert((await page.locator("tr[data-run=first]").innerText()).includes("training"));
  const broken = await page.locator("tr[data-run=nothing]").innerText();
  assert(broken.includes("broken") && broken.includes("not a run"), broken);
  // By keyboard: the first link of the table is the run.
  await page.locator("tr[data-run=first] a").focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "first" }).waitFor();
  assertEquals(await page.title(), "first – sparse attention");
  run.release();
  assertEquals(complaints, []);
});

pageTest(
  "a live run's charts move as rows are written, and its head map follows",
  async ({ page, url, folder, complaints }) => {
    const run = await fakeRun(folder, "r", { rows: rowsFrom(1, 20), steps: 100 });
    await page.goto(`${url}/#/runs/r`);
    await page.locator("#charts[data-last='sparse:20']").waitFor();
    assertEquals(await chart(page, "data-rows"), "20");
    assertEquals(await page.locator(".chart canvas").count(), 4);
    const pixels = `document.querySelector(".chart canvas").toDataURL()`;
    const before = await page.evaluate(pixels);
    await run.append(rowsFrom(21, 15));
    await page.locator("#charts[data-last='sparse:35']").waitFor();
    await page.waitForFunction(`${pixels} !== ${JSON.stringify(before)}`);
    assertEquals(await chart(page, "data-rows"), "35");
    assertEquals(await page.locator("#heads").getAttribute("data-step"), "35");
    // Back to the tenth step, which was evaluated with hard gates.
    const slider = page.getByLabel("Step");
    await slider.fill("9");
    assertEquals(await page.locator("#heads").getAttribute("data-step"), "10");
    assertEquals(await page.locator("table.heads tbody td").allInnerTexts(), ["40.0", "0", "0", "0"]);
    await run.append(rowsFrom(36, 1));
    await page.locator("#charts[data-last='sparse:36']").waitFor();
    assertEquals(
      await page.locator("#heads").getAttribute("data-step"),
      "10",
      "one who looks back is left alone",
    );
    run.release();
    await page.getByText("interrupted").waitFor();
    assertEquals(complaints, []);
  },
);

pageTest(
  "the explorer draws the edges that the API reports, head by head",
  async ({ page, url, folder, complaints }) => {
    await fakeRun(folder, "r", { live: false, rows: rowsFrom(1, 3) });
    await page.goto(`${url}/#/runs/r`);
    await page.getByRole("button", { name: "Show attention" }).click();
    const sparse = page.locator("figure[data-model=sparse]");
    const drawn = async () =>
      (await sparse.locator("path.arc").evaluateAll((arcs) =>
        arcs.map((arc) => arc.getAttribute("data-edge"))
      )).sort();
    const reported = EDGES.map((edge) => edge.slice(0, 4).join(".")).sort();
    await sparse.waitFor();
    assertEquals(await drawn(), reported);
    assertEquals(await page.locator("figure[data-model=dense] path.arc").count(), 2 * EDGES.length);
    assert((await sparse.innerText()).includes("4 of 24 edges are open (16.7 %)"), await sparse.innerText());
    for (const [layer, head] of [[0, 0], [0, 1], [1, 0], [1, 1]]) {
      await page.getByRole("button", { name: `${layer}.${head}`, exact: true }).click();
      assertEquals(await drawn(), reported.filter((edge) => edge.startsWith(`${layer}.${head}.`)));
    }
    await page.getByRole("button", { name: "all heads" }).click();
    // A token's edges light up when it has the focus.
    await sparse.locator(".token").nth(1).focus();
    const lit = await sparse.locator("path.arc.on").evaluateAll((arcs) =>
      arcs.map((arc) => arc.getAttribute("data-edge"))
    );
    assertEquals(lit.sort(), ["0.0.1.0", "1.1.2.1"]);
    assert((await sparse.innerText()).includes("<b>three</b>"), "a token is text, whatever stands in it");
    assertEquals(complaints, []);
  },
);

pageTest(
  "the server goes away and comes back: the page catches up, with no row missing or doubled",
  async (site) => {
    const { page, url, folder, stop, start } = site;
    const run = await fakeRun(folder, "r", { rows: rowsFrom(1, 10) });
    await page.goto(`${url}/#/runs/r`);
    await page.locator("#charts[data-last='sparse:10']").waitFor();
    for (let round = 1; round <= 3; round++) {
      await stop();
      await page.getByText("connection lost").waitFor();
      await run.append(rowsFrom(10 * round + 1, 10));
      await start();
      await page.locator(`#charts[data-last='sparse:${10 * round + 10}']`).waitFor();
      assertEquals(await chart(page, "data-rows"), String(10 * round + 10));
      await page.getByText("● live").waitFor();
    }
    run.release();
  },
);

pageTest(
  "with the token in the address a run is paused, goes on and gets another slack",
  async ({ page, url, folder, complaints }) => {
    const run = await fakeRun(folder, "r", { rows: rowsFrom(1, 3) });
    const wanted = async () => JSON.parse(await Deno.readTextFile(`${run.path}/control.json`));
    await page.goto(`${url}/#/runs/r`);
    await page.getByText("open the address that the server printed").waitFor();
    await page.goto(`${url}/#token=${TOKEN}`);
    await page.locator("tr[data-run=r] a").click();
    assert(!page.url().includes(TOKEN), "the token is taken out of sight");
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Go on" }).waitFor();
    assertEquals((await wanted()).paused, true);
    await page.getByLabel("slack, nats").fill("-0.02");
    await page.getByRole("button", { name: "Change" }).click();
    await page.getByRole("button", { name: "Go on" }).click();
    await page.getByRole("button", { name: "Pause" }).waitFor();
    assertEquals(await wanted(), { paused: false, stop: false, slack: -0.02 });
    // What is being typed outlives news of the run.
    await page.getByLabel("slack, nats").fill("0.5");
    await run.append(rowsFrom(4, 2));
    await page.locator("#charts[data-last='sparse:5']").waitFor();
    assertEquals(await page.getByLabel("slack, nats").inputValue(), "0.5");
    run.release();
    assertEquals(complaints, []);
  },
);

pageTest("a run that is not there is said to be so", async ({ page, url }) => {
  await page.goto(`${url}/#/runs/none`);
  await page.getByText("There is no such run").waitFor();
});
