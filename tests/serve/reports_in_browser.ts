/**
 * The reports, as the server sends them, in a real browser: every count on the page of an analysis of circuits equals the
 * data behind it; axe on it and on a run's report. Run by page_test.ts in a process of its own.
 */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { Page } from "playwright-core";
import { analyse, type CircuitFindings, type Findings } from "../../pipeline/circuits/analyse.ts";
import { connected, edgeCount, topEdges } from "../../pipeline/circuits/discovery.ts";
import type { CircuitEngine } from "../../pipeline/circuits/engine.ts";
import { type CircuitGraph, edgeEnds } from "../../pipeline/circuits/graph.ts";
import { circuitsHtml } from "../../pipeline/circuits/report.ts";
import { reportHtml } from "../../pipeline/report/report.ts";
import type { CircuitResults } from "../../pipeline/circuits/results.ts";
import type { Explorer } from "../../serve/explorer.ts";
import { plantedEngine, plantedSet, withRun } from "../pipeline/circuits/planted.ts";
import { OPTIONS, PROMPTS, resultsOf } from "../pipeline/circuits/planted_results.ts";
import { DATA, phaseRows, SUMMARY } from "../pipeline/report/report_data.ts";
import { fakeRun } from "../support/fake_run.ts";
import { type Site, siteTest, unfold, violations } from "./site.ts";

const pageTest = siteTest(
  { ask: () => Promise.reject(new Error("nothing is asked")), close() {} } as unknown as Explorer,
);

const found = (engine: CircuitEngine) => analyse(engine, plantedSet(PROMPTS), OPTIONS);

/** A model that does everything with so many edges, whichever they are, and nothing with fewer. */
async function needing(count: number): Promise<Findings> {
  const engine = plantedEngine(PROMPTS);
  const { clean } = await engine.baselines();
  const run = (kept: Uint8Array) =>
    Promise.resolve(clean.map((metric) => edgeCount(kept) >= count ? metric : 0));
  return await found(withRun(engine, run));
}

/** Opens the page of results as a run of the site has it. */
async function open({ page, url, folder }: Site, results: CircuitResults, name = "circuits"): Promise<void> {
  const run = await fakeRun(folder, name, { live: false, command: "circuits" });
  await Deno.writeTextFile(join(run.path, "circuits.html"), circuitsHtml(name, results));
  await page.goto(`${url}/runs/${name}/reports/circuits.html`);
}

const figure = (page: Page, name: string, kind: string) => page.locator(`figure.${name}[data-kind=${kind}]`);

/** Edges of a circuit, and the nodes at their ends, by the names that the page has. */
function namesOf(graph: CircuitGraph, kept: Uint8Array) {
  const edges = [...kept.keys()].filter((edge) => kept[edge]).map((edge) => edgeEnds(graph, edge));
  const owner = (input: string) => input.replace(/\.[qkv]$/, "");
  const kinds: Record<string, string> = { query: "query", key: "key", value: "value" };
  const nodes = new Set(edges.flatMap(({ source, input }) => [source.name, owner(input.name)]));
  const of = (kind: string) =>
    new Set(edges.filter(({ source }) => source.kind === kind).map(({ source }) => source.name)).size;
  return {
    edges: edges.map(({ source, input }) => `${source.name}|${owner(input.name)}|${kinds[input.kind] ?? ""}`)
      .sort(),
    nodes: [...nodes].sort(),
    heads: of("head"),
    mlps: of("mlp"),
  };
}

const noun = (count: number, what: string) => `${count} ${what}${count === 1 ? "" : "s"}`;

/** What a figure of a circuit shows: of its drawing, its table and its line. */
async function shown(page: Page, kind: string) {
  const at = figure(page, "graph", kind);
  const details = at.locator("details");
  await unfold(details);
  const rows = await details.locator("tbody tr").evaluateAll((rows) =>
    rows.map((row) => [...row.children].map((cell) => cell.textContent))
  );
  const titles = await at.locator("path.edge title").allTextContents();
  return {
    edges: rows.map(([source, input, as]) => `${source}|${input}|${as}`).sort(),
    // A line of the drawing for each row of the table.
    drawn: titles.map((title) => title.replace(/^(\S+) to (\S+) ?(\w*): .*$/, "$1|$2|$3")).sort(),
    nodes: (await at.locator("g.node text").allTextContents()).sort(),
    said: await at.locator(".shown").innerText(),
    spoken: await at.locator("input").getAttribute("aria-valuetext"),
  };
}

/** Moves the slider over all circuits that were run, and holds each against the findings. */
async function eachSize(page: Page, kind: string, graph: CircuitGraph, circuit: CircuitFindings) {
  const slider = figure(page, "graph", kind).locator("input");
  const sizes = circuit.edgeLadder.filter(({ size }, n) => size !== circuit.edgeLadder[n - 1]?.size);
  assertEquals(await slider.getAttribute("max"), String(sizes.length - 1));
  const first = circuit.edges.value === null
    ? sizes.length - 1
    : sizes.findIndex(({ size }) => size === circuit.edges.value);
  assertEquals(await slider.inputValue(), String(first), "the circuit that is counted is drawn first");
  for (const [n, { chosen, size }] of sizes.entries()) {
    await slider.fill(String(n));
    const { edges, nodes, heads, mlps } = namesOf(graph, connected(graph, topEdges(circuit.ranked, chosen)));
    const is = await shown(page, kind);
    assertEquals([edges.length, is.edges], [size, edges]);
    assertEquals(is.drawn, edges);
    assertEquals(is.nodes, nodes, "no node without an edge, and each that has one");
    assertStringIncludes(
      is.said,
      `${noun(size, "edge")} over ${noun(heads, "head")} and ${noun(mlps, "MLP")} restore`,
    );
    assertEquals(is.spoken, is.said, "the slider says where it lies");
    assertEquals(
      is.said.includes(`(${chosen} chosen, of which ${chosen - size} lead nowhere)`),
      chosen > size,
    );
    assertEquals(is.said.includes("that the headline counts"), n === first && circuit.edges.value !== null);
  }
  await slider.fill(String(first));
}

pageTest("the circuit that the headline counts is drawn, and every count is the data's", async (site) => {
  const { page, complaints } = site;
  const { graph } = plantedEngine(PROMPTS);
  const [dense, sparse] = [await needing(34), await found(plantedEngine(PROMPTS))];
  const results = resultsOf(dense, sparse);
  await open(site, results);
  const sizes = [dense, sparse].map(({ circuit }) => circuit!.edges.value!);
  assertEquals(sizes[1], 4);
  const headline = await page.locator("p.result").innerText();
  for (const [kind, { circuit }] of [["dense", dense], ["sparse", sparse]] as const) {
    const size = circuit!.edges.value!;
    assertStringIncludes(headline, `the ${kind} model needs ${size} edges, or`);
    const { edges, heads, mlps } = namesOf(graph, circuit!.circuit);
    assertEquals(edges.length, size);
    assertEquals((await shown(page, kind)).edges, edges);
    assertEquals(
      await figure(page, "graph", kind).locator("figcaption span").innerText(),
      `${size} edges of ${graph.edges} over ${noun(heads, "head")} and ${
        noun(mlps, "MLP")
      } restore 90 % of the effect or more.`,
    );
    await eachSize(page, kind, graph, circuit!);
  }
  // The sparse circuit does all of it, by construction of what was planted.
  assertEquals(
    (await shown(page, "sparse")).said,
    "4 edges over 2 heads and 0 MLPs restore 100.0 % of the effect. This is the circuit that the headline counts.",
  );
  assertEquals(complaints, []);
});

pageTest(
  "heads of the headline are marked, effects and faithfulness stand in tables, on one scale",
  async (site) => {
    const { page, complaints } = site;
    const [dense, sparse] = [await needing(34), await found(plantedEngine(PROMPTS))];
    // A model whose effects are ten times smaller is drawn so.
    const small = {
      ...sparse,
      circuit: { ...sparse.circuit!, scores: sparse.circuit!.scores.map((one) => one / 10) },
    };
    small.circuit.noising = sparse.circuit!.noising.map((one) => one / 10);
    await open(site, resultsOf(dense, small));
    const { graph } = plantedEngine(PROMPTS);
    for (const [kind, { circuit }] of [["dense", dense], ["sparse", small]] as const) {
      const map = page.locator(`.beside figure[data-kind=${kind}]`, { has: page.locator("table.heads") });
      const cells = await map.locator("td").allInnerTexts();
      const marked = cells.filter((cell) => cell.includes("✓")).length;
      assertEquals(marked, circuit!.heads.value);
      assertEquals(await map.locator("figcaption span").innerText(), `✓ ${noun(marked, "head")}`);
      // In the order of the graph: layer by layer, heads and then the MLP.
      const effects = cells.slice(1).map((cell) => Number(cell.replace(" ✓", "").replace("−", "-")));
      assertEquals(effects, Array.from(circuit!.noising.slice(1), (effect) => Number(effect.toPrecision(2))));
      const names = graph.sources.slice(1).map(({ name }) => name);
      assertEquals(
        names.filter((_, n) => cells[n + 1].includes("✓")).sort(),
        circuit!.rankedHeads.slice(0, marked).map((source) => graph.sources[source].name).sort(),
      );
    }
    const widths = async (kind: string) =>
      Math.max(
        ...await figure(page, "graph", kind).locator("path.edge").evaluateAll((edges) =>
          edges.map((edge) => Number(edge.getAttribute("stroke-width")))
        ),
      );
    assertEquals([await widths("dense"), await widths("sparse")], [6, 1.5]);
    const shade = (kind: string) =>
      page.locator(`.beside figure[data-kind=${kind}] table.heads td`).evaluateAll((cells) =>
        Math.max(...cells.map((cell) => Number(cell.className.slice(1))))
      );
    assertEquals([await shade("dense"), await shade("sparse")], [7, 1]);

    await page.getByText("Faithfulness as a table").click();
    const rows = await page.getByRole("region", { name: "Faithfulness" }).locator("tbody tr").allInnerTexts();
    assertEquals(
      rows.map((row) => row.split("\t").map((cell) => cell.split(" ")[0])),
      dense.circuit!.curve.map(({ chosen, edges, faithfulness }, n) => {
        const other = sparse.circuit!.curve[n];
        return [chosen, edges, faithfulness, other.edges, other.faithfulness].map(String);
      }),
    );
    const spoken = await page.locator("svg.chart").getAttribute("aria-label");
    for (const { faithfulness, fraction } of sparse.circuit!.curve) {
      assertStringIncludes(spoken!, `${faithfulness} at ${Number((100 * fraction).toPrecision(3))} %`);
    }
    assertEquals(complaints, []);
  },
);

pageTest(
  "a dense model that fails the task has no circuit on the page, and the sparse one has",
  async (site) => {
    const { page, complaints } = site;
    const engine = plantedEngine(PROMPTS);
    const dense = await found(plantedEngine(PROMPTS, { able: false }));
    const sparse = await found(engine);
    await open(site, resultsOf(dense, sparse));
    assertEquals(
      await page.locator("p.result").innerText(),
      "The dense model does not do the task planted well enough for a circuit to mean anything: 50.0 % of answers right, " +
        "where --least-accuracy asks for 60.0 %.",
    );
    await page.getByText("The dense model does not do the task, and has no circuit.").waitFor();
    assertEquals(await figure(page, "graph", "dense").count(), 0);
    assertEquals(await page.locator("table.heads").count(), 1);
    await eachSize(page, "sparse", engine.graph, sparse.circuit!);
    const row = async (label: string) =>
      (await page.locator("table.results tr", { hasText: label }).locator("td").allInnerTexts()).join();
    assertEquals(await row("edges for 90 % of the effect"), "–,4 (4 to 4)");
    assertEquals(await row("pairs that choose circuits"), "–,6, 6");
    assertEquals(await row("answers right"), "50.0 %,100.0 %");
    // Attention is that of both.
    for (const kind of ["dense", "sparse"]) await figure(page, "attention", kind).locator("svg").waitFor();
    assertEquals(await violations(page), []);
    assertEquals(complaints, []);
  },
);

pageTest("an empty circuit draws nothing, and where none restores 90 % the page says so", async (site) => {
  const { page, complaints } = site;
  const engine = plantedEngine(PROMPTS);
  const constant = await found(withRun(engine, () => Promise.resolve(new Float64Array(PROMPTS).fill(8))));
  assertEquals(constant.circuit!.edges.value, null);
  await open(site, resultsOf(constant, undefined));
  assertStringIncludes(
    await page.locator("p.result").innerText(),
    "no circuit of the dense model restores 90 % of the effect",
  );
  const at = figure(page, "graph", "dense");
  assertEquals(
    await at.locator("figcaption span").innerText(),
    "No circuit that was run restores 90 % of the effect.",
  );
  await eachSize(page, "dense", engine.graph, constant.circuit!);
  await at.locator("input").fill("0");
  const { edges, nodes, said } = await shown(page, "dense");
  assertEquals([edges, nodes], [[], []]);
  assertStringIncludes(said, "0 edges over 0 heads and 0 MLPs restore");
  assertEquals(await at.locator("svg").count(), 0);
  await at.getByText("no edge is on a way from the tokens to the logits").waitFor();
  assertEquals(await violations(page), []);
  assertEquals(complaints, []);
});

pageTest(
  "key heads that several heads read are nodes of their own, and no heads of the count",
  async (site) => {
    const { page, complaints } = site;
    const engine = plantedEngine(PROMPTS, { keyValueHeads: 1 });
    const findings = await found(engine);
    await open(site, resultsOf(findings, undefined, engine));
    assertEquals(findings.circuit!.circuit, engine.planted);
    await eachSize(page, "dense", engine.graph, findings.circuit!);
    const { nodes, said } = await shown(page, "dense");
    assertEquals(nodes, ["a0.g0", "a0.h1", "a1.g0", "a1.h0", "embed", "logits"]);
    assertStringIncludes(said, "4 edges over 2 heads and 0 MLPs");
    assertEquals(await figure(page, "graph", "dense").locator("path.group").count(), 2);
    assertEquals(complaints, []);
  },
);

pageTest(
  "nodes by keyboard: arrows move, Enter names a node's edges, Escape lets go, all announced",
  async (site) => {
    const { page, complaints } = site;
    await open(site, resultsOf(await found(plantedEngine(PROMPTS)), undefined));
    const at = figure(page, "graph", "dense");
    const told = at.locator(".of-node");
    assertEquals(await told.getAttribute("role"), "status");
    await at.locator("input").focus();
    // The region that scrolls, and in it one node.
    for (const _ of [1, 2]) await page.keyboard.press("Tab");
    const focused = () => page.evaluate("document.activeElement.getAttribute('data-name')");
    assertEquals(await focused(), "logits");
    assertEquals(await told.innerText(), "logits: 2 edges in, +8.00 together; 0 out.");
    await page.keyboard.press("ArrowDown");
    assertEquals(await focused(), "a1.h0");
    const lit = () => at.locator("path.edge.on title").allTextContents();
    assertEquals((await lit()).sort(), ["a0.h1 to a1.h0 key: +6.00", "a1.h0 to logits: +6.00"]);
    await page.keyboard.press("Enter");
    assertEquals(await told.innerText(), "a1.h0: reads a0.h1 as key +6.00; is read by logits +6.00.");
    assertEquals(await at.locator("[aria-pressed=true]").getAttribute("data-name"), "a1.h0");
    // Another is looked at, and then the held one again.
    await page.keyboard.press("ArrowDown");
    assertEquals(await told.innerText(), "a0.h1: 1 edge in, +6.00 together; 1 out, +6.00 together.");
    await page.keyboard.press("Tab");
    assertStringIncludes(await told.innerText(), "a1.h0: reads a0.h1");
    await page.keyboard.press("Shift+Tab");
    assertEquals(await focused(), "a0.h1", "Tab comes back to where one was");
    await page.keyboard.press("Escape");
    assertEquals(await at.locator("[aria-pressed=true]").count(), 0);
    await page.keyboard.press("Tab");
    assertEquals([await told.innerText(), (await lit()).length], ["", 0]);
    assertEquals(complaints, []);
  },
);

pageTest("attention: each head's open edges, and tokens upright wherever they fit", async (site) => {
  const { page, complaints } = site;
  const findings = await found(plantedEngine(PROMPTS));
  const results = resultsOf(findings, findings);
  await open(site, results);
  const at = figure(page, "attention", "sparse");
  const select = page.locator("#attention-head");
  // The one with the largest effect comes first.
  assertEquals(await select.inputValue(), "0.1");
  for (const { layer, head, open, edges } of results.models[1].attention!.heads) {
    await select.selectOption(`${layer}.${head}`);
    assertEquals(
      await select.locator("option:checked").innerText(),
      `layer ${layer}, head ${head}: dense ${open}, sparse ${open} open`,
    );
    assertEquals(
      await at.locator("figcaption span").innerText(),
      `${noun(open, "open edge")} of this head; ${edges.length} of a weight of 0.005 or more ${
        edges.length === 1 ? "is" : "are"
      } drawn`,
    );
    assertEquals(await at.locator("path.edge").count(), edges.length);
    const details = at.locator("details");
    await unfold(details);
    const { tokens } = results.models[1].attention!;
    assertEquals(
      await details.locator("tbody tr").allInnerTexts(),
      edges.map(([query, key, weight]) =>
        `${tokens[query]} (${query + 1})\t${tokens[key]} (${key + 1})\t${weight}`
      ),
    );
    assertStringIncludes(
      (await at.locator("svg").getAttribute("aria-label"))!,
      `head ${layer}.${head} in the sparse model: ${noun(edges.length, "edge")} over 3 tokens`,
    );
  }
  const items = await page.locator("h2:has-text('Attention over') + ul li").allInnerTexts();
  const { all, open: ofPrompt, on_paths, may_matter } = results.models[1].attention!.counts;
  assertStringIncludes(
    items[1],
    `sparse: ${ofPrompt} of ${all} attention edges are open, ${on_paths} of them on a path`,
  );
  assertStringIncludes(items[1], `${may_matter} may matter`);
  assertEquals(await at.locator("text.token[transform]").count(), 0, "three tokens have room");

  // A sum of many numbers in little room: its signs stand upright, its words do not.
  const tokens = Array.from({ length: 40 }, (_, n) => ["12", "+", "=", "establishment"][n % 4]);
  const long = { ...results.models[1], attention: { ...results.models[1].attention!, tokens } };
  await open(site, { ...results, models: [long], ratio: null }, "long");
  const turned = await at.locator("text.token[transform]").allTextContents();
  assertEquals(turned, new Array(10).fill("establishment"));
  assertEquals(complaints, []);
});

for (const colorScheme of ["light", "dark"] as const) {
  pageTest(`axe finds nothing on a page of circuits, ${colorScheme}, at any width`, async (site) => {
    const { page, complaints } = site;
    const [dense, sparse] = [await needing(34), await found(plantedEngine(PROMPTS))];
    await page.emulateMedia({ colorScheme });
    await open(site, resultsOf(dense, sparse));
    for (const summary of await page.locator("summary").all()) await summary.click();
    for (const width of [375, 1280, 1920]) {
      await page.setViewportSize({ width, height: 900 });
      await figure(page, "graph", "sparse").locator("g.node").first().focus();
      await page.keyboard.press("Enter");
      assertEquals(await violations(page), [], `at ${width}`);
      assertEquals(
        await page.evaluate("document.documentElement.scrollWidth > innerWidth"),
        false,
        `at ${width}`,
      );
      const tops = await Promise.all(
        ["dense", "sparse"].map(async (kind) => (await figure(page, "graph", kind).boundingBox())!.y),
      );
      assertEquals(tops[0] === tops[1], width > 375, "side by side where there is room");
    }
    // Two of a kind have names as long as folders'.
    const names: [string, string] = [
      "of-a-sweep/with-lambda-and-slack-of-seed-1",
      "of-a-sweep/with-lambda-and-slack-of-seed-2",
    ];
    await open(site, resultsOf(sparse, sparse, undefined, names), "long-names");
    for (const summary of await page.locator("summary").all()) await summary.click();
    for (const width of [375, 1280]) {
      await page.setViewportSize({ width, height: 900 });
      for (const name of names) {
        await figure(page, "attention", JSON.stringify(name)).locator("svg").waitFor();
      }
      assertEquals(await violations(page), [], `long names at ${width}`);
      const isWide = await page.evaluate("document.documentElement.scrollWidth > innerWidth");
      assertEquals(isWide, false, `long names at ${width}`);
    }
    assertEquals(complaints, []);
  });

  pageTest(
    `axe finds nothing on a run's report, ${colorScheme}, at any width`,
    async ({ page, url, folder, complaints }) => {
      await page.emulateMedia({ colorScheme });
      const missed = { ...SUMMARY, sparse: { ...SUMMARY.sparse, feasible: false, step: 300 } };
      const spiked = phaseRows("sparse").map((row) => row.step === 100 ? { ...row, constraint: 0.75 } : row);
      for (
        const [name, data] of [["met", DATA], ["missed", { ...DATA, summary: missed, rows: spiked }]] as const
      ) {
        const run = await fakeRun(folder, name, { live: false });
        await Deno.writeTextFile(join(run.path, "report.html"), reportHtml(data));
        await page.goto(`${url}/runs/${name}/reports/report.html`);
        for (const summary of await page.locator("summary").all()) await summary.click();
        for (const width of [375, 1280, 1920]) {
          await page.setViewportSize({ width, height: 900 });
          assertEquals(await violations(page), [], `${name} at ${width}`);
          const isWide = await page.evaluate("document.documentElement.scrollWidth > innerWidth");
          assertEquals(isWide, false, `${name} at ${width}`);
        }
      }
      assertEquals(complaints, []);
    },
  );
}
