import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { circuitSizes } from "../../../pipeline/studies/circuit_sizes.ts";
import { studyHtml, studyMarkdown } from "../../../pipeline/studies/document.ts";
import {
  bySeed,
  differs,
  estimateText,
  pairedDifference,
  pairedRatio,
} from "../../../pipeline/studies/paired.ts";
import {
  type Arm,
  armRuns,
  FROM_SCRATCH,
  fromScratchResult,
} from "../../../pipeline/studies/from_scratch.ts";
import { LONG_RANGE } from "../../../pipeline/studies/long_range.ts";
import {
  type PolicyArm,
  type PolicyRun,
  REINFORCEMENT,
  reinforcementResult,
} from "../../../pipeline/studies/reinforcement.ts";
import { SENSITIVITY, sensitivityResult } from "../../../pipeline/studies/sensitivity.ts";
import { PROJECT } from "../../../pipeline/files.ts";
import { openMetrics } from "../../../pipeline/runs/metrics.ts";
import { readRunConfig, writeRunConfig } from "../../../pipeline/runs/run_config.ts";
import { PRETRAIN } from "../../../pipeline/settings.ts";
import { STUDIES } from "../../../pipeline/studies/studies.ts";
import type { PartResult, StudyTools } from "../../../pipeline/studies/study.ts";
import type { SweepRow } from "../../../pipeline/sweep/results.ts";
import { type SweepRun, sweepRun } from "../../../pipeline/sweep/sweep_file.ts";
import type { PretrainSummary } from "../../../pipeline/training/pretrain.ts";
import type { SparsifySummary } from "../../../pipeline/training/sparsify.ts";
import { fakeRun } from "../../support/fake_run.ts";
import { metricRow } from "../../support/metric_row.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

Deno.test("a study reads the sizes of a circuit from its summary, also from one of before there was a list of models", () => {
  const model = { name: "sparse", n90_edges: 47, n90_heads: 4 };
  assertEquals(circuitSizes({ task: "addition", models: [model], ratio: null }), { edges: 47, heads: 4 });
  for (const found of [{ dense: null, sparse: model }, { dense: model, sparse: null }]) {
    assertEquals(circuitSizes(found), { edges: 47, heads: 4 });
  }
  const unable = { models: [{ n90_edges: null, n90_heads: null }] };
  assertEquals(circuitSizes(unable), { edges: null, heads: null });
});

/** A run that ended with these, or one that did not. */
function row(
  varied: Record<string, unknown>,
  seed: number,
  result?: { open: number; loss: number; feasible?: boolean },
): SweepRow {
  return {
    run: sweepRun({ varied, seed }),
    status: result ? "finished" : "not begun",
    error: null,
    summary: result
      ? {
        dense: { ce: 2 },
        control: null,
        sparse: { ce: result.loss, open_fraction: result.open, feasible: result.feasible ?? true },
        adapter: "a device",
      } as SparsifySummary
      : null,
  };
}

Deno.test("settings are set beside each other by seed, with Student's interval, and seeds that one lacks are left out", () => {
  const values = new Map([[1, 4], [2, 9], [3, 100]]);
  const others = new Map([[2, 3], [1, 2]]);
  const difference = pairedDifference(values, others)!;
  // 2 and 6: mean 4, s = √8, half an interval 12.706 √(8/2).
  assertEquals([difference.mean, difference.seeds], [4, 2]);
  assert(Math.abs(difference.high! - (4 + 12.706 * 2)) < 1e-9);
  const ratio = pairedRatio(values, others)!;
  // The geometric mean of 2 and 3.
  assert(Math.abs(ratio.mean - Math.sqrt(6)) < 1e-12);
  assert(Math.abs(ratio.low! * ratio.high! - 6) < 1e-9, "the interval is even on the logarithms");
  assertEquals(pairedRatio(new Map([[1, 0]]), others), null);
  assertEquals(pairedDifference(new Map(), others), null);
  assertEquals(pairedDifference(new Map([[1, 5]]), others), { mean: 3, low: null, high: null, seeds: 1 });
  assertEquals(differs({ mean: 2, low: 1.1, high: 3, seeds: 3 }, 1), true);
  assertEquals(differs({ mean: 2, low: 0.9, high: 3, seeds: 3 }, 1), false);
  assertEquals(differs({ mean: 2, low: null, high: null, seeds: 1 }, 1), false);
  assertEquals(estimateText(null, String), "–");
  const open = bySeed(
    [row({}, 1, { open: 0.5, loss: 2 }), row({}, 2)],
    (of: SparsifySummary) => of.sparse.open_fraction,
  );
  assertEquals([...open], [[1, 0.5]]);
});

const DESIGN = { title: "A model", recommended: { lr: 1e-3 } };
const SEEDS = [1, 2, 3];
const ROWS = [
  ...SEEDS.map((seed) => row({}, seed, { open: 0.02 + 0.001 * seed, loss: 2.01 })),
  // Half as many edges, always.
  ...SEEDS.map((seed) => row({ lr: 2e-3 }, seed, { open: 0.01 + 0.0005 * seed, loss: 2.02 })),
  // Fewer still, but beyond the target.
  ...SEEDS.map((seed) => row({ slack: 0 }, seed, { open: 0.001, loss: 2.5, feasible: seed > 1 })),
  ...SEEDS.map((seed) => row({ temperature: 2 }, seed)),
  // Within the target as far as they have ended.
  ...SEEDS.map((seed) =>
    row({ distill: 1 }, seed, seed > 1 ? { open: 0.001 * seed, loss: 2.01 } : undefined)
  ),
];

Deno.test("sensitivity tells what changes open edges, and not what missed its target as better", () => {
  const { done, of, findings, tables, forests, pages } = sensitivityResult(DESIGN, ROWS, "model");
  assertEquals([done, of], [11, 15]);
  assertEquals(findings, [
    "With the recommended settings 2.20 % of the edges stay open (3 seeds), and 3 of 3 runs meet their target.",
    "Of 1 other settings whose runs all met their target these have an interval that excludes ×1: " +
    "lr 0.002 ×0.50 (×0.50 to ×0.50).",
    "The target was missed with slack 0 (1 of 3).",
  ]);
  const [table] = tables;
  assertEquals(table.rows[1], [
    "lr 0.002",
    "1.10 % ± 0.12",
    "×0.50 (×0.50 to ×0.50)",
    "+0.0200",
    "+0.0100 (+0.0100 to +0.0100)",
    "3 of 3",
  ]);
  assertEquals(table.rows[3], ["temperature 2", "–", "–", "–", "–", "0 of 0"]);
  assertEquals(table.rows[4].at(-1), "2 of 2");
  assertEquals(forests[0].rows.map(({ mean }) => mean === null), [false, false, true, false]);
  const none = sensitivityResult(DESIGN, [row({}, 1), row({ lr: 1 }, 1)], "model");
  assertEquals(none.findings, ["No run with the recommended settings has ended."]);
  assertEquals([pages.length, none.pages.length], [1, 0], "a page that was not made is not linked");
});

const PART: PartResult = {
  ...sensitivityResult(DESIGN, ROWS, "model"),
  title: "A <model>",
};

Deno.test("a study's document says what was asked, how far it has been run, and what came of it, as text and as a page", () => {
  const data = {
    study: SENSITIVITY,
    quick: false,
    parts: [PART],
    command: "deno task study sensitivity",
    day: "2026-11-26",
  };
  const text = studyMarkdown(data);
  for (
    const part of [
      "# Sensitivity to settings\n",
      `- ${SENSITIVITY.protocol[0]}\n`,
      "11 of 15 runs have ended. Written on 2026-11-26 by `deno task study sensitivity`, run on a device.",
      "| setting | open edges | beside recommended |",
      "| slack 0 | 0.10 % ± 0.00 |",
    ]
  ) assertStringIncludes(text, part);
  const page = studyHtml(data);
  for (
    const part of [
      "<h2>A &lt;model&gt;</h2>",
      '<a href="model/sweep.html">',
      '<th scope="row">slack 0</th>',
      "not measured</text>",
      "11 of 15 runs have ended.",
    ]
  ) assertStringIncludes(page, part);
  assert(!page.includes(' style="'), "the server lets one style block through");
  assertStringIncludes(studyMarkdown({ ...data, quick: true }), "its figures say nothing of the method");
  const circuits = { ...PART, circuits: { done: 2, of: 3 } };
  assertStringIncludes(
    studyMarkdown({ ...data, parts: [circuits, circuits] }),
    "22 of 30 runs have ended. 4 of 6 circuits of theirs have been looked for. Written on",
  );
});

Deno.test("the protocol of every study stands in docs/studies as it is followed", async () => {
  for (const [name, { title, question, protocol }] of STUDIES) {
    const text = await Deno.readTextFile(new URL(`../../../docs/studies/${name}.md`, import.meta.url));
    for (const part of [`# ${title}\n\n${question}\n`, ...protocol.map((sentence) => `- ${sentence}\n`)]) {
      assertStringIncludes(text, part);
    }
    assertStringIncludes(text, "## What has been run\n");
  }
});

Deno.test("every study has a question, a protocol, a part that is quick, and names that tell its parts apart", () => {
  for (const [name, study] of STUDIES) {
    assertEquals(study.name, name);
    assert(study.question.endsWith("?"), study.question);
    assert(study.protocol.length > 2);
    const names = study.parts.map((part) => part.name);
    assertEquals(new Set(names).size, names.length);
    assert(study.parts.some(({ inQuick }) => inQuick), `${name} has a quick part`);
  }
});

/** A pre-training run that ended with these. */
function pretrained(
  seed: number,
  { open, loss, feasible }: { open: number; loss: number; feasible?: boolean },
): SweepRow {
  return {
    run: sweepRun({ varied: {}, seed, command: "pretrain" }),
    status: "finished",
    error: null,
    summary: {
      test: { ce: loss, open_fraction: open, exact_rows: 1 },
      validation: { ce: loss },
      adapter: "a device",
      ...(feasible === undefined ? {} : { constraint: { step: 9, feasible, target_loss: loss } }),
    } as Partial<PretrainSummary> as unknown as SparsifySummary,
  };
}

/** Three seeds of an arm; of the second circuits there are twice as many edges, of the third three times. */
function arm(
  share: number | undefined,
  of: { open: number; loss: number; edges: number; missed?: number },
): Arm {
  return {
    share,
    runs: SEEDS.map((seed) => ({
      row: pretrained(seed, {
        // What missed its target has next to none, for which it is not praised.
        open: seed === of.missed ? 1e-5 : seed * of.open,
        loss: of.loss,
        ...(share === undefined ? {} : { feasible: seed !== of.missed }),
      }),
      tokensToTarget: share === undefined ? null : 1e6,
      circuit: { edges: seed * of.edges, heads: 2 },
    })),
  };
}

Deno.test("arms are set beside post-training by seed, where the target was met", () => {
  const dense = arm(undefined, { open: 1, loss: 1, edges: 100 });
  const arms = [
    arm(0, { open: 0.01, loss: 1.2, edges: 10, missed: 2 }),
    arm(1, { open: 0.02, loss: 1.01, edges: 40 }),
  ];
  const { findings, tables, forests, adapters } = fromScratchResult({ title: "", exact: true }, dense, arms);
  assertEquals(findings, [
    "In open edges, where both met their target, these have an interval that excludes ×1 beside post-training: after " +
    "0 % ×0.50 (×0.50 to ×0.50).",
    "In edges of the circuit these have an interval that excludes ×1 beside post-training: after 0 % ×0.25 (×0.25 to " +
    "×0.25).",
    "The dense model’s circuit has ×2.50 (×2.50 to ×2.50) the edges of that after post-training.",
  ]);
  const [byTokens, byLoss] = tables;
  assertEquals(
    byTokens.rows[1].slice(3),
    [
      "1.2000 ± 0.0000",
      "+0.2000 (+0.2000 to +0.2000)",
      "100.0 % ± 0.00",
      "2 of 3",
      "1.00 ± 0.00",
    ],
  );
  assertEquals(byTokens.rows[2][0], "100 % (post-training)");
  // Seeds 1 and 3 alone: 10 and 30 edges.
  assertEquals(byLoss.rows[1].slice(0, 2), ["0 %", "2"]);
  assert(byLoss.rows[1][2].startsWith("20.0 ± "));
  assertEquals(byLoss.rows[1][3], "×0.25 (×0.25 to ×0.25)");
  assertEquals(forests[1].rows.map(({ label }) => label), ["after 0 %"]);
  assertEquals(adapters, ["a device"]);
});

Deno.test("an arm is held to the loss that the dense run of its seed ended with, from its share of the steps on", () => {
  const dense = [pretrained(1, { open: 1, loss: 1.5 }), {
    ...pretrained(2, { open: 1, loss: 2 }),
    summary: null,
  }];
  const runs = armRuns(0.5, dense, { steps: 3000 }, { gates: { gateBias: 3 }, slack: 0.01 });
  // The second has not ended.
  assertEquals(runs.map(({ settings, command }) => [settings, command]), [[
    { steps: 3000, gateBias: 3, sparse: true, targetLoss: 1.51, sparseFrom: 0.3333, seed: 1 },
    "pretrain",
  ]]);
  assertEquals(Math.round(0.3333 * 3000), 1000);
});

/** Tools with which runs end as told, and circuits are found; what is asked for is noted. */
function toldTools(ended: (stage: string, run: SweepRun) => SweepRow) {
  const asked: { runs: SweepRun[]; circuits: string[]; failed: string[] } = {
    runs: [],
    circuits: [],
    failed: [],
  };
  const tools: StudyTools = {
    quick: false,
    onlyTable: false,
    folder: "",
    signal: new AbortController().signal,
    say: () => {},
    fail: (text) => asked.failed.push(text),
    project: PROJECT,
    folderOf: (stage, run) => `${stage}/${run.name}`,
    runs(stage, runs) {
      asked.runs.push(...runs);
      return Promise.resolve(runs.map((run) => ({ ...ended(stage, run), run })));
    },
    trained: (stage, runs) => tools.runs(stage, runs),
    circuits(stage, run) {
      asked.circuits.push(`${stage} ${run.varied.sparseFrom ?? "–"} ${run.seed}`);
      return Promise.resolve(run.seed === 1 ? { edges: 9, heads: 2 } : null);
    },
  };
  return { tools, asked };
}

Deno.test("circuits are looked for in dense models and those that met their target, and counted apart from runs", async () => {
  const { tools, asked } = toldTools((stage, { seed, varied }) =>
    pretrained(seed!, {
      open: 0.1,
      loss: 1,
      ...(stage === "addition-dense" ? {} : { feasible: varied.sparseFrom === 0.6667 && seed! < 3 }),
    })
  );
  const { done, of, circuits } = await FROM_SCRATCH.parts[0].perform(tools);
  assertEquals(asked.circuits, [
    ...Array.from({ length: 10 }, (_, n) => `addition-dense – ${n + 1}`),
    "addition-sparse 0.6667 1",
    "addition-sparse 0.6667 2",
  ]);
  assertEquals([done, of, circuits], [60, 60, { done: 2, of: 12 }]);
});

Deno.test("from scratch the gates and the slack are those that the model recommends for post-training, but for λ", async () => {
  const own = ["gateBias", "constraintScale", "lambdaGain", "constraintEvery", "saturationWeight"];
  for (const { name, perform } of FROM_SCRATCH.parts) {
    const { tools, asked } = toldTools((_, { seed }) =>
      pretrained(seed!, { open: 1, loss: 2, feasible: true })
    );
    await perform(tools);
    const { settings } = asked.runs.at(-1)!;
    const of = JSON.parse(await Deno.readTextFile(`${PROJECT}/data/${name}/sparsify.json`));
    // What one does not set is the default of either command.
    const values = (of: Record<string, unknown>) =>
      own.map((key) => of[key] ?? PRETRAIN[key as keyof typeof PRETRAIN].value);
    assertEquals(values(settings), values(of));
    assertEquals(settings.targetLoss, 2 + of.slack);
  }
});

Deno.test("sensitivity tells the settings that each model recommends, or the defaults, and varies each to another", async () => {
  const expected = [
    "temperature 1, gateBias 3, distill 0, saturationWeight 0.01, lambdaRate 0.02, lambdaGain 0, slack 0.01, lr 0.001",
    "temperature 1, gateBias 0, distill 2, saturationWeight 0.01, lambdaRate 0.03, lambdaGain 0, slack 0.025, lr 0.0015",
  ];
  for (const [n, part] of SENSITIVITY.parts.entries()) {
    const { tools, asked } = toldTools((_, { seed }) => row({}, seed!, { open: 0.1, loss: 2 }));
    const { tables } = await part.perform(tools);
    assertStringIncludes(tables[0].caption, `Recommended: ${expected[n]}.`);
    const recommended = expected[n].split(", ");
    for (const { varied } of asked.runs) {
      const [first, ...more] = Object.entries(varied);
      if (first && more.length === 0) assert(!recommended.includes(first.join(" ")), first.join(" "));
    }
    // Where a run with the recommended settings has begun, it is told what they were then.
    await using folder = await temporaryFolder();
    const second = asked.runs.find(({ varied, seed }) => Object.keys(varied).length === 0 && seed === 2)!;
    const path = join((await fakeRun(folder.path, second.name, { live: false })).path, "config.json");
    const config = await readRunConfig(path);
    const then = { ...Object.fromEntries(recommended.map((each) => each.split(" "))), slack: 0.125 };
    await writeRunConfig(path, { ...config, settings: { ...config.settings, ...then } });
    const again = await part.perform({ ...tools, folderOf: (_, { name }) => join(folder.path, name) });
    assertStringIncludes(
      again.tables[0].caption,
      `Recommended: ${expected[n].replace(/slack [0-9.]+/, "slack 0.125")}.`,
    );
  }
});

Deno.test("a model that cannot be measured is taken down, and the part says what there is of the others", async () => {
  await using folder = await temporaryFolder();
  const { tools, asked } = toldTools((_, { seed }) => pretrained(seed!, { open: 0.1, loss: 1 }));
  const quick = { ...tools, quick: true, folder: folder.path };
  const { done, of, findings } = await LONG_RANGE.parts[0].perform(quick);
  assertEquals(done, of);
  assertEquals(asked.failed.length, of, asked.failed.join());
  assertStringIncludes(asked.failed[0], "/model (Cannot ");
  assert(findings.length > 0);
});

/** Runs of an arm, by seed from 1. */
function policyArm(label: string, runs: readonly Partial<PolicyRun>[]): PolicyArm {
  return {
    label,
    runs: runs.map((run, n) => ({
      seed: n + 1,
      exact: 1,
      reward: 0.9,
      open: 1,
      liveHeads: 8,
      entropy: 0.1,
      divergence: 0.2,
      violated: null,
      met: null,
      circuit: null,
      adapter: "a device",
      ...run,
    })),
  };
}

Deno.test("policies stand beside supervision by seed, and where either missed its constraint not at all", () => {
  const circuit = (edges: number) => ({ edges, heads: 2 });
  const { findings, tables: [all, circuits], forests } = reinforcementResult({
    start: [{ exact_rows: 0.4, reward: 0.3 }, { exact_rows: 0.6, reward: 0.5 }],
    dense: policyArm("dense", [{ circuit: circuit(50) }, { circuit: circuit(60) }]),
    sparse: [
      policyArm("one", [
        { open: 0.4, met: true, violated: 0.5, circuit: circuit(20) },
        { open: 0.4, met: true, violated: 0.25, circuit: circuit(40) },
        { open: 0.9, met: false, violated: 1 },
      ]),
      policyArm("none", []),
    ],
    supervised: policyArm("supervised", [
      { open: 0.2, met: true, circuit: circuit(10), reward: null },
      { open: 0.1, met: true, circuit: circuit(20), reward: null },
      { open: 0.1, met: true, circuit: circuit(10), reward: null },
    ]),
  });
  assertEquals(all.rows.map((row) => [row[0], row[1], row.at(-1)]), [
    ["dense", "2", "–"],
    ["one", "3", "2 of 3"],
    ["none", "0", "–"],
    ["supervised", "3", "3 of 3"],
  ]);
  assert(all.rows[1][8].startsWith("58.3 %"), all.rows[1][8]);
  assertEquals(all.rows[3][3], "–");
  // Twice and four times, of the seeds that met theirs: √8 by geometric mean.
  assertStringIncludes(circuits.rows[1][5], "×2.83 (");
  assertStringIncludes(circuits.rows[1][3], "×2.00 (");
  assertEquals(circuits.rows.map((row) => row[1]), ["2", "2", "0", "3"]);
  assertEquals(forests[0].rows.map(({ label, mean }) => [label, mean?.toFixed(3) ?? null]), [
    ["one", "2.828"],
    ["none", null],
  ]);
  assertStringIncludes(findings[0], "expect a reward of 40.0 %");
  assertStringIncludes(findings[0], "answer 50.0 %");
  assertStringIncludes(findings[1], "one: the reward was held in 2 of 3 runs");
  assertStringIncludes(findings[2], "the open edges, an interval that does not exclude ×1.");
  assertEquals(findings.length, 3);
});

Deno.test("reinforcement begins where the loss was low enough, sparse at the dense policy, held to 99 % of its reward", async () => {
  await using folder = await temporaryFolder();
  const rewards = new Map([[1, 0.5], [2, 0.8]]);
  const summaryOf = (of: object) => of as unknown as SparsifySummary;
  const { tools: told, asked } = toldTools((stage, { seed }) => {
    const ended = stage === "pretrain" || stage === "start" || (stage === "dense" && rewards.has(seed!));
    const dense = {
      test: { exact_rows: 0.9, reward: 0.8 },
      validation: { reward: rewards.get(seed!) },
      start: { exact_rows: 0.5, reward: 0.4 },
      constraint: null,
    };
    const summary = stage === "dense" ? summaryOf(dense) : summaryOf({ test: { exact_rows: 0.5 } });
    return { ...row({}, seed!), ...(ended ? { status: "finished" as const, summary } : {}) };
  });
  const tools: StudyTools = {
    ...told,
    folderOf: (stage, run) => join(folder.path, stage, run.name),
    async runs(stage, runs) {
      for (const run of stage === "pretrain" ? runs : []) {
        const path = tools.folderOf(stage, run);
        await Deno.mkdir(path, { recursive: true });
        const metrics = await openMetrics(join(path, "metrics.arrows"));
        // The last seed never comes to the loss; the others do so at step 20 and their seed.
        const losses = run.seed === 5 ? [1, 1] : [1, 0.36, 0.35, 0.1];
        await metrics.append(
          losses.map((validation_ce, n) =>
            metricRow(10 * n + run.seed!, { phase: "pretrain", validation_ce })
          ),
        );
        metrics.close();
      }
      return await told.runs(stage, runs);
    },
  };
  const [part, longer, mismatch] = REINFORCEMENT.parts;
  const { done, of, circuits } = await part.perform(tools);
  assertEquals([done, of, circuits], [5 + 4 + 2, 30, { done: 1, of: 2 }]);
  assertEquals(asked.failed.map((text) => text.replace(/^seed-(\d)_\S+/, "$1")), [
    "5 (never at a loss of 0.35)",
  ]);
  const ofStage = (is: (run: SweepRun) => boolean) => asked.runs.filter(is);
  const [pretrain, start] = [5, 4].map((count) =>
    ofStage(({ command }) => command === "pretrain").slice(...(count === 5 ? [0, 5] : [5]))
  );
  assertEquals(start.map(({ seed, settings }) => [seed, settings.steps]), [[1, 21], [2, 22], [3, 23], [
    4,
    24,
  ]]);
  for (const [n, { settings: { steps: _, ...of } }] of start.entries()) {
    // The same steps up to there.
    const { steps: __, ...whole } = pretrain[n].settings;
    assertEquals(of, whole);
    assertEquals([of.decay, of.warmup], [0, pretrain[n].settings.warmup]);
  }
  const [dense, sparse] = [false, true].map((sparse) =>
    ofStage(({ settings }) => "drawThrough" in settings && sparse === "targetReward" in settings)
  );
  assertEquals(
    dense.map(({ seed, settings }) => [seed, settings.model]),
    [1, 2, 3, 4].map((seed) => [
      seed,
      join(tools.folderOf("start", start[seed - 1]), "model"),
    ]),
  );
  const denseModel = (seed: number) => join(tools.folderOf("dense", dense[seed - 1]), "model");
  assertEquals(
    sparse.map(({ seed, settings: { targetReward, model, algorithm, drawThrough } }) => [
      seed,
      targetReward,
      model,
      algorithm,
      drawThrough,
    ]),
    [1, 2].flatMap((seed) =>
      [["leave-one-out", "noise"], ["grpo", "noise"]].map((arm) => [
        seed,
        [0.495, 0.792][seed - 1],
        denseModel(seed),
        ...arm,
      ])
    ),
  );
  const supervised = ofStage(({ settings }) => settings.control === false);
  assertEquals(supervised.map(({ seed, command, settings }) => [seed, command, settings.model]), [
    [1, undefined, denseModel(1)],
    [2, undefined, denseModel(2)],
  ]);
  for (const name of ["steps", "batch", "lr", "gateBias"]) {
    assertEquals(supervised[0].settings[name], sparse[0].settings[name], name);
  }
  assertEquals(asked.circuits, ["dense – 1", "dense – 2"]);

  // The other parts have the same policies to set their arms beside, and count those alone.
  const names = (runs: readonly SweepRun[]) => new Set(runs.map(({ name }) => name));
  for (const [other, arm] of [[longer, ["noise", 1200]], [mismatch, ["hard", 400]]] as const) {
    const before = asked.runs.length;
    const { done, of, circuits } = await other.perform(tools);
    assertEquals([done, of, circuits], [0, 5, { done: 0, of: 0 }]);
    const sparse = asked.runs.slice(before).filter(({ settings }) => "targetReward" in settings);
    assertEquals(sparse.map(({ seed, settings: { drawThrough, steps } }) => [seed, drawThrough, steps]), [
      [1, ...arm],
      [2, ...arm],
    ]);
    const further = names(asked.runs.slice(before)).difference(names(asked.runs.slice(0, before)));
    assertEquals(further, names(sparse));
  }
});
