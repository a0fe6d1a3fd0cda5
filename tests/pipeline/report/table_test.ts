import { countLiveHeads } from "../../../pipeline/training/evaluate.ts";
import { assertEquals } from "@std/assert";
import { formatTable, summaryTable } from "../../../pipeline/report/table.ts";
import type { SparsifySummary } from "../../../pipeline/training/sparsify.ts";

Deno.test("a table's columns line up", () => {
  assertEquals(
    formatTable([["", "loss"], ["dense", "1.5"], ["sparse fit", "12.25"]]),
    [
      "             loss",
      "dense         1.5",
      "sparse fit  12.25",
    ].join("\n"),
  );
});

function summary(exactRows: number, control: boolean): SparsifySummary {
  const losses = { ce: 1.5, perplexity: 4.481689, accuracy: 0.5, exact_rows: exactRows };
  return {
    dense: losses,
    control: control ? { ...losses, ce: 1.25 } : null,
    sparse: {
      ...losses,
      open_fraction: 0.0125,
      edges_per_query: 0.8,
      dead_queries: 0.25,
      live_heads: 3,
      open_by_head: [[0.025, 0, 0.0125, 0.0125]],
      step: 100,
      feasible: true,
    },
    heads: 4,
    target_loss: 1.5,
    dense_validation_ce: 1.5,
    validation_tokens: 10,
    test_tokens: 10,
    steps: 100,
    tokens: 1000,
    seconds: 1,
    adapter: "",
    seed: 1,
    model: "",
    signatures: [],
  };
}

Deno.test("the summary's table has dense, dense fine-tuned and sparse, and leaves out a control that was not run", () => {
  assertEquals(
    summaryTable(summary(0, true)),
    [
      "                    loss  perplexity  open edges  edges/query  no edge  live heads",
      "dense             1.5000        4.48     100.0 %                0.00 %         4/4",
      "dense fine-tuned  1.2500        4.48     100.0 %                0.00 %         4/4",
      "sparse            1.5000        4.48      1.25 %         0.80   25.0 %         3/4",
      "loss in nats a token; no edge: queries without an open edge; live heads: an open edge for every 100 queries or fewer",
    ].join("\n"),
  );
  const without = summaryTable(summary(0, false)).split("\n").map((line) => line.split(" ")[0]);
  assertEquals(without, ["", "dense", "sparse", "loss"]);
});

Deno.test("a head is live with an edge for every hundred queries or fewer, not with one in all", () => {
  assertEquals(countLiveHeads([0, 1, 9, 10, 500], 1000), 2);
});

Deno.test("where whole rows are answered exactly, the table says how many", () => {
  const [head, dense] = summaryTable(summary(0.5, false)).split("\n");
  assertEquals(dense[head.indexOf("exact answers") + "exact answers".length - 1], "%");
  assertEquals(dense.trim().split(/\s{2,}/)[3], "50.0 %");
});

Deno.test("the levels of a front stand below the table, a line each", () => {
  const lines = summaryTable({
    ...summary(0, true),
    front: [
      { above: 0, target: 1.5, step: 100, ce: 1.5, open_fraction: 0.0125 },
      { above: 0.1, target: 1.6, step: null, ce: null, open_fraction: null },
    ],
  }).split("\n");
  assertEquals(lines.slice(4, 8), [
    "",
    "above the target  target    step    loss  open edges",
    "+0.0000           1.5000     100  1.5000      1.25 %",
    "+0.1000           1.6000  missed       –           –",
  ]);
});
