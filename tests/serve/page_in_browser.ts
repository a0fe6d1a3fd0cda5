/**
 * The page in a real browser, headless Chromium. Run by page_test.ts in a process of its own, since playwright-core reads
 * files of /proc that Deno lets through with every permission only.
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { readControl } from "../../pipeline/runs/control.ts";
import type { AttentionAnswer, AttentionEdge } from "../../serve/api.ts";
import type { Explorer } from "../../serve/explorer.ts";
import { problem } from "../../serve/problem.ts";
import { fakeRun } from "../support/fake_run.ts";
import { MANY_EDGES } from "../support/many_edges.ts";
import { metricRow } from "../support/metric_row.ts";
import { addressOf, becomes, siteTest, TOKEN, unfold, violations } from "./site.ts";

const EDGES: AttentionEdge[] = [
  [0, 0, 1, 0, 0.5, 1],
  [0, 0, 2, 2, 0.25, 2],
  [0, 1, 2, 0, 1, 3],
  [1, 1, 2, 1, 0.125, 0.5],
];

const MANY_TOKENS = "many tokens";

/** Answers every prompt but one with the same edges, and twice as many pairs for the dense model. */
const explorer: Explorer = {
  ask: (_, { model, prompt }) =>
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
        ...(prompt === MANY_TOKENS ? MANY_EDGES : {}),
      } as AttentionAnswer,
    ),
  goOn: (_, { model, prompt }) =>
    model === "dense" && prompt === "no dense model"
      ? Promise.reject(problem(409, "There is no dense model here"))
      : Promise.resolve({
        model,
        weights: { kind: model === "sparse" ? "checkpoint" : "dense", step: model === "sparse" ? 7 : null },
        tokens: [4, 5],
        text: model === "sparse" ? " and\n<b>sparse</b>" : " and dense",
        ended: model === "sparse" ? "tokens" : "end of text",
      }),
  close() {},
};

const pageTest = siteTest(explorer);

const edgesIn = (count: number) => `${count.toLocaleString("en")} ${count === 1 ? "edge" : "edges"}`;

const rowsFrom = (first: number, count: number) =>
  Array.from({ length: count }, (_, n) =>
    metricRow(first + n, {
      seconds: first + n,
      expected_open_by_head: [0.5, 0.25, 0.125, (first + n) / 1000],
      ...((first + n) % 10 === 0
        ? { validation_ce: 1.4, open_fraction: 0.1, open_by_head: [0.4, 0, 0, 0] }
        : {}),
    }));

const REPORT = "<!doctype html><style>h1 { color: rgb(1 2 3) }</style><h1>A report</h1>";

/** What stands in an attribute of the charts. */
const chart = (page: Page, name: string) => page.locator("#charts").getAttribute(name);

pageTest("no run yet: the page says how to begin; then runs appear, broken ones as such", async (site) => {
  const { page, url, folder, complaints } = site;
  await page.goto(url);
  await page.getByText("deno task sparsify").waitFor();
  const run = await fakeRun(folder, "first", { rows: rowsFrom(1, 5) });
  await Deno.mkdir(`${folder}/nothing`);
  // A list may be made between its folder and its first row.
  await page.locator("tr[data-run=first] .status", { hasText: "training" }).waitFor();
  await page.locator("tr[data-run=nothing]", { hasText: /broken[^]*not a run/ }).waitFor();
  const sweep = `${folder}/tries`;
  await Deno.mkdir(sweep);
  await Deno.writeTextFile(`${sweep}/sweep.json`, JSON.stringify({ file: "/tries.json" }));
  await Deno.writeTextFile(`${sweep}/sweep.html`, REPORT);
  for (const name of ["one", "two"]) await fakeRun(sweep, name, { live: false });
  for (const file of ["summary.json", "report.html"]) await Deno.writeTextFile(`${sweep}/one/${file}`, "{}");
  const row = page.locator("tr[data-run=tries]", { hasText: "a sweep: 1 of the 2 runs that it has begun" });
  await row.waitFor();
  await row.getByRole("link", { name: "tries" }).click();
  await page.getByRole("heading", { name: "tries" }).waitFor();
  await page.getByText("two not finished").waitFor();
  const links = await page.locator("main a[target=_blank]").evaluateAll((all: HTMLAnchorElement[]) =>
    all.map(({ href }) => new URL(href).pathname)
  );
  assertEquals(links, ["/runs/tries/reports/one/report.html", "/runs/tries/reports/sweep.html"]);
  assertEquals(await page.getByText("adapter", { exact: true }).count(), 0, "it has no settings");
  run.release();
  assertEquals(complaints, []);
});

pageTest("by keyboard: Tab reaches a run and stays at it while news come, Enter opens it", async (site) => {
  const { page, url, folder, complaints } = site;
  const run = await fakeRun(folder, "first", { rows: rowsFrom(1, 5) });
  await page.goto(url);
  await page.locator("tr[data-run=first]").waitFor();
  const focused = () => page.evaluate("document.activeElement.textContent");
  // Past the filter, what sorts, and what ticks.
  for (let n = 0; n < 40 && await focused() !== "first"; n++) await page.keyboard.press("Tab");
  assertEquals(await focused(), "first");
  await run.append(rowsFrom(6, 3));
  await page.getByText("8 of 100").waitFor();
  assertEquals(await focused(), "first", "the list was made anew, and the focus is where it was");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "first" }).waitFor();
  assertEquals(await page.title(), "first – sparse attention");
  run.release();
  assertEquals(complaints, []);
});

pageTest("times past go on while nothing else changes", async ({ page, url, folder }) => {
  await fakeRun(folder, "r", { live: false, rows: rowsFrom(1, 3) });
  const [{ updated }] = await (await fetch(`${url}/api/runs`)).json();
  // The page's clock stands until it is moved.
  const now = Date.parse(updated) + 1000;
  await page.clock.install({ time: now - 3_600_000 });
  await page.clock.pauseAt(now);
  await page.goto(url);
  await page.getByText("just now").waitFor();
  await page.clock.runFor(120_000);
  await page.getByText("2 min 01 s ago", { exact: true }).waitFor();
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
    const slider = page.getByRole("slider", { name: "Step" });
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
    await page.locator("figure[data-model=dense]").waitFor();
    const sparse = page.locator("figure[data-model=sparse]");
    const tokens = ["one", "␣two", "<b>three</b>"];
    /** What the table under a drawing has, which is made anew with it; as many arcs are drawn. */
    const drawn = async () => {
      await unfold(sparse.locator("details"));
      const rows = (await sparse.locator("tbody tr").allInnerTexts()).map((row) => row.split("\t"));
      assertEquals(await sparse.locator(".every").getAttribute("data-drawn"), String(rows.length));
      return rows.map(([layer, head, query, key]) =>
        [layer, head, ...[query, key].map((text) => tokens.indexOf(text.replace(/ \(\d+\)$/, "")))].join(".")
      ).sort();
    };
    const reported = EDGES.map((edge) => edge.slice(0, 4).join(".")).sort();
    assertEquals(await drawn(), reported);
    assertEquals(
      await page.locator("figure[data-model=dense] .every").getAttribute("data-drawn"),
      String(2 * EDGES.length),
    );
    assert((await sparse.innerText()).includes("4 of 24 edges are open (16.7 %)"), await sparse.innerText());
    // By keyboard on the map of all heads.
    const map = page.locator(".thumbnails");
    await map.focus();
    for (
      const [key, layer, head] of [
        ["ArrowRight", 0, 0],
        ["ArrowRight", 0, 1],
        ["ArrowDown", 1, 1],
        ["ArrowLeft", 1, 0],
      ] as const
    ) {
      await page.keyboard.press(key);
      const own = reported.filter((edge) => edge.startsWith(`${layer}.${head}.`));
      assertEquals(
        await page.locator(".head-choice .told").innerText(),
        `layer ${layer}, head ${head}: ${edgesIn(own.length)} of at least 0.05`,
      );
      await page.keyboard.press("Enter");
      assertEquals(await drawn(), own);
      await map.focus();
    }
    // And by pointer: the last of two by two heads.
    const { width, height } = (await map.locator("canvas.frames").boundingBox())!;
    await map.locator("canvas.frames").click({ position: { x: width - 10, y: height - 10 } });
    assertEquals(await drawn(), reported.filter((edge) => edge.startsWith("1.1.")));
    await page.getByText("layer 1, head 1 is shown").waitFor();
    await page.getByRole("button", { name: "all heads" }).click();
    assertEquals(await drawn(), reported);
    // A token's edges light up when it has the focus; the pointer lies on none.
    await page.mouse.move(0, 0);
    await sparse.locator(".token").nth(1).focus();
    assertEquals(await sparse.locator("canvas.some").getAttribute("data-drawn"), "2");
    const own = await sparse.locator(".of-token").innerText();
    assert(own.includes("0.500") && own.includes("0.125") && !own.includes("0.250"), own);
    assert(await sparse.locator(".sky.lit").isVisible());
    // Pointing at an arc tells which it is: that of one token to the next stands over the middle between them.
    const boxes = [0, 1].map((n) => sparse.locator(".token").nth(n));
    const [from, to] = await Promise.all(boxes.map(async (at) => (await at.boundingBox())!));
    const sky = (await sparse.locator(".sky").boundingBox())!;
    const middle = (from.x + from.width / 2 + to.x + to.width / 2) / 2;
    for (let y = sky.y + sky.height - 4; y > sky.y; y -= 3) {
      await page.mouse.move(middle, y);
      if (await sparse.locator(".sky").getAttribute("title")) break;
    }
    assertEquals(
      await sparse.locator(".sky").getAttribute("title"),
      "layer 0, head 0: ␣two reads one, weight 0.500, gate logit 1.00",
    );
    assert((await sparse.innerText()).includes("<b>three</b>"), "a token is text, whatever stands in it");
    assertEquals(complaints, []);
  },
);

pageTest(
  "dense and sparse have one least weight, linked tokens and one way to be drawn, and a model its own example",
  async ({ page, url, folder, complaints }) => {
    await fakeRun(folder, "english", { live: false, rows: rowsFrom(1, 3) });
    await fakeRun(folder, "sums", {
      live: false,
      command: "pretrain",
      rows: rowsFrom(1, 3),
      settings: { tokenizer: "data/addition", data: ["data/addition/examples.jsonl.gz"] },
    });
    await page.setViewportSize({ width: 1600, height: 900 });
    await page.goto(`${url}/#/runs/sums`);
    assertEquals(
      await page.getByLabel("Prompt").inputValue(),
      "12+34=",
      "the letters of an example it has not",
    );
    await page.goto(`${url}/#/runs/english`);
    await page.getByRole("button", { name: "Show attention" }).click();
    const panel = (model: string) => page.locator(`figure.attention[data-model=${model}]`);
    await panel("dense").waitFor();
    const tops = await Promise.all(
      ["sparse", "dense"].map(async (model) => (await panel(model).boundingBox())!.y),
    );
    assertEquals(tops[0], tops[1], "side by side where there is room");
    const arcs = async (model: string, what: string) =>
      Number(await panel(model).locator(`.${what}`).getAttribute("data-drawn"));
    const slider = page.getByLabel("least weight");
    for (const [position, weight, count] of [[3, "0.1", 4], [4, "0.2", 3], [5, "0.5", 2]] as const) {
      await slider.fill(String(position));
      assertEquals(await arcs("sparse", "every"), count);
      assertEquals(await arcs("dense", "every"), 2 * count);
      const text = await panel("sparse").innerText();
      assert(text.includes(`4 of 24 edges are open (16.7 %); ${count} of at least ${weight}`), text);
      assert((await panel("dense").innerText()).includes(`${2 * count} of at least ${weight}`));
      // What a screen reader is told, and the table, follow once the slider rests.
      const row = panel("sparse").locator("svg[role=group]");
      await becomes(() => row.getAttribute("aria-label"), `${count} edges over 3 tokens`);
      await unfold(panel("sparse").locator("details"));
      await becomes(() => panel("sparse").locator("tbody tr").count(), count);
    }
    await slider.fill("0");
    for (const summary of await page.locator("figure.attention summary").all()) await summary.click();
    await page.mouse.move(0, 0);
    for (const colorScheme of ["light", "dark"] as const) {
      await page.emulateMedia({ colorScheme });
      assertEquals(await violations(page), [], colorScheme);
    }
    // Three tokens take the room there is.
    const box = (await panel("sparse").locator(".arcs").boundingBox())!;
    assert(box.width > 250, `${box.width} px`);
    await panel("sparse").locator(".token").nth(1).focus();
    for (const model of ["sparse", "dense"]) {
      assertEquals(await arcs(model, "some"), model === "sparse" ? 2 : 4, `linked: ${model}`);
      const said = panel(model).getByRole("status");
      assert((await said.innerText()).includes("0.500"), "what a token reads is announced");
    }
    await page.getByLabel("drawn as").selectOption("matrix");
    // One cell for each pair of tokens that has an edge: two heads share none here.
    const places = new Set(EDGES.map(([, , query, key]) => `${query}.${key}`));
    assertEquals(
      await panel("sparse").locator(".matrix canvas").getAttribute("data-drawn"),
      String(places.size),
    );
    assertEquals(await violations(page), []);
    assertEquals(complaints, []);
  },
);

pageTest(
  "256 tokens of 48 × 32 heads: the page has few elements, the map fits, and pointing draws a token's edges alone",
  async ({ page, url, folder, complaints }) => {
    await fakeRun(folder, "r", { live: false, rows: rowsFrom(1, 3) });
    // Lines that are drawn on canvases.
    await page.addInitScript(`{
      const { stroke } = CanvasRenderingContext2D.prototype;
      CanvasRenderingContext2D.prototype.stroke = function (...rest) {
        window.strokes = (window.strokes ?? 0) + 1;
        return stroke.apply(this, rest);
      };
    }`);
    await page.setViewportSize({ width: 1280, height: 900 });
    await page.goto(`${url}/#/runs/r`);
    await page.getByLabel("Prompt").fill(MANY_TOKENS);
    await page.getByRole("button", { name: "Show attention" }).click();
    await page.locator("figure.attention[data-model=dense]").waitFor();
    // Three a token and panel, and some for what stands around them.
    const elements = await page.locator("#explorer *").count();
    assert(elements < 2 * 3 * 256 + 150, `${elements} elements`);
    const map = page.locator(".thumbnails");
    const [width, room] = await map.evaluate((at) => [at.scrollWidth, at.clientWidth]);
    assert(width <= room, `the map takes ${width} px, where it has ${room}`);
    await map.focus();
    for (const key of ["ArrowRight", "ArrowDown"]) await page.keyboard.press(key);
    const atLeast = (least: number) => MANY_EDGES.edges.filter(([, , , , weight]) => weight >= least);
    const own = atLeast(0.05).filter(([layer, head]) => layer === 1 && head === 0).length;
    assertEquals(
      await page.locator(".head-choice .told").innerText(),
      `layer 1, head 0: ${edgesIn(own)} of at least 0.05`,
    );
    const sparse = page.locator("figure[data-model=sparse]");
    const drawn = async () => Number(await sparse.locator(".every").getAttribute("data-drawn"));
    // Another position of the slider draws no arc and makes no element, and what is shown is what is heavy enough.
    await page.evaluate(`{
      window.made = 0;
      new MutationObserver((changes) => {
        for (const { addedNodes } of changes) {
          for (const { nodeType } of addedNodes) window.made += nodeType === Node.ELEMENT_NODE;
        }
      }).observe(document.getElementById("explorer"), { childList: true, subtree: true });
      window.strokes = 0;
    }`);
    const slider = page.getByLabel("least weight");
    let before = Infinity;
    for (const [position, least] of [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].entries()) {
      await slider.fill(String(position));
      const all = atLeast(least).length;
      const said = (await sparse.innerText()).replace(/\s+/g, " ");
      assert(said.includes(`${all.toLocaleString("en")} of at least ${least}.`), said);
      const cut = `The 2,000 heaviest of ${all.toLocaleString("en")} are drawn.`;
      assertEquals(said.includes(cut), all > 2000, said);
      const now = await drawn();
      assert(now > 0 && (all < 2000 ? now < before : now <= before), `${now} of ${before} arcs`);
      before = now;
    }
    const label = () => sparse.locator("svg[role=group]").getAttribute("aria-label");
    await becomes(label, `${edgesIn(atLeast(0.5).length)} over 256 tokens`);
    assertEquals(await page.evaluate("[window.strokes, window.made]"), [0, 0]);
    await slider.fill("2");
    await page.evaluate("window.strokes = 0");
    await sparse.locator(".token").nth(9).focus();
    const lit = Number(await sparse.locator("canvas.some").getAttribute("data-drawn"));
    const ofDense = Number(
      await page.locator("figure[data-model=dense] canvas.some").getAttribute("data-drawn"),
    );
    assert(lit > 0 && lit < 200, `${lit} arcs`);
    assertEquals(await page.evaluate("window.strokes"), lit + ofDense);
    // What comes into sight is drawn when it does, not at every pixel.
    const scroll = sparse.locator(".scroll").first();
    const scrolledTo = async (left: number) => {
      await page.evaluate("window.strokes = 0");
      await scroll.evaluate(
        (at, left) =>
          new Promise((resolve) => {
            at.addEventListener("scroll", resolve, { once: true });
            at.scrollLeft = left;
          }),
        left,
      );
      return await page.evaluate("window.strokes") as number;
    };
    assert(await scrolledTo(200) > 0);
    assertEquals(await scrolledTo(400), 0);
    assert(await scrolledTo(5000) > 0);
    await slider.fill("3");
    assertEquals(await scroll.evaluate((at) => at.scrollLeft), 5000, "one stays where one was");
    // A head by itself, in the same elements.
    await page.evaluate("window.made = 0");
    await map.focus();
    await page.keyboard.press("Enter");
    const ofHead = atLeast(0.1).filter(([layer, head]) => layer === 1 && head === 0).length;
    await becomes(label, `${edgesIn(ofHead)} over 256 tokens`);
    assertEquals(await page.evaluate("window.made"), 0);
    // A matrix has a cell for each pair of tokens among the edges that are heavy enough.
    await page.getByRole("button", { name: "all heads" }).click();
    for (const layers of [7, 8, 48, 96]) {
      const colours = await page.evaluate(`import("./page/attention_arcs.js").then(({ colourOf }) =>
        new Set(Array.from({ length: ${layers} }, (_, n) => colourOf((name) => name, n, ${layers}))).size)`);
      assertEquals(colours, layers, "each layer has a colour of its own");
    }
    await page.getByLabel("drawn as").selectOption("matrix");
    for (const [position, least] of [[3, 0.1], [5, 0.5]] as const) {
      await slider.fill(String(position));
      const places = new Set(atLeast(least).map(([, , query, key]) => `${query}.${key}`));
      assertEquals(
        await sparse.locator(".matrix .cells").getAttribute("data-drawn"),
        String(places.size),
      );
    }
    assertEquals(complaints, []);
  },
);

pageTest(
  "the explorer goes on from the text, the sparse model beside the dense one",
  async ({ page, url, folder, complaints }) => {
    await fakeRun(folder, "r", { live: false, rows: rowsFrom(1, 3) });
    await page.goto(`${url}/#/runs/r`);
    const prompt = page.getByLabel("Prompt");
    await prompt.fill("one two");
    await page.getByRole("button", { name: "Continue", exact: true }).click();
    const [sparse, dense] = ["sparse", "dense"].map((model) =>
      page.locator(`.continuation[data-model=${model}]`)
    );
    await dense.waitFor();
    assertEquals(await sparse.locator(".text").textContent(), "one two and\n<b>sparse</b>");
    assertEquals(
      await sparse.locator("mark").textContent(),
      " and\n<b>sparse</b>",
      "text, whatever stands in it",
    );
    assertEquals(await dense.locator(".text").textContent(), "one two and dense");
    assert((await sparse.innerText()).includes("the checkpoint of step 7"), await sparse.innerText());
    assert((await dense.innerText()).includes("the end of the text"), await dense.innerText());
    // Of the attention nothing was asked, and it stays beside a continuation.
    assertEquals(await page.locator("figure.attention").count(), 0);
    await page.getByRole("button", { name: "Show attention" }).click();
    await page.locator("figure.attention[data-model=sparse]").waitFor();
    assertEquals(await page.locator(".continuation").count(), 2);
    await prompt.fill("no dense model");
    await page.getByRole("button", { name: "Continue", exact: true }).click();
    await page.getByText("There is no dense model here").waitFor();
    assertEquals(await page.locator(".continuation").count(), 1, "what can be shown is shown");
    assertEquals(complaints.filter((complaint) => !complaint.includes("409")), []);
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

for (const late of ["metrics", "heads"]) {
  pageTest(
    `rows written while ${late} are asked for: the head map has every snapshot once`,
    async ({ page, url, folder, complaints }) => {
      const run = await fakeRun(folder, "r", { rows: rowsFrom(1, 10) });
      let delayed = false;
      const others = ["r", "checkpoints"].map((last) =>
        page.waitForResponse((response) => new URL(response.url()).pathname.endsWith(`/${last}`))
      );
      await page.route(new RegExp(`/api/runs/r/${late}`), async (route) => {
        // The others are answered first, and what they missed is there when this one is.
        await Promise.all(others);
        if (!delayed) await run.append(rowsFrom(11, 5));
        delayed = true;
        await route.continue();
      });
      await page.goto(`${url}/#/runs/r`);
      await page.locator("#charts[data-last='sparse:15']").waitFor();
      assertEquals(await page.locator("#heads").getAttribute("data-snapshots"), "15");
      await run.append(rowsFrom(16, 5));
      await page.locator("#charts[data-last='sparse:20']").waitFor();
      assertEquals(await page.locator("#heads").getAttribute("data-snapshots"), "20");
      assertEquals(await chart(page, "data-rows"), "20");
      run.release();
      assertEquals(complaints, []);
    },
  );
}

pageTest("a connection without a sign of life is given up and made anew", async ({ page, url, folder }) => {
  const run = await fakeRun(folder, "r", { rows: rowsFrom(1, 3) });
  let connections = 0;
  page.on("request", (request) => connections += Number(request.url().endsWith("/events")));
  await page.clock.install();
  await page.goto(`${url}/#/runs/r`);
  await page.getByText("● live").waitFor();
  assertEquals(connections, 1);
  // The server's heartbeats keep to another clock. One that comes right before leaves another minute to wait.
  for (let minutes = 0; minutes < 5 && connections === 1; minutes++) await page.clock.fastForward(60_000);
  await becomes(() => Promise.resolve(connections > 1), true);
  await page.getByText("● live").waitFor();
  run.release();
});

pageTest(
  "a report opens with its own style, also where there is a token",
  async ({ page, url, folder, complaints }) => {
    const run = await fakeRun(folder, "r", { live: false, rows: rowsFrom(1, 3) });
    await Deno.writeTextFile(join(run.path, "report.html"), REPORT);
    await page.goto(`${url}/#token=${TOKEN}`);
    await page.locator("tr[data-run=r] a").click();
    const opening = page.waitForEvent("popup");
    await page.getByRole("link", { name: "report.html" }).click();
    const report = await opening;
    await report.getByRole("heading", { name: "A report" }).waitFor();
    const colour = await report.evaluate("getComputedStyle(document.querySelector('h1')).color");
    assertEquals(colour, "rgb(1, 2, 3)");
    assertEquals(complaints, []);
  },
);

pageTest(
  "beyond loopback the page asks for the token, again after it has changed, and saves reports",
  async ({ page, url, folder, stop, start }) => {
    const run = await fakeRun(folder, "r", { rows: rowsFrom(1, 3) });
    await Deno.writeTextFile(join(run.path, "report.html"), REPORT);
    await stop();
    await start({ tokenToRead: true });
    const enter = async (token: string) => {
      await page.getByLabel("Token").fill(token);
      await page.getByRole("button", { name: "Go on" }).click();
    };
    // Whether a link opens the report is not known yet when it is clicked.
    const wasClicked = Promise.withResolvers<void>();
    await page.route("**/reports/*", async (route) => {
      await wasClicked.promise;
      await route.continue();
    });
    const report = page.getByRole("link", { name: "report.html" });
    await page.goto(`${url}/#/runs/r`);
    await enter("wrong");
    await page.getByText("refused").waitFor();
    await enter(TOKEN);
    await page.locator("#charts[data-last='sparse:3']").waitFor();
    const saving = page.waitForEvent("download");
    await report.click();
    wasClicked.resolve();
    const saved = await (await saving).path();
    assertEquals(await Deno.readTextFile(saved), REPORT);
    await stop();
    await start({ tokenToRead: true, token: "another-token-for-tests" });
    await page.getByText("A token is needed").waitFor();
    await enter("another-token-for-tests");
    await page.locator("#charts[data-last='sparse:3']").waitFor();
    await page.getByRole("link", { name: "Runs", exact: true }).click();
    await page.locator("tr[data-run=r]").waitFor();
    await stop();
    await start({ tokenToRead: true });
    await page.getByText("A token is needed").waitFor();
    run.release();
  },
);

pageTest("opened while the server is away, a run is shown once it is back", async (site) => {
  const { page, url, folder, stop, start } = site;
  await fakeRun(folder, "r", { live: false, rows: rowsFrom(1, 3) });
  await page.goto(url);
  const link = page.locator("tr[data-run=r] a");
  await link.waitFor();
  await stop();
  await link.click();
  await page.getByText("cannot be reached").waitFor();
  await start();
  await page.locator("#charts[data-last='sparse:3']").waitFor();
});

pageTest(
  "a run before its first step waits, a broken one says why, neither shows empty charts",
  async (site) => {
    const { page, url, folder, complaints } = site;
    const run = await fakeRun(folder, "r");
    await Deno.mkdir(join(folder, "nothing"));
    await page.goto(`${url}/#/runs/r`);
    await page.getByText("No step is done yet").waitFor();
    assertEquals(await page.locator(".chart:visible").count(), 0);
    await run.append(rowsFrom(1, 2));
    await page.locator("#charts[data-last='sparse:2']").waitFor();
    assert(await page.locator(".chart[data-chart=loss]").isVisible());
    await page.getByText("No step is done yet").waitFor({ state: "detached" });
    run.release();
    await page.goto(`${url}/#/runs/nothing`);
    await page.getByText("not a run").waitFor();
    assertEquals(await page.locator(".chart:visible").count(), 0);
    assertEquals(await page.getByText("No step is done yet").count(), 0);
    assertEquals(complaints, []);
  },
);

pageTest("the first paint waits for no answer", async ({ page, url, folder }) => {
  await fakeRun(folder, "r", { live: false, rows: rowsFrom(1, 20) });
  const painted = "performance.getEntriesByName('first-contentful-paint').length > 0";
  let before = 0;
  await page.route("**/api/**", async (route) => {
    await page.waitForFunction(painted);
    before++;
    await route.continue();
  });
  await page.goto(url);
  await page.locator("tr[data-run=r]").waitFor();
  assert(before > 0, "what the page asks for is held until it has painted");
});

pageTest(
  "with the token in the address a run is paused, goes on and gets another slack",
  async ({ page, url, folder, complaints }) => {
    const run = await fakeRun(folder, "r", { rows: rowsFrom(1, 3) });
    const wanted = () => readControl(run.path);
    await page.goto(`${url}/#/runs/r`);
    await page.getByText("open the address that the server printed").waitFor();
    await page.goto(`${url}/#token=${TOKEN}`);
    await page.locator("tr[data-run=r] a").click();
    assert(!(await addressOf(page)).includes(TOKEN), "the token is taken out of sight");
    await page.getByRole("button", { name: "Pause" }).focus();
    await page.keyboard.press("Enter");
    await page.getByRole("button", { name: "Go on" }).waitFor();
    assertEquals(await page.evaluate("document.activeElement.textContent"), "Go on", "the focus stays");
    assertEquals((await wanted()).paused, true);
    await page.getByLabel("slack, nats").fill("-0.02");
    await page.getByRole("button", { name: "Change" }).click();
    await page.getByRole("button", { name: "Go on" }).click();
    await page.getByRole("button", { name: "Pause" }).waitFor();
    // Two wishes, of which either may come first.
    await becomes(wanted, { paused: false, stop: false, slack: -0.02 });
    // What is being typed outlives news of the run.
    await page.getByLabel("slack, nats").fill("0.5");
    await run.append(rowsFrom(4, 2));
    await page.locator("#charts[data-last='sparse:5']").waitFor();
    assertEquals(await page.getByLabel("slack, nats").inputValue(), "0.5");
    run.release();
    assertEquals(complaints, []);
  },
);

pageTest("below a path of a proxy everything works as at the root", async (site) => {
  const { page, url, folder, complaints } = site;
  const run = await fakeRun(folder, "r", { rows: rowsFrom(1, 3) });
  await Deno.writeTextFile(join(run.path, "report.html"), REPORT);
  const PREFIX = "/tools/sparse";
  const proxy = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const { pathname, search } = new URL(request.url);
    if (!pathname.startsWith(`${PREFIX}/`)) return new Response(null, { status: 418 });
    const { method, headers, body } = request;
    return await fetch(url + pathname.slice(PREFIX.length) + search, { method, headers, body });
  });
  try {
    await page.goto(`http://127.0.0.1:${proxy.addr.port}${PREFIX}/#token=${TOKEN}`);
    await page.locator("tr[data-run=r] a").click();
    await page.locator("#charts[data-last='sparse:3']").waitFor();
    await run.append(rowsFrom(4, 2));
    await page.locator("#charts[data-last='sparse:5']").waitFor();
    await page.getByRole("button", { name: "Show attention" }).click();
    await page.locator("figure[data-model=sparse]").waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: "Go on" }).waitFor();
    const opening = page.waitForEvent("popup");
    await page.getByRole("link", { name: "report.html" }).click();
    const report = await opening;
    await report.getByRole("heading", { name: "A report" }).waitFor();
    assertEquals(complaints, []);
  } finally {
    run.release();
    await page.close();
    await proxy.shutdown();
  }
});

pageTest("a run that is not there is said to be so", async ({ page, url }) => {
  await page.goto(`${url}/#/runs/none`);
  await page.getByText("There is no such run").waitFor();
});
