import { assert, assertAlmostEquals, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { tableFromIPC } from "apache-arrow";
import { analyse } from "../../../pipeline/circuits/analyse.ts";
import { connected, edgeCount, topEdges } from "../../../pipeline/circuits/discovery.ts";
import type { CircuitEngine } from "../../../pipeline/circuits/engine.ts";
import { type Interval, ladderSizes } from "../../../pipeline/circuits/metrics.ts";
import { firstWithin } from "../../../pipeline/circuits/model_analysis.ts";
import { modelNames } from "../../../pipeline/circuits/model_names.ts";
import { splitPairs } from "../../../pipeline/circuits/prompts.ts";
import { circuitSentence, circuitsHtml, resultRows, tableNotes } from "../../../pipeline/circuits/report.ts";
import { resultLine, saveResults } from "../../../pipeline/circuits/results.ts";
import { type TokenCircuit, tokenCircuit } from "../../../pipeline/circuits/token_circuit.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { plantedEngine, plantedSet, withRun } from "./planted.ts";
import { OPTIONS, PROMPTS, resultsOf } from "./planted_results.ts";

Deno.test("an analysis finds the planted circuit, its size in edges and heads, and that it is stable", async () => {
  const engine = plantedEngine(PROMPTS);
  const { performance, circuit } = await analyse(engine, plantedSet(PROMPTS), OPTIONS);
  assertEquals(performance.able, true);
  assertEquals(performance.difference.value, 8);
  assert(circuit);
  assertEquals(circuit.circuit, engine.planted);
  // Three of four edges restore 3 of 4, less than nine tenths; both heads of the chain are needed.
  assertEquals(circuit.edges, { value: 4, low: 4, high: 4 });
  assertEquals(circuit.heads, { value: 2, low: 2, high: 2 });
  assertEquals(circuit.greedy, { edges: 4, faithfulness: 1 });
  assertEquals(circuit.stability, { resampled: 1, templates: 1, heldOut: 1 });
  assertEquals(circuit.curve.at(-1)!.faithfulness, 1);
  assertEquals(circuit.curve[0].faithfulness, 0);
  const [, a0h1] = [0, 2];
  assertEquals([circuit.noising[0], circuit.noising[a0h1]], [8, 6]);
  assertEquals([circuit.denoising[0], circuit.denoising[a0h1]], [2, 0]);
  assertEquals(circuit.approximation.exact.slice(0, 4), [6, 6, 6, 2]);
});

Deno.test("areas go over the shares of edges that were chosen, each number of edges once", async () => {
  const { circuit } = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  // Five of the fractions of 46 edges are one edge. Three edges of the chain restore 3 of 4, the fourth the rest.
  const sizes = [1, 2, 5, 9, 23, 46];
  for (const curve of [circuit!.curve, circuit!.signedCurve]) {
    assertEquals(curve.map(({ chosen }) => chosen), sizes);
    assertEquals(curve.map(({ fraction }) => fraction), sizes.map((size) => size / 46));
    assertEquals(curve.map(({ faithfulness }) => faithfulness), [0, 0, 1, 1, 1, 1]);
  }
  // Trapezoids over 1 to 2, 2 to 5, and 5 to 46 edges.
  assertAlmostEquals(circuit!.cpr, (0 + 1.5 + 41) / 46, 1e-12);
  assertAlmostEquals(circuit!.cmd, (1 + 1.5 + 0) / 46, 1e-12);
});

Deno.test("the size for 90 % is exact between the rungs of the ladder", async () => {
  const engine = plantedEngine(PROMPTS);
  const { clean } = await engine.baselines();
  const run = (kept: Uint8Array) =>
    Promise.resolve(clean.map((metric) => edgeCount(kept) >= 34 ? metric : 0));
  const { circuit } = await analyse(withRun(engine, run), plantedSet(PROMPTS), OPTIONS);
  const sizeOf = (chosen: number) => edgeCount(connected(engine.graph, topEdges(circuit!.ranked, chosen)));
  const sizes = Array.from({ length: engine.graph.edges }, (_, n) => sizeOf(n + 1));
  const expected = sizes.find((size) => size >= 34)!;
  assertEquals(circuit!.edges.value, expected);
  assertEquals(edgeCount(circuit!.circuit), expected);
  const rungs = ladderSizes(engine.graph.edges, 1.25).map(sizeOf);
  assert(!rungs.includes(expected), `${expected} lies between the rungs ${rungs}`);
});

Deno.test("pairs are dealt out to choosing and scoring template by template", () => {
  const { choosing, scoring } = splitPairs(plantedSet(12).pairs);
  assertEquals([choosing, scoring], [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]]);
  assertEquals(splitPairs(plantedSet(3).pairs), { choosing: [0, 1], scoring: [2] });
  const [pair] = plantedSet(1).pairs;
  const of = (...clean: number[]) => clean.map((token) => ({ ...pair, clean: [token] }));
  assertEquals(splitPairs(of(1, 2, 1, 3)), { choosing: [0, 2], scoring: [1, 3] }, "one prompt, one half");
  assertEquals(splitPairs(of(1)), { choosing: [0], scoring: [0] }, "one pair alone does both");
  assertThrows(() => splitPairs(of(1, 1)), RangeError, "they have 1 clean prompt");
});

Deno.test("pairs that score neither rank edges or heads, nor do pairs that choose score", async () => {
  const engine = plantedEngine(PROMPTS);
  const { choosing, scoring } = splitPairs(plantedSet(PROMPTS).pairs);
  const isPlanted = (edge: number): boolean => engine.planted[edge] === 1;
  // Any circuit with an edge does everything for the pairs that choose.
  const forChoosing = withRun(engine, async (kept) => {
    const metrics = await engine.run(kept);
    const { clean } = await engine.baselines();
    if (kept.includes(1)) { for (const pair of choosing) metrics[pair] = clean[pair]; }
    return metrics;
  });
  const biased: CircuitEngine = {
    ...forChoosing,
    // Every edge but the planted ones seems large to the pairs that score, and every head alike.
    attribute: async (method) => {
      const scores = await engine.attribute(method);
      for (const pair of scoring) scores[pair] = scores[pair].map((_, edge) => isPlanted(edge) ? 0 : 1000);
      return scores;
    },
    patchNodes: async (direction) => {
      const effects = await engine.patchNodes(direction);
      for (const pair of scoring) effects[pair] = effects[pair].map((effect) => effect > 0 ? 0 : 1000);
      return effects;
    },
  };
  const { circuit } = await analyse(biased, plantedSet(PROMPTS), OPTIONS);
  assertEquals(circuit!.circuit, engine.planted);
  assertEquals([circuit!.edges.value, circuit!.heads.value], [4, 2]);
  assertEquals(circuit!.curve[0].faithfulness, 0);
});

Deno.test("a model that cannot do the task gets no circuit, and the report says so", async () => {
  const findings = await analyse(plantedEngine(PROMPTS, { able: false }), plantedSet(PROMPTS), OPTIONS);
  assertEquals(findings.performance.able, false);
  assertEquals(findings.circuit, undefined);
  const results = resultsOf(findings, undefined);
  assertEquals(
    circuitSentence(results),
    "The dense model does not do the task planted well enough for a circuit to mean anything: 50.0 % of answers right, " +
      "where --least-accuracy asks for 60.0 %.",
  );
  assertEquals(JSON.parse(resultLine(results)).models[0].n90_edges, null);
  assert(!circuitsHtml("run", results).includes('id="graph"'));
});

Deno.test("how many answers must be right is the caller's to say, and which of two reasons a refusal has is told", async () => {
  const whole = plantedEngine(PROMPTS);
  const found = await whole.baselines();
  const half = { ...whole, baselines: () => Promise.resolve({ ...found, correct: found.correct.fill(0.5) }) };
  const of = async (engine: CircuitEngine, leastAccuracy?: number) =>
    await analyse(engine, plantedSet(PROMPTS), { ...OPTIONS, leastAccuracy });
  for (const least of [undefined, 0.51]) assertEquals((await of(half, least)).performance.able, false);
  const asked = await of(half, 0.5);
  assertEquals([asked.performance.able, asked.circuit?.edges.value], [true, 4]);
  // Nothing is right, and the corrupted prompts have what is: someone has exchanged them.
  const none = { ...found, clean: found.corrupted, corrupted: found.clean, correct: found.correct.fill(0) };
  const exchanged = await of({ ...whole, baselines: () => Promise.resolve(none) });
  const asIf = "as if clean and corrupted, or right and wrong answers, had been exchanged";
  assertStringIncludes(circuitSentence(resultsOf(exchanged, undefined)), asIf);
  const neither = { ...none, corrupted: none.corrupted.map((metric) => -metric) };
  const lost = await of({ ...whole, baselines: () => Promise.resolve(neither) });
  assert(!circuitSentence(resultsOf(lost, undefined)).includes(asIf));
  // As much is right, and as right for the corrupted prompts.
  const alike = await of(plantedEngine(PROMPTS, { able: false }), 0.5);
  assertEquals(alike.circuit, undefined);
  assertStringIncludes(
    circuitSentence({ ...resultsOf(alike, undefined), least_accuracy: 0.5 }),
    "50.0 % of answers right, but the metric is not surely higher than for corrupted prompts: 8 (",
  );
});

Deno.test("two models: the ratio with its interval, the line, the table, and files that Arrow reads", async () => {
  const findings = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  const results = resultsOf(findings, findings);
  assertEquals(results.ratio!.edges, { value: 1, low: 1, high: 1 });
  const line = JSON.parse(resultLine(results));
  assertEquals(Object.keys(line), ["task", "enough_pairs", "models", "ratio", "shared"]);
  const [dense, sparse] = line.models;
  assertEquals([dense.name, dense.gated, sparse.name, sparse.gated], ["dense", false, "sparse", true]);
  assertEquals([dense.n90_edges, dense.n90_heads, sparse.performance], [4, 2, 1]);
  assertEquals(line.ratio.edges, { value: 1, low: 1, high: 1 });
  assertEquals(
    circuitSentence(results),
    "For 90 % of the effect on prompts that did not choose the circuit, the dense model needs 4 edges, or 2 heads with " +
      "all of their edges; the sparse model needs 4 edges, or 2 heads with all of their edges: as many edges and 2 times " +
      "fewer heads in the sparse one.",
  );
  assertEquals(sparse.token_circuits.anew, { moved: 0.75, changed: 0.25, logit: 10.5, metric: 1.5 });
  const rows = new Map(resultRows(results).map(({ label, cells }) => [label, cells[1]]));
  assertEquals(rows.get("edges for 90 % of the effect"), "4 (4 to 4)");
  // What is off the paths stands beside the count of what is on them.
  assertEquals(rows.get("attention edges on paths that carry values"), "1.5");
  assertEquals(rows.get("attention edges that may matter, gates held"), "2.5");
  assertEquals(rows.get("open edges off the paths closed, gates held ¹"), "50.0 %; 0.00 %; 0.13; 0.03");
  assertEquals(rows.get("open edges off the paths closed, gates anew ¹"), "75.0 %; 25.0 %; 11; 1.5");
  await using folder = await temporaryFolder();
  await saveResults(folder.path, results);
  const json = JSON.parse(await Deno.readTextFile(`${folder.path}/circuits.json`));
  const [first, second] = json.models;
  assertEquals(first.circuit.n90_edges.value, 4);
  assertEquals(json.split, { choosing: 6, scoring: 6 });
  assertEquals(first.circuit.heads.sort(), ["a0.h1", "a1.h0"]);
  const { sizes } = first.circuit;
  assertEquals(
    sizes.filter(({ chosen }: { chosen: number }) => chosen < 5),
    [[1, 0, 0], [2, 0, 0], [3, 3, 0.75], [4, 4, 1]].map(([chosen, edges, faithfulness]) => ({
      chosen,
      edges,
      faithfulness,
    })),
  );
  assertEquals(second.token_circuits.held.moved, 0.5);
  assertEquals(first.circuit.edges, undefined);
  const edges = tableFromIPC(await Deno.readFile(`${folder.path}/edges.arrow`));
  assertEquals(edges.numRows, 2 * results.graph.edges);
  const kept = edges.toArray().filter((row) => row.in_circuit && row.model === "sparse");
  assertEquals(kept.map((row) => `${row.source}->${row.input}`).sort(), [
    "a0.h1->a1.h0.k",
    "a1.h0->logits",
    "embed->a0.h1.v",
    "embed->logits",
  ]);
  const curve = tableFromIPC(await Deno.readFile(`${folder.path}/curve.arrow`));
  assertEquals(curve.numRows, 2 * 2 * 6);
});

Deno.test("where pairs are too few for intervals, table, sentence, page and JSON say so", async () => {
  const of = async (prompts: number) => {
    const findings = await analyse(plantedEngine(prompts), plantedSet(prompts), OPTIONS);
    const results = resultsOf(findings, undefined);
    const [note] = tableNotes(results);
    assertStringIncludes(circuitsHtml("run", results), `<caption>${note}`);
    const { enough_pairs } = JSON.parse(resultLine(results));
    const hasInterval = ({ low }: Interval): boolean => low !== null;
    assertEquals(enough_pairs, {
      metric: hasInterval(findings.performance.clean),
      circuit: hasInterval(findings.circuit!.edges),
    });
    return { note, sentence: circuitSentence(results) };
  };
  const onNew = "For 90 % of the effect on prompts that did not choose the circuit, the dense model needs";
  const onFew = (pairs: string) =>
    `For 90 % of the effect on ${pairs} that did not choose the circuit, too few for intervals, the dense model needs`;
  const drawn = "95 % intervals in brackets, by drawing the prompts anew";
  for (
    const [prompts, said, begins] of [
      [1, "One pair: what takes several, intervals,", "For 90 % of the effect on the one pair, which also"],
      [3, "3 pairs: too few for 95 % intervals, which take 5.", onFew("1 pair")],
      [4, "4 pairs: too few for 95 % intervals, which take 5.", onFew("2 pairs")],
      [5, `${drawn}; 2 pairs that score circuits are too few for theirs, which take 5.`, onFew("2 pairs")],
      [9, `${drawn}; 4 pairs that score circuits are too few for theirs, which take 5.`, onFew("4 pairs")],
      [10, `${drawn}.`, onNew],
    ] as const
  ) {
    const { note, sentence } = await of(prompts);
    assertStringIncludes(note, said);
    assertStringIncludes(sentence, begins);
  }
});

Deno.test("two circuits: what both have, and its share of what either has, in table, page, line and file", async () => {
  const findings = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  const circuit = findings.circuit!;
  // Another of as many edges and heads, of which one each is another.
  const other = circuit.circuit.slice();
  other[other.indexOf(1)] = 0;
  other[other.lastIndexOf(0)] = 1;
  const [kept, left, ...rest] = circuit.rankedHeads;
  const changed = { ...circuit, circuit: other, rankedHeads: [rest[0], kept, left, ...rest.slice(1)] };
  const results = resultsOf(findings, { ...findings, circuit: changed });
  const shared = { heads: { count: 1, jaccard: 1 / 3 }, edges: { count: 3, jaccard: 3 / 5 } };
  assertEquals(results.shared, shared);
  assertEquals(JSON.parse(resultLine(results)).shared, shared);
  const rowsOf = (of: typeof results) =>
    resultRows(of).slice(7, 10).map(({ label, cells }) => [label, ...cells]);
  const [edges, heads, overlap] = [
    "edges of the circuit that the other model’s has too",
    "heads of the circuit that the other model’s has too",
    "overlap of the two circuits, edges and heads",
  ];
  assertEquals(rowsOf(results), [
    [edges, "3 of 4", "3 of 4"],
    [heads, "1 of 2", "1 of 2"],
    [overlap, "0.6, 0.333", "0.6, 0.333"],
  ]);
  assertStringIncludes(circuitsHtml("run", results), `${overlap}</th><td>0.6, 0.333</td>`);
  await using folder = await temporaryFolder();
  await saveResults(folder.path, results);
  assertEquals(JSON.parse(await Deno.readTextFile(`${folder.path}/circuits.json`)).shared, shared);

  // No circuit does enough: there is none to compare, and of heads there still is.
  const none = { value: null, low: null, high: null };
  const partly = resultsOf(findings, { ...findings, circuit: { ...changed, edges: none } });
  assertEquals(partly.shared, { ...shared, edges: null });
  assertEquals(rowsOf(partly)[1], [overlap, "–, 0.333", "–, 0.333"]);
  const alone = resultsOf(findings, undefined);
  assertEquals(alone.shared, { heads: null, edges: null });
  assert(!resultRows(alone).some(({ label }) => label.includes("other model")), "there is no other");
});

Deno.test("every pair's metrics stand in a table, with its prompts, and what it is for", async () => {
  const set = plantedSet(PROMPTS);
  const findings = await analyse(plantedEngine(PROMPTS), set, OPTIONS);
  const unable = await analyse(plantedEngine(PROMPTS, { able: false }), set, OPTIONS);
  await using folder = await temporaryFolder();
  await saveResults(folder.path, resultsOf(findings, unable));
  const rows = tableFromIPC(await Deno.readFile(`${folder.path}/pairs.arrow`)).toArray();
  assertEquals(rows.length, 2 * PROMPTS);
  const { choosing, scoring } = splitPairs(set.pairs);
  const { full } = findings.circuit!.bounds;
  for (const [n, pair] of set.pairs.entries()) {
    const size = 1 + n % 3;
    const scores = scoring.includes(n);
    const row = {
      model: "dense",
      prompt: n,
      clean: pair.clean.join(" "),
      corrupted: pair.corrupted.join(" "),
      template: pair.template,
      part: scores ? "scores" : "chooses",
      clean_metric: 4 * size,
      corrupted_metric: 0,
      // The circuit of all that was planted does all.
      circuit_metric: scores ? full[scoring.indexOf(n)] : null,
      correct: 1,
      exact: 0.25,
    };
    assertEquals(rows[n].toJSON(), row);
    assertEquals(rows[PROMPTS + n].toJSON(), {
      ...row,
      model: "sparse",
      corrupted_metric: 4 * size,
      circuit_metric: null,
      correct: 0.5,
    });
  }
  assertEquals([choosing.length, scoring.length], [6, 6]);
  const one = resultsOf(await analyse(plantedEngine(1), plantedSet(1), OPTIONS), undefined);
  assertEquals([one.pairs.map(({ part }) => part), one.models[0].pairs[0].circuit], [["both"], 4]);
  const { pairs, models } = JSON.parse(await Deno.readTextFile(`${folder.path}/circuits.json`));
  assertEquals([pairs, models[0].pairs], [undefined, undefined]);
});

Deno.test("of a model without gates nothing is closed off the paths: table, page and files say so", async () => {
  const findings = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  const both = resultsOf(findings, findings);
  const [dense, sparse] = both.models;
  const ungated = { ...dense, token_circuits: { ...dense.token_circuits, held: null, anew: null } };
  const rowsOf = (results: typeof both) =>
    resultRows(results).filter(({ label }) => label.includes("closed")).map(({ cells }) => cells);
  const mark = "¹ Prompts in which a logit moves by more than 0.0001";
  assertEquals(tableNotes(both).map((note) => note.slice(0, mark.length)).at(-1), mark);
  assert(!tableNotes(both).join().includes("Without gates"));

  const beside = { ...both, models: [ungated, sparse] };
  assertEquals(rowsOf(beside), [["–", "50.0 %; 0.00 %; 0.13; 0.03"], ["–", "75.0 %; 25.0 %; 11; 1.5"]]);
  assertStringIncludes(tableNotes(beside).at(-1)!, "Without gates nothing off the paths reaches an answer.");
  const html = circuitsHtml("run", beside);
  assertEquals(html.match(/It has no gates, and nothing off the paths reaches the answer/g)!.length, 1);

  const alone = { ...both, models: [ungated] };
  assertEquals(rowsOf(alone), []);
  assert(!tableNotes(alone).join().includes("¹"), "the table has no such mark");
  await using folder = await temporaryFolder();
  await saveResults(folder.path, alone);
  const { models: [saved] } = JSON.parse(await Deno.readTextFile(`${folder.path}/circuits.json`));
  assertEquals([saved.token_circuits.held, saved.token_circuits.anew], [null, null]);
});

/** Every key of objects within a value. */
function keysOf(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  const own = Array.isArray(value) ? [] : Object.keys(value);
  return [...own, ...Object.values(value).flatMap(keysOf)];
}

Deno.test("what is saved and printed has its names in one style, that of the other summaries", async () => {
  const findings = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  const results = resultsOf(findings, findings);
  await using folder = await temporaryFolder();
  await saveResults(folder.path, results);
  const saved = JSON.parse(await Deno.readTextFile(`${folder.path}/circuits.json`));
  for (const [what, value] of [["circuits.json", saved], ["the line", JSON.parse(resultLine(results))]]) {
    const keys = new Set(keysOf(value));
    for (const key of ["n90_edges", "on_paths", "may_matter", "off_paths"]) {
      assert(keys.has(key), `${what}: ${key}`);
    }
    assertEquals([...keys].filter((key) => !/^[a-z0-9_]+$/.test(key)), [], what);
  }
  for (const key of ["held_out", "key_value_heads", "norm_behind_attention", "least_weight"]) {
    assert(keysOf(saved).includes(key), key);
  }
});

Deno.test("the guide names what is saved: every column, and every key of circuits.json", async () => {
  const findings = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  await using folder = await temporaryFolder();
  await saveResults(folder.path, resultsOf(findings, findings));
  const guide = await Deno.readTextFile(new URL("../../../docs/guide.md", import.meta.url));
  const rowOf = (what: string): string[] => {
    const row = guide.split("\n").find((line) => line.startsWith(`| ${what}`))!;
    // What is in brackets explains.
    return [...row.split("|")[2].replace(/\([^)]*\)/g, "").matchAll(/`(\w+)`/g)].map(([, name]) => name);
  };
  for (const file of ["edges.arrow", "curve.arrow", "pairs.arrow", "token_edges.arrow"]) {
    const table = tableFromIPC(await Deno.readFile(`${folder.path}/${file}`));
    assertEquals(rowOf(`\`${file}\``), table.schema.fields.map(({ name }) => name), file);
  }
  const json = JSON.parse(await Deno.readTextFile(`${folder.path}/circuits.json`));
  assertEquals(rowOf("`circuits.json`").sort(), Object.keys(json).sort());
  const [model] = json.models;
  assertEquals(
    rowOf("– each of its `models`").sort(),
    [...Object.keys(model), ...Object.keys(model.circuit)].sort(),
  );
});

Deno.test("two models of a kind have names of their own in sentence, table, page and files", async () => {
  const findings = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  const unable = await analyse(plantedEngine(PROMPTS, { able: false }), plantedSet(PROMPTS), OPTIONS);
  const named: [string, string] = ["seed-1", "seed-2"];
  const of = (first: typeof findings, second: typeof findings) => resultsOf(first, second, undefined, named);
  const results = of(findings, findings);
  assertEquals(
    circuitSentence(results),
    "For 90 % of the effect on prompts that did not choose the circuit, seed-1 needs 4 edges, or 2 heads with all of " +
      "their edges; seed-2 needs 4 edges, or 2 heads with all of their edges: as many edges and 2 times fewer heads in " +
      "seed-2.",
  );
  assertStringIncludes(
    circuitSentence(of(unable, findings)),
    "seed-1 does not do the task planted well enough",
  );
  assertStringIncludes(
    circuitSentence(of(unable, unable)),
    "Neither seed-1 nor seed-2 does the task planted",
  );
  const html = circuitsHtml("run", results);
  for (
    const said of [
      "seed-1 : seed-2, heads 2 (1 to 3)",
      "Edges of seed-2’s circuit as a table",
      'data-kind="seed-1"',
    ]
  ) assertStringIncludes(html, said);
  assert(
    !/(dense|sparse) model/.test(html.replace(/<script.*?<\/script>/gs, "")),
    "neither is called dense or sparse",
  );
  // The two curves can be told apart, also without colours.
  const dashes = [...html.matchAll(/<path class="(?:blue|green)"[^>]*stroke-dasharray="([^"]*)"/g)];
  assertEquals(new Set(dashes.map(([, dash]) => dash)), new Set(["7 4", "none"]));
  await using folder = await temporaryFolder();
  await saveResults(folder.path, results);
  for (const file of ["edges.arrow", "curve.arrow"]) {
    const rows = tableFromIPC(await Deno.readFile(`${folder.path}/${file}`)).toArray();
    assertEquals([...new Set(rows.map(({ model }) => model))], named, file);
  }
});

Deno.test("open attention edges of every prompt stand in a table, whole prompts as far as there is room", async () => {
  const findings = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  await using folder = await temporaryFolder();
  await saveResults(folder.path, resultsOf(findings, findings));
  const table = tableFromIPC(await Deno.readFile(`${folder.path}/token_edges.arrow`));
  const rows = table.toArray().map((row) => row.toJSON());
  const first = {
    model: "dense",
    prompt: 0,
    layer: 1,
    head: 0,
    query: 2,
    key: 0,
    query_token: "three",
    key_token: "one",
    weight: 0.25,
    on_path: true,
    may_matter: true,
    effect: 1.5,
  };
  const words = { query_token: "c", key_token: "a" };
  const off = {
    ...first,
    ...words,
    prompt: 1,
    layer: 0,
    query: 1,
    query_token: "b",
    on_path: false,
    may_matter: false,
  };
  const ofOne = [first, { ...first, ...words, prompt: 1 }, { ...off, effect: null }];
  assertEquals(rows, [...ofOne, ...ofOne.map((row) => ({ ...row, model: "sparse" }))]);
  const { models } = JSON.parse(await Deno.readTextFile(`${folder.path}/circuits.json`));
  assertEquals(models[1].token_edges, { prompts: 2, edges: 3, with_effects: 1 });
  const of = (...open: number[]) => open.map((count) => ({ circuit: { open: count } as TokenCircuit }));
  assertEquals(firstWithin(of(3, 4, 5), 12).length, 3);
  assertEquals(firstWithin(of(3, 4, 5, 0), 11).length, 2);
  assertEquals(firstWithin(of(3, 4), 2).length, 0);
});

Deno.test("models of a kind are called by what tells them apart", () => {
  const of = (...labels: string[]) => modelNames(labels.map((label) => ({ label, gated: true })));
  assertEquals(of("runs/a/model", "runs/b/model"), ["a", "b"]);
  assertEquals(of("data/english", "data/english-sparse/"), ["english", "english-sparse"]);
  assertEquals(of("runs/a", "runs/a/control"), ["a", "control"]);
  assertEquals(of("./one/x/model", "/two/y/model"), ["x", "y"]);
  assertEquals(of("a", "runs/a"), ["a", "runs/a"]);
  assertEquals(of("data/m with adapter", "data/m"), ["m with adapter", "m"]);
  assertEquals(of("m/dense", "m/sparse"), ["m/dense", "m/sparse"]);
  assertEquals(of("runs/a/model"), ["sparse"]);
  const kinds = [{ label: "b", gated: true }, { label: "a", gated: false }];
  assertEquals(modelNames(kinds), ["sparse", "dense"]);
});

Deno.test("every row of the table is the findings', and what was measured is told by its numbers", async () => {
  const findings = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  const results = resultsOf(findings, undefined);
  const { clean } = findings.performance;
  const ends = [clean.low, clean.high].map((end) => String(Number(end!.toPrecision(3))));
  const correlation = findings.circuit!.approximation.rankCorrelation;
  assertEquals(resultRows(results).map(({ label, cells: [cell] }) => [label, cell]), [
    ["answers right", "100.0 %"],
    ["first choice of all tokens", "25.0 %"],
    ["metric, clean prompts", `8 (${ends.join(" to ")})`],
    ["metric, corrupted prompts", "0 (0 to 0)"],
    ["pairs that choose circuits, and that score them", "6, 6"],
    ["edges for 90 % of the effect", "4 (4 to 4)"],
    ["heads for 90 % of the effect", "2 (2 to 2)"],
    // 42.5 and 2.5 of 46: the test of areas has them.
    ["CPR (area under faithfulness)", "0.924"],
    ["CMD (area of its distance from 1)", "0.0543"],
    ["grown from the logits, edges", "4"],
    ["grown from the logits, faithfulness", "1"],
    ["estimate against exact effect, rank correlation", String(Number(correlation.toPrecision(3)))],
    ["overlap of circuits, prompts drawn anew", "1"],
    ["overlap, one template and the others", "1"],
    ["faithfulness on a template left out", "1"],
    ["faithfulness with the rest at zero", "0.5"],
    ["attention edges, of a prompt", "24"],
    ["attention edges open", "3.5"],
    ["attention edges on paths that carry values", "1.5"],
    ["attention edges that may matter, gates held", "2.5"],
    ["open edges off the paths closed, gates held ¹", "50.0 %; 0.00 %; 0.13; 0.03"],
    ["open edges off the paths closed, gates anew ¹", "75.0 %; 25.0 %; 11; 1.5"],
  ]);
  const html = circuitsHtml("run", results);
  for (
    const said of [
      "12 pairs of prompts of 3 tokens in 2 templates; metric: logit difference. The graph has 46 edges",
      "Edges are estimated by EAP (arXiv 2403.17806); what a circuit leaves out is replaced by what it is for the corrupted",
      "6 of the pairs rank edges and heads; the other 6 score every circuit",
      "Seed 1; none.",
    ]
  ) assertStringIncludes(html, said);
  assert(!html.includes("Dense : sparse"), "there is nothing to compare");
  const both = circuitsHtml("run", resultsOf(findings, findings));
  assertStringIncludes(both, "Dense : sparse, heads 2 (1 to 3), edges 1 (1 to 1).");
  for (
    const [change, said] of [
      [{ ablation: "mean" }, "is replaced by its mean."],
      [{ ablation: "zero" }, "is replaced by zero."],
      [{ method: { name: "eap-ig", steps: 7 } }, "Edges are estimated by EAP-IG over 7 steps"],
      [{ templates: 1 }, "in 1 template;"],
      [{ graph: { ...results.graph, key_value_heads: 1 } }, "keys and values of each of 1 key heads"],
      [{ graph: { ...results.graph, norm_behind_attention: true } }, "the norm behind attention"],
    ] as const
  ) {
    assert(!html.includes(said), said);
    assertStringIncludes(circuitsHtml("run", { ...results, ...change }), said);
  }
});

Deno.test("the page escapes what models and prompts say, and names its two scripts once", async () => {
  const findings = await analyse(plantedEngine(PROMPTS), plantedSet(PROMPTS), OPTIONS);
  const html = circuitsHtml("a <b> run", resultsOf(findings, findings));
  assert(html.includes("a &lt;b&gt; run"));
  // The count of paths does not stand alone.
  assert(html.includes("1 of them on a path that carries values from a token to the answer; 2 may matter"));
  assert(
    html.includes("in 50.0 % of the prompts, by up to 0.13, and the first choice in 0.00 % with the other"),
  );
  assert(
    html.includes(
      "in 75.0 % of the prompts, by up to 11, and the first choice in 25.0 % with gates computed",
    ),
  );
  assertEquals(html.match(/<\/script>/g)!.length, 2);
  assertEquals(html.match(/<style>/g)!.length, 1);
  assert(!/\sstyle="/.test(html));
  const data = JSON.parse(/id="data">([^]*?)<\/script>/.exec(html)![1]);
  assertEquals(data.models[1].attention.tokens, ["one", "<two>", "</script>"]);
  assertEquals(data.models[0].circuit.edges[0][2], 6);
});

Deno.test("a token circuit holds the open edges, and of them those from which the answer can be reached", () => {
  // Two layers of one head over four tokens; in the upper one 3 looks at 1, in the lower 1 at 0 and 2 at 2.
  const layer = (open: [number, number][]) => {
    const gates = new Float32Array(16).fill(-1);
    const weights = new Float32Array(16);
    for (const [query, key] of open) [gates[4 * query + key], weights[4 * query + key]] = [2, 0.5];
    return { gates, weights };
  };
  const found = tokenCircuit([layer([[1, 0], [2, 2]]), layer([[3, 1]])], {
    heads: 1,
    length: 4,
    answers: [3],
  });
  assertEquals([found.all, found.open, found.onPaths], [20, 3, 2]);
  assertEquals(found.sources, [0, 1, 3]);
  assertEquals(found.edges.filter(({ onPath }) => !onPath).map(({ query, key }) => [query, key]), [[2, 2]]);
  const dense = { gates: new Float32Array(0), weights: new Float32Array(16).fill(0.25) };
  assertEquals(tokenCircuit([dense], { heads: 1, length: 4, answers: [3] }).open, 10);
});
