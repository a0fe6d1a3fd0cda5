/**
 * What the page says of runs of every kind, held against the data behind it, in a real browser; with axe, and at the
 * widths of a phone, a laptop and a desk. Run by page_test.ts in a process of its own.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { Locator, Page } from "playwright-core";
import glossary from "../../pipeline/report/glossary.json" with { type: "json" };
import { writeSealedJson } from "../../pipeline/files.ts";
import { type MetricRow, readMetrics } from "../../pipeline/runs/metrics.ts";
import { readRunConfig } from "../../pipeline/runs/run_config.ts";
import { SPARSIFY } from "../../pipeline/settings.ts";
import { defaultsOf } from "../../pipeline/settings/resolve.ts";
import type { Explorer } from "../../serve/explorer.ts";
import { type FakeRun, fakeRun, type FakeRunOptions } from "../support/fake_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { addressOf, becomes, painted, siteTest, TOKEN, unfold, violations } from "./site.ts";

const pageTest = siteTest(
  { ask: () => Promise.reject(new Error("nothing is asked")), close() {} } as unknown as Explorer,
);

const STEPS = 40;

/** Rows of a phase, evaluated every ten steps, with as many heads as the model has. */
const rowsOf = (
  { phase = "sparse", steps = STEPS, heads = 4, fields = () => ({}) }: {
    phase?: MetricRow["phase"];
    steps?: number;
    heads?: number;
    fields?: (step: number) => Partial<MetricRow>;
  } = {},
): MetricRow[] =>
  Array.from({ length: steps }, (_, n) => {
    const step = n + 1;
    const isEvaluation = step % 10 === 0;
    const open = phase === "sparse" ? 4 / (step + 4) : 1;
    const byHead = Array.from({ length: heads }, (_, head) => head % 2 === 0 ? open / (head + 1) : 0);
    const gated = phase === "sparse" ? {} : {
      target: null,
      constraint: null,
      lambda: null,
      lambda_acting: null,
      expected_open: null,
    };
    return metricRow(step, {
      phase,
      seconds: step,
      ...gated,
      ...(isEvaluation
        ? {
          validation_ce: 1.25 + (25 - step) / 100,
          open_fraction: open,
          open_by_head: phase === "sparse" ? byHead : null,
        }
        : {}),
      ...fields(step),
    });
  });

/** A summary of a run of sparsify that chose a step, which is met where that is asked. */
const sparsified = (step: number, feasible: boolean) => ({
  dense: { ce: 1.3125 },
  control: { ce: 1.1875 },
  sparse: { ce: 1.40625, open_fraction: 0.0625, step, feasible, open_by_head: [[0, 0], [0, 0]] },
  test_tokens: 65536,
});

const PRETRAINED = { test: { ce: 2.5, open_fraction: 1, tokens: 4096 } };
/** As it was written before a run could have two models of a kind. */
const CIRCUITS = {
  task: "copy",
  dense: { able: true, performance: 0.75, n90_edges: 114, n90_heads: 9 },
  sparse: { able: true, performance: 0.5, n90_edges: 24, n90_heads: 3 },
};

async function ended(
  folder: string,
  name: string,
  { summary, state = "finished", ...options }: FakeRunOptions & {
    summary?: object;
    state?: "finished" | "stopped";
  },
): Promise<FakeRun> {
  const run = await fakeRun(folder, name, { live: false, steps: STEPS, ...options });
  if (summary) await Deno.writeTextFile(join(run.path, "summary.json"), JSON.stringify(summary));
  await run.state({ state });
  return run;
}

/** One run of each kind. */
async function everyKind(folder: string): Promise<FakeRun> {
  const both = [...rowsOf(), ...rowsOf({ phase: "control" })];
  await ended(folder, "met", { summary: sparsified(30, true), rows: both, control: true });
  await ended(folder, "missed", {
    summary: sparsified(40, false),
    rows: rowsOf({ fields: (step) => step % 10 === 0 ? { validation_ce: 1.5 } : {} }),
    settings: { lr: 0.0625 },
  });
  await ended(folder, "stopped", { state: "stopped", rows: rowsOf({ steps: 20 }) });
  await ended(folder, "pretrained", {
    command: "pretrain",
    summary: PRETRAINED,
    rows: rowsOf({ phase: "pretrain" }),
  });
  await ended(folder, "circuits", { command: "circuits", summary: CIRCUITS });
  await Deno.mkdir(join(folder, "nothing"));
  return await fakeRun(folder, "live", { steps: STEPS, rows: rowsOf({ steps: 25 }), control: true });
}

/** What stands under each name, all at one time; it is waited for. */
const facts = (parent: Locator) =>
  parent.evaluate((at) => {
    const [names, values] = ["dt", "dd"].map((tag) =>
      [...at.querySelectorAll<HTMLElement>(tag)].map(({ innerText }) => innerText)
    );
    return Object.fromEntries(names.map((name, n) => [name.replace(/\s*\?$/, ""), values[n]]));
  });

const group = (page: Page, title: string) => page.locator("section.group", { hasText: title });
const text = async (of: Locator) => (await of.innerText()).replace(/\s+/g, " ").trim();
const cells = async (page: Page, run: string) =>
  Object.fromEntries(
    await page.locator(`tr[data-run="${run}"] td.fact`).evaluateAll((facts) =>
      facts.map((fact) => [fact.getAttribute("data-name"), fact.textContent])
    ) as [string, string][],
  );
const names = (page: Page) =>
  page.locator("table.runs tbody tr").evaluateAll((rows) => rows.map((row) => row.getAttribute("data-run")));

pageTest(
  "the list says of every kind of run what it is and what it comes to",
  async ({ page, url, folder, complaints }) => {
    const live = await everyKind(folder);
    await page.goto(url);
    await page.locator("tr[data-run=met]").waitFor();
    const status = async (run: string) =>
      (await page.locator(`tr[data-run="${run}"] .status`).allInnerTexts()).map((text) =>
        text.replace(/\s/g, " ")
      );
    assertEquals(await status("met"), ["✓ finished", "✓ target met"]);
    assertEquals(await status("missed"), ["✓ finished", "✕ target missed"]);
    assertEquals(await status("stopped"), ["■ stopped"]);
    assertEquals(await status("pretrained"), ["✓ finished"]);
    assertEquals(await status("circuits"), ["✓ finished"]);
    assertEquals(await status("live"), ["▶ training"]);
    assertEquals(await status("nothing"), ["? broken"]);
    const brief = async (run: string) => {
      const { model, "validation loss": loss, "above target": above, "open edges": open } = await cells(
        page,
        run,
      );
      return [model, loss, above, open];
    };
    // The chosen step's, not the last one's.
    assertEquals(await brief("met"), ["nowhere", "1.200", "−0.050", "11.8 %"]);
    assertEquals(await brief("missed"), ["nowhere", "1.500", "+0.250", "9.1 %"]);
    // No evaluation was at the target: the last.
    assertEquals(await brief("stopped"), ["nowhere", "1.300", "+0.050", "16.7 %"]);
    assertEquals(await brief("live"), ["nowhere", "1.300", "+0.050", "16.7 %"]);
    // A dense model has no target and no gates.
    assertEquals(await brief("pretrained"), ["nowhere", "1.100", "–", "–"]);
    assertEquals(
      await text(page.locator("tr[data-run=circuits] .rest")),
      "circuit of copy: dense 114 edges or 9 heads do 90 %; sparse 24 edges or 3 heads do 90 %",
    );
    assert(await page.locator("tr[data-run=circuits] time").isVisible(), "and when it ended");
    assertEquals((await names(page)).at(-1), "nothing", "what has no time stands last");
    live.release();
    assertEquals(complaints, []);
  },
);

pageTest(
  "a finished run's page tells validation from test tokens, and the chosen step from the last",
  async (site) => {
    const { page, url, folder, complaints } = site;
    (await everyKind(folder)).release();
    await page.goto(`${url}/#/runs/met`);
    await page.locator("#charts[data-last='control:40']").waitFor();
    assertEquals(
      await text(page.locator(".result")),
      "6.3 % of the attention edges stay open at a loss of 1.4063 nats on 65,536 test tokens; dense 1.3125, " +
        "dense fine-tuned 1.1875.",
    );
    assertStringIncludes(
      await text(page.locator("p.chosen")),
      "Chosen step 30 of 40: loss 1.2000 nats on validation",
    );
    assertEquals(await facts(group(page, "Validation tokens, chosen step 30")), {
      "loss": "1.2000",
      "target τ": "1.2500",
      "above target": "−0.050",
      "open edges": "11.8 %",
    });
    assertEquals(await facts(group(page, "Test tokens, 65,536")), {
      "loss": "1.4063",
      "dense loss": "1.3125",
      "dense control": "1.1875",
      "open edges": "6.3 %",
    });
    assertEquals(await page.getByText("target met").count(), 1);
    assertEquals(await text(page.locator("#connection")), "", "a run that is over is not live");
    // The table under the charts has every evaluation.
    await unfold(page.locator("details.evaluations"));
    const rows = await page.locator(".evaluations tbody tr").allInnerTexts();
    assertEquals(rows.length, 8);
    assertEquals(rows[2].split(/\t/), [
      "sparse",
      "30",
      "30,720",
      "1.5000",
      "1.2000",
      "1.2500",
      "3.00",
      "11.8 %",
    ]);
    const spoken = await page.locator(".chart[data-chart=loss] [role=img]").getAttribute("aria-label");
    assertStringIncludes(spoken!, "validation: 1.4 at step 10, 1.1 at step 40.");
    assertEquals(complaints, []);
  },
);

pageTest(
  "a run that missed its target, one of circuits and one of pre-training say so, and nothing else",
  async (site) => {
    const { page, url, folder, complaints } = site;
    (await everyKind(folder)).release();
    await page.goto(`${url}/#/runs/missed`);
    await page.getByText("target missed").waitFor();
    assertStringIncludes(
      await text(page.locator("p.chosen")),
      "No evaluation was at or below the target. Last step, 40 of 40: loss 1.5000 nats on validation tokens",
    );
    assertEquals(await facts(group(page, "Validation tokens, step 40")), {
      "loss": "1.5000",
      "target τ": "1.2500",
      "above target": "+0.250",
      "open edges": "9.1 %",
    });
    assertEquals((await facts(group(page, "Test tokens, 65,536")))["loss"], "1.4063");
    await page.goto(`${url}/#/runs/circuits`);
    await page.getByText("The circuit of copy").waitFor();
    assertEquals(
      await page.locator("table.figures tbody tr").allInnerTexts(),
      ["dense\t75.0 %\t114\t9", "sparse\t50.0 %\t24\t3"],
    );
    for (
      const other of [
        "attention edges",
        "target m",
        "No step was done",
        "Attention on a prompt",
        "Test tokens",
      ]
    ) {
      assertEquals(await page.locator("main").getByText(other).count(), 0, other);
    }
    await page.goto(`${url}/#/runs/pretrained`);
    await page.locator("#charts[data-last='pretrain:40']").waitFor();
    assertEquals(
      await text(page.locator(".result")),
      "The new model reaches a loss of 2.5000 nats on 4,096 test tokens.",
    );
    const legends = (await page.locator(".u-legend").allInnerTexts()).join(" ");
    assert(legends.includes("pre-training") && !/sparse|expected|λ/.test(legends), legends);
    assertEquals(await facts(group(page, "Validation tokens, step 40")), { loss: "1.1000" });
    assertEquals(complaints, []);
  },
);

pageTest(
  "a run that was stopped says how far it came, and one that failed or was interrupted why",
  async (site) => {
    const { page, url, folder, complaints } = site;
    (await everyKind(folder)).release();
    const failed = await fakeRun(folder, "failed", { live: false, steps: STEPS, rows: rowsOf({ steps: 5 }) });
    await failed.state({ state: "failed", error: "Cannot go on as the disk is full" });
    await fakeRun(folder, "interrupted", { live: false, steps: STEPS, rows: rowsOf({ steps: 15 }) });
    const state = page.locator(".state");
    await page.goto(`${url}/#/runs/stopped`);
    await page.locator("#charts[data-last='sparse:20']").waitFor();
    assertStringIncludes(await text(state), "■ stopped sparse 20 of 40");
    assertEquals(
      await state.locator("progress").evaluateAll((bars) =>
        bars.map((bar) => ["value", "max"].map((name) => Number(bar.getAttribute(name))))
      ),
      [[20, 40]],
    );
    assertEquals(
      await text(page.locator("p.chosen")),
      "No evaluation is at or below the target yet. Step 20 of 40: loss 1.3000 nats on validation tokens, target τ " +
        "1.2500, 16.7 % of the edges open.",
    );
    assertEquals(await facts(group(page, "Validation tokens, step 20")), {
      "loss": "1.3000",
      "target τ": "1.2500",
      "above target": "+0.050",
      "open edges": "16.7 %",
    });
    assertEquals(await page.locator("section.group").count(), 1, "nothing was measured on test tokens");
    assertEquals(await page.locator("p.result").count(), 0);
    assertEquals(await page.getByRole("button", { name: "Pause" }).count(), 0, "there is nothing to pause");
    assertEquals(await text(page.locator("#connection")), "");
    await unfold(page.locator("details.evaluations"));
    assertEquals(await page.locator(".evaluations tbody tr").count(), 2);
    await page.getByText("A finished run writes its report here").waitFor();

    await page.goto(`${url}/#/runs/failed`);
    await page.locator("#charts[data-last='sparse:5']").waitFor();
    assertStringIncludes(await text(state), "failed Cannot go on as the disk is full sparse 5 of 40");
    assertEquals(await page.locator("p.chosen").count(), 0, "nothing was evaluated");
    await page.goto(`${url}/#/runs/interrupted`);
    await page.locator("#charts[data-last='sparse:15']").waitFor();
    assertStringIncludes(await text(state), "interrupted sparse 15 of 40");
    assertStringIncludes(await text(page.locator("p.chosen")), "Step 10 of 40: loss 1.4000 nats");
    assertEquals(complaints, []);
  },
);

pageTest("a resumed run's speed begins anew, and its page says what was changed as it was", async (site) => {
  const { page, url, folder, complaints } = site;
  // The second process takes half a second a step, and counts its time from 0.
  const rows = rowsOf({ fields: (step) => ({ seconds: step <= 25 ? step : (step - 25) / 2 }) });
  const run = await ended(folder, "resumed", { rows, summary: sparsified(30, true) });
  const path = join(run.path, "config.json");
  const changes = [{ setting: "slack", phase: "sparse", step: 25, before: 0.1, now: 0.05 }];
  await writeSealedJson(path, { ...await readRunConfig(path), changes });
  await page.goto(`${url}/#/runs/resumed`);
  await page.locator("#charts[data-last='sparse:40']").waitFor();
  assertEquals(await page.locator("#charts").getAttribute("data-rows"), "40");
  assertEquals(
    await page.locator(".chart[data-chart=speed] [role=img]").getAttribute("aria-label"),
    "Training tokens per second. sparse: 1,020 at step 3, 2,050 at step 40.",
  );
  const happened = page.locator("h2", { hasText: "What happened on the way" }).locator("+ ul li");
  assertEquals(await happened.allInnerTexts(), [
    "sparse: slack 0.05 in place of 0.1 from step 26 on, as it was resumed",
  ]);
  await page.goto(`${url}/#/compare?runs=resumed&x=time`);
  await page.locator("#charts[data-axis=time]").waitFor();
  // 25 seconds, and then seven and a half.
  assertStringIncludes(
    (await page.locator(".chart[data-chart=loss] [role=img]").getAttribute("aria-label"))!,
    "1.1 at minutes 0.542.",
  );
  assertEquals(complaints, []);
});

pageTest("circuits of a model that cannot do the task, and of one of which none is enough", async (site) => {
  const { page, url, folder, complaints } = site;
  const of = (able: boolean, n90_edges: number | null) => ({
    able,
    performance: 0.5,
    n90_edges,
    n90_heads: n90_edges,
  });
  await ended(folder, "unable", {
    command: "circuits",
    summary: {
      task: "copy",
      models: [{ name: "dense", ...of(false, null) }, { name: "sparse", ...of(true, null) }],
    },
  });
  await ended(folder, "alone", {
    command: "circuits",
    summary: { task: "ioi", models: [{ name: "dense", ...of(true, 7) }] },
  });
  await page.goto(`${url}/#/runs/unable`);
  await page.getByText("The circuit of copy").waitFor();
  assertEquals(await page.locator("table.figures tbody tr").allInnerTexts(), [
    "dense\t50.0 %\t–\t–",
    "sparse\t50.0 %\tmore than all its\tmore than all its",
  ]);
  await page.getByText("A model without sizes cannot do the task.").waitFor();
  await page.goto(`${url}/#/runs/alone`);
  await page.getByText("The circuit of ioi").waitFor();
  assertEquals(await page.locator("table.figures tbody tr").allInnerTexts(), ["dense\t50.0 %\t7\t7"]);
  assertEquals(await page.getByText("A model without sizes").count(), 0);
  assertEquals(complaints, []);
});

pageTest("settings, reports and checkpoints are those of the run's folder", async (site) => {
  const { page, url, folder, complaints } = site;
  const settings = { seed: 7, data: ["one.txt", "two.txt"], lr: 0.0625 };
  const run = await ended(folder, "r", { rows: rowsOf(), summary: sparsified(30, true), settings });
  await Deno.writeTextFile(join(run.path, "report.html"), "x".repeat(2345));
  await Deno.mkdir(join(run.path, "checkpoints"), { recursive: true });
  await Deno.writeTextFile(join(run.path, "checkpoints", "sparse-00000010.safetensors"), "torn");
  await page.goto(`${url}/#/runs/r`);
  const items = page.locator("h2", { hasText: "Reports and checkpoints" }).locator("~ ul li");
  await items.first().waitFor();
  assertEquals((await items.allInnerTexts()).map((item) => item.replace(/\s+/g, " ").trim()), [
    "report.html 2.35 KB",
    "sparse-00000010.safetensors: half-written or damaged",
  ]);
  await page.getByText("Settings", { exact: true }).click();
  const rows = Object.fromEntries(
    (await page.locator("table.settings tr").allInnerTexts()).map((row) => row.split(/\t/)),
  );
  const config = await readRunConfig(join(run.path, "config.json"));
  assertEquals(Object.keys(rows).length, 1 + Object.keys(config.settings).length);
  assertEquals([rows.adapter, rows.seed, rows.data, rows.lr], ["a test", "7", "one.txt, two.txt", "0.0625"]);
  assertEquals(complaints, []);
});

pageTest(
  "a slack and a setting that were changed are on the run's page; live is what goes on",
  async (site) => {
    const { page, url, folder, complaints } = site;
    const live = await everyKind(folder);
    const { id } = await readRunConfig(join(live.path, "config.json"));
    await writeSealedJson(join(live.path, "slack.json"), {
      run: id,
      changes: [{ phase: "sparse", step: 7, slack: -0.03125 }],
    });
    const path = join(live.path, "config.json");
    const config = await readRunConfig(path);
    const changes = [{ setting: "lr", phase: "sparse", step: 9, before: 0.5, now: 0.25 }];
    await writeSealedJson(path, { ...config, changes });
    await page.goto(`${url}/#/runs/live`);
    await page.getByText("● live").waitFor();
    const happened = page.locator("h2", { hasText: "What happened on the way" }).locator("+ ul li");
    assertEquals(await happened.allInnerTexts(), [
      "sparse: slack set to -0.0313 nats from step 8 on",
      "sparse: lr 0.25 in place of 0.5 from step 10 on, as it was resumed",
    ]);
    assertEquals(await facts(group(page, "sparse, step 25")), {
      "training loss": "1.500",
      "λ in the loss": "3.0",
      "expected open edges": "12.5 %",
      "tokens/s": "1,024",
      "time left": "55 s",
    });
    // The control begins, which has no target: what is above it is still told.
    await live.append(rowsOf({ steps: 30 }).slice(25));
    await live.append(rowsOf({ phase: "control", steps: 2 }));
    await page.locator("#charts[data-last='control:2']").waitFor();
    // What the run is doing is told behind its rows.
    await becomes(
      async () => (await facts(group(page, "Validation tokens, step 30")))["above target"],
      "−0.050",
    );
    const ofControl = await facts(group(page, "dense control, step 2"));
    assertEquals([ofControl["training loss"], ofControl["λ in the loss"], ofControl["expected open edges"]], [
      "1.500",
      undefined,
      undefined,
    ]);
    live.release();
    await page.getByText("interrupted").waitFor();
    await page.waitForFunction(`document.getElementById("connection").textContent === ""`);
    assertEquals(complaints, []);
  },
);

pageTest(
  "of many runs the first 200 are shown, the others when asked for, and filters go over all",
  async (site) => {
    const { page, url, folder, complaints } = site;
    const first = await ended(folder, "r000", { state: "stopped", rows: rowsOf({ steps: 10 }) });
    const files = (await Array.fromAsync(Deno.readDir(first.path))).filter(({ isFile }) => isFile);
    for (let n = 1; n < 210; n++) {
      const path = join(folder, `r${String(n).padStart(3, "0")}`);
      await Deno.mkdir(path);
      await Promise.all(files.map(({ name }) => Deno.copyFile(join(first.path, name), join(path, name))));
    }
    await page.goto(`${url}/#/?sort=name:up`);
    await page.getByText("210 of 210").waitFor();
    assertEquals([(await names(page)).length, (await names(page))[199]], [200, "r199"]);
    await page.getByLabel("Filter runs by text").fill("r20");
    await page.getByText("10 of 210").waitFor();
    assertEquals((await names(page)).length, 10);
    await page.getByLabel("Filter runs by text").fill("");
    await page.getByRole("button", { name: "Show the other 10" }).click();
    assertEquals((await names(page)).length, 210);
    assertEquals(await page.getByRole("button", { name: "Show the other" }).count(), 0);
    assertEquals(complaints, []);
  },
);

pageTest("the list is sorted and filtered by keyboard, and the address says how", async (site) => {
  const { page, url, folder, complaints } = site;
  (await everyKind(folder)).release();
  await page.goto(url);
  await page.locator("tr[data-run=met]").waitFor();
  await page.getByRole("button", { name: "validation loss", exact: true }).focus();
  await page.keyboard.press("Enter");
  const losses = async () => {
    const shown = [];
    for (const name of await names(page)) shown.push((await cells(page, name!))["validation loss"]);
    return shown.filter((loss) => loss !== undefined);
  };
  assertEquals(await losses(), ["1.100", "1.200", "1.300", "1.300", "1.500"]);
  await page.keyboard.press("Enter");
  assertEquals(await losses(), ["1.500", "1.300", "1.300", "1.200", "1.100"]);
  assertEquals(await page.locator("th[aria-sort]").getAttribute("aria-sort"), "descending");
  await page.getByLabel("Filter runs by status").selectOption("target met");
  assertEquals(await names(page), ["met"]);
  await page.getByLabel("Filter runs by status").selectOption("all runs");
  await page.getByLabel("Filter runs by text").fill("lr=0.0625 miss");
  assertEquals(await names(page), ["missed"]);
  const address = await addressOf(page);
  await page.goto("about:blank");
  await page.goto(address);
  await page.locator("tr[data-run=missed]").waitFor();
  assertEquals(await names(page), ["missed"]);
  assertEquals(await page.getByLabel("Filter runs by text").inputValue(), "lr=0.0625 miss");
  await page.getByLabel("Filter runs by text").fill("");
  assertEquals((await losses())[0], "1.500", "the order is kept");
  assertEquals(complaints, []);
});

pageTest("runs that are ticked are compared under an address that another person can open", async (site) => {
  const { page, another, url, folder, complaints } = site;
  const live = await everyKind(folder);
  await ended(folder, "again", { summary: sparsified(30, true), rows: rowsOf(), settings: { lr: 0.03125 } });
  await page.goto(url);
  await page.locator("tr[data-run=met]").waitFor();
  for (const run of ["met", "missed", "stopped", "pretrained", "live", "again"]) {
    await page.getByLabel(`Compare ${run}`).focus();
    await page.keyboard.press("Space");
  }
  assert(await page.getByLabel("Compare circuits").isDisabled());
  await page.getByRole("link", { name: "Compare 6 runs" }).click();
  await page.getByRole("heading", { name: "6 runs compared" }).waitFor();
  await page.getByLabel("against").selectOption("tokens");
  const address = await addressOf(page);
  assertStringIncludes(address, "#/compare?runs=met,missed,stopped,pretrained,live,again&x=tokens");
  const theirs = await another();
  const asked: string[] = [];
  theirs.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await theirs.goto(address);
  await theirs.locator("#charts[data-axis=tokens]").waitFor();
  const spoken = await theirs.locator(".chart[data-chart=loss] [role=img]").getAttribute("aria-label");
  for (
    const line of [
      "met: 1.4 at training tokens 10,200, 1.1 at training tokens 41,000.",
      "missed: 1.5 at training tokens 10,200, 1.5 at training tokens 41,000.",
      "stopped: 1.4 at training tokens 10,200, 1.3 at training tokens 20,500.",
      "live: 1.4 at training tokens 10,200, 1.3 at training tokens 20,500.",
    ]
  ) assertStringIncludes(spoken!, line);
  const row = async (table: string, name: string) =>
    (await theirs.getByRole("region", { name: table, exact: true }).getByRole("row", { name, exact: false })
      .first().locator("td").allInnerTexts()).map((cell) => cell.replace(/\s+/g, " ").trim());
  assertEquals(await row("What they come to", "chosen, or last"), ["30", "40", "20", "40", "20", "30"]);
  assertEquals(await row("What they come to", "above target"), [
    "−0.050",
    "+0.250",
    "+0.050",
    "–",
    "+0.050",
    "−0.050",
  ]);
  assertEquals(await row("What they come to", "open edges, test"), [
    "6.3 %",
    "6.3 %",
    "–",
    "100.0 %",
    "–",
    "6.3 %",
  ]);
  const lr = String(defaultsOf(SPARSIFY).lr);
  assertEquals(await row("Settings that differ", "lr"), [lr, "0.0625", lr, lr, lr, "0.03125"]);
  assertEquals(await row("Settings that differ", "control"), ["yes", "no", "no", "no", "yes", "no"]);
  const differing = theirs.getByRole("region", { name: "Settings that differ" }).locator("tbody th");
  assertEquals((await differing.allInnerTexts()).sort(), ["control", "lr"]);
  // Heads at the chosen step, as its row has them.
  const of = (await readMetrics(join(folder, "met", "metrics.arrows"))).find(({ step }) => step === 30)!;
  const shown = await theirs.locator("figure[data-run=met] tbody td").allInnerTexts();
  assertEquals(
    shown,
    of.open_by_head!.map((share) =>
      share === 0 ? "0" : ((100 * share).toPrecision(3))
        .replace(/^(\d\.\d)\d$/, "$1")
    ),
  );
  assertEquals(
    await theirs.locator("figure[data-run=pretrained]").count(),
    0,
    "a dense model has no gates",
  );
  // What goes on is followed.
  await live.append(rowsOf({ steps: 30 }).slice(25));
  await theirs.locator("figure[data-run=live] figcaption", { hasText: "step 30" }).waitFor();
  const times = (run: string) => asked.filter((path) => path === `/api/runs/${run}/metrics`).length;
  assert(times("live") > 1, "its rows are asked for again");
  for (const run of ["met", "missed", "stopped", "pretrained", "again"]) {
    assertEquals(times(run), 1, `${run} is over`);
  }
  await theirs.goto(`${url}/#/compare?runs=met,none`);
  await theirs.getByText("There is no such run: none").waitFor();
  live.release();
  assertEquals(complaints, []);
});

/** Whether anything on the page is wider than the window, beside what scrolls by itself. */
const isTooWide = (page: Page) => page.evaluate("document.documentElement.scrollWidth > innerWidth");

pageTest("at 375, 1280 and 1920 px nothing is clipped, with long names and 48 × 32 heads", async (site) => {
  const { page, url, folder, complaints } = site;
  const live = await everyKind(folder);
  const long = "english-with-a-long-name-of-a-sweep-of-many-settings-seed-12345";
  await ended(folder, long, {
    rows: rowsOf({ heads: 48 * 32 }),
    summary: sparsified(30, true),
    layers: 48,
    heads: 32,
    settings: {
      model: "/home/somebody/models/HuggingFaceTB/a-model-with-quite-a-long-name-135M",
      lr: 0.000123,
      slack: 0.0123,
      seed: 123456,
      batch: 64,
    },
  });
  for (const width of [375, 1280, 1920]) {
    await page.setViewportSize({ width, height: 900 });
    await page.goto("about:blank");
    await page.goto(url);
    await page.locator(`tr[data-run="${long}"]`).waitFor();
    assertEquals(await isTooWide(page), false, `the list at ${width}`);
    const scrolls = await page.locator("div.scroll").evaluate((at) => at.scrollWidth > at.clientWidth);
    assertEquals(scrolls, false, `the list's table at ${width}`);
    const link = page.locator(`tr[data-run="${long}"] a`);
    const name = await link.innerText();
    assert(name.startsWith("english") && name.endsWith("12345") && name.length <= 28, name);
    assertEquals(await link.getAttribute("title"), long);
    const columns = await page.locator("table.runs thead th").allInnerTexts();
    if (width === 1920) assert(columns.some((column) => /^lr/.test(column)), columns.join());
    for (const run of [long, "met", "missed", "circuits", "pretrained", "live"]) {
      await page.goto(`${url}/#/runs/${run}`);
      await page.getByRole("heading", { name: run, exact: true }).waitFor();
      await painted(page);
      assertEquals(await isTooWide(page), false, `${run} at ${width}`);
    }
    await page.goto(`${url}/#/compare?runs=met,missed,${long},live`);
    await page.getByText("4 runs compared").waitFor();
    await painted(page);
    assertEquals(await isTooWide(page), false, `compared at ${width}`);
    await page.goto(`${url}/#/runs/${long}`);
    await page.locator("#heads .heads").waitFor();
    assertEquals(await page.locator(".heads tbody td").count(), 48 * 32);
    const map = page.locator("#heads div.scroll.compact");
    await map.waitFor();
    const [mapWidth, room] = await map.evaluate((at) => [at.scrollWidth, at.clientWidth]);
    assert(mapWidth <= room, `the map takes ${mapWidth} px at ${width}, where it has ${room}`);
    // Its head is told by pointer and by arrow keys.
    await map.focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("ArrowRight");
    const open = 4 / 44 / (32 + 2 + 1);
    assertEquals(
      await text(page.locator("#heads .told")),
      `layer 1, head 2: ${(100 * open).toPrecision(2)} %`,
    );
  }
  live.release();
  assertEquals(complaints, []);
});

/** What can be used, and empty cells, without a border of the colour that palette_test.ts holds against what is behind. */
const WITHOUT_EDGE = `(() => {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = "var(--edge)";
  const edge = getComputedStyle(probe).color;
  probe.remove();
  const can = "button:not(.sort), input:not([type=checkbox], [type=range]), select";
  return [...document.querySelectorAll("main :is(" + can + ", td.h0)")].filter((at) => {
    const { borderTopColor, boxShadow } = getComputedStyle(at);
    return ![borderTopColor, boxShadow].some((colour) => colour.includes(edge));
  }).map(({ outerHTML }) => outerHTML);
})()`;

for (const colorScheme of ["light", "dark"] as const) {
  pageTest(`axe finds nothing on any page, ${colorScheme}`, async ({ page, url, folder, complaints }) => {
    const live = await everyKind(folder);
    await page.emulateMedia({ colorScheme });
    for (
      const [address, shown] of [
        ["#/", "tr[data-run=met]"],
        ...["met", "missed", "circuits", "pretrained", "live", "nothing"]
          .map((run) => [`#/runs/${run}`, "h1"]),
        ["#/compare?runs=met,missed,live", ".compared"],
      ]
    ) {
      await page.goto("about:blank");
      await page.goto(`${url}/${address}`);
      await page.locator(shown).first().waitFor();
      const marks = await page.locator("[popovertarget]").evaluateAll((marks) =>
        marks.map((mark) => mark.getAttribute("popovertarget"))
      );
      await page.locator(`#word-${glossary[0].id}`).waitFor({ state: "attached" });
      for (const mark of marks) {
        assertEquals(await page.locator(`#${mark}`).count(), 1, `${address}: ${mark}`);
      }
      assertEquals(await violations(page), [], address);
      assertEquals(await page.evaluate(WITHOUT_EDGE), [], `${address}: what can be used has its border`);
    }
    // With everything unfolded.
    await page.goto(`${url}/#/runs/met`);
    await page.locator("#charts[data-last='control:40']").waitFor();
    await unfold(page.locator("details.evaluations"));
    await page.getByText("Settings", { exact: true }).click();
    await page.getByRole("button", { name: "What is target τ?" }).click();
    assertEquals(await violations(page), []);
    live.release();
    assertEquals(complaints, []);
  });
}

pageTest("a word is told where it stands, by keyboard too, as the glossary has it", async (site) => {
  const { page, url, folder } = site;
  (await everyKind(folder)).release();
  await page.goto(`${url}/#/runs/met`);
  const { term, text: meaning } = glossary.find(({ id }) => id === "tau")!;
  const told = page.locator("#word-tau");
  await page.getByRole("button", { name: "What is target τ?" }).focus();
  assertEquals(await told.isVisible(), false);
  await page.keyboard.press("Enter");
  await told.waitFor();
  assertEquals(await told.locator("strong").innerText(), term);
  assertEquals(await told.locator("p").innerText(), meaning);
  await page.keyboard.press("Escape");
  await told.waitFor({ state: "hidden" });
});

pageTest("a token that is refused is said to be so, and another can be given in its place", async (site) => {
  const { page, url, folder, stop, start } = site;
  const run = await fakeRun(folder, "r", { rows: rowsOf({ steps: 3 }) });
  await page.goto(`${url}/#token=a-wrong-token-altogether`);
  await page.locator("tr[data-run=r] a").click();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByText("The server refused this token").waitFor();
  await page.getByRole("textbox", { name: "Token" }).fill(TOKEN);
  await page.getByRole("button", { name: "Go on" }).click();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("button", { name: "Go on" }).waitFor();
  // After a page was opened by keyboard there is no frame around it.
  await page.getByRole("link", { name: "Runs", exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.locator("tr[data-run=r]").waitFor();
  assertEquals(await page.evaluate("document.activeElement.id"), "view");
  assertEquals(await page.evaluate("getComputedStyle(document.activeElement).outlineStyle"), "none");
  await stop();
  await start();
  run.release();
});
