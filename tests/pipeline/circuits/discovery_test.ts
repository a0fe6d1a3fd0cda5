import { assertEquals } from "@std/assert";
import {
  connected,
  edgeCount,
  greedyCircuit,
  headCircuit,
  headSources,
  meanScores,
  rankEdges,
  topEdges,
} from "../../../pipeline/circuits/discovery.ts";
import { createGraph, edgeEnds } from "../../../pipeline/circuits/graph.ts";

const graph = createGraph({ layers: 2, heads: 2 });
const names = Array.from({ length: graph.edges }, (_, edge) => {
  const { source, input } = edgeEnds(graph, edge);
  return `${source.name}->${input.name}`;
});
const circuit = (...edges: string[]) => Uint8Array.from(names, (name) => edges.includes(name) ? 1 : 0);
const named = (kept: Uint8Array) => names.filter((_, edge) => kept[edge]);

Deno.test("edges are ranked by absolute value or as they are, equal ones in the graph's order", () => {
  assertEquals([...rankEdges([1, -3, 2, -3])], [1, 3, 2, 0]);
  assertEquals([...rankEdges([1, -3, 2, -3], { signed: true })], [2, 0, 1, 3]);
  assertEquals([...topEdges([1, 3, 2, 0], 2)], [0, 1, 0, 1]);
  assertEquals([...meanScores([[1, 2], [3, 6]])], [2, 4]);
  assertEquals([...meanScores([[1, 2], [3, 6]], [1, 1])], [3, 6]);
});

Deno.test("edges from what the embedding does not reach, and to what reaches no logits, hang in the air", () => {
  const path = ["embed->a0.h1.v", "a0.h1->a1.h0.k", "a1.h0->logits"];
  const unreached = ["a0.h0->a1.h0.q", "a1.h1->logits"];
  const deadEnds = ["embed->m1", "a0.h1->m0"];
  assertEquals(
    named(connected(graph, circuit(...path, ...unreached, ...deadEnds))).toSorted(),
    path.toSorted(),
  );
  assertEquals(edgeCount(connected(graph, new Uint8Array(graph.edges).fill(1))), graph.edges);
  assertEquals(edgeCount(connected(graph, new Uint8Array(graph.edges))), 0);
});

Deno.test("a greedy circuit grows from the logits along the best edges, though better ones lie elsewhere", () => {
  const score: Record<string, number> = {
    "a1.h0->logits": -5,
    "a0.h1->a1.h0.k": 3,
    "embed->a0.h1.v": 2,
    "embed->a0.h0.q": 9,
    "m0->logits": 1,
  };
  const scores = names.map((name) => score[name] ?? 0);
  assertEquals(
    named(greedyCircuit(graph, scores, 3)).toSorted(),
    ["a0.h1->a1.h0.k", "a1.h0->logits", "embed->a0.h1.v"].toSorted(),
  );
  assertEquals(edgeCount(greedyCircuit(graph, scores, graph.edges)), graph.edges);
});

Deno.test("a circuit of heads keeps every edge but those from the other heads", () => {
  assertEquals(headSources(graph).map((source) => graph.sources[source].name), [
    "a0.h0",
    "a0.h1",
    "a1.h0",
    "a1.h1",
  ]);
  const [a, b, c, d] = headSources(graph);
  const kept = headCircuit(graph, [c, a, b, d], 1);
  assertEquals(named(kept).some((name) => /^(a0.h0|a0.h1|a1.h1)->/.test(name)), false);
  assertEquals(edgeCount(headCircuit(graph, [c, a, b, d], 4)), graph.edges);
});

Deno.test("what a key head reads reaches, and is needed by, every head that reads the key head", () => {
  const graph = createGraph({ layers: 2, heads: 4, keyValueHeads: 2 });
  const names = Array.from({ length: graph.edges }, (_, edge) => {
    const { source, input } = edgeEnds(graph, edge);
    return `${source.name}->${input.name}`;
  });
  const circuit = (...edges: string[]) => Uint8Array.from(names, (name) => edges.includes(name) ? 1 : 0);
  const named = (kept: Uint8Array) => names.filter((_, edge) => kept[edge]);
  // Heads 2 and 3 read key head 1.
  const path = ["embed->a0.g1.v", "a0.h2->a1.g0.k", "a0.h3->a1.g0.k", "a1.h1->logits"];
  assertEquals(named(connected(graph, circuit(...path, "a0.h1->a1.g0.k", "embed->a1.g1.v"))), path);
  // Grown from the logits, a key head comes in with whichever of its heads is first, and once.
  const scores = Float64Array.from(
    names,
    (name) => path.includes(name) ? 5 : name === "a1.h0->logits" ? 4 : 0.1,
  );
  const grown = named(greedyCircuit(graph, scores, 5));
  assertEquals(grown.toSorted(), [...path, "a1.h0->logits"].toSorted());
});
