import { assertEquals, assertThrows } from "@std/assert";
import { createGraph, edgeEnds } from "../../../pipeline/circuits/graph.ts";

Deno.test("GPT-2 124M has 157 sources, 445 inputs and 32,491 edges", () => {
  const graph = createGraph({ layers: 12, heads: 12 });
  assertEquals([graph.sources.length, graph.inputs.length, graph.edges], [157, 445, 32491]);
});

Deno.test("an edge is named by its ends, and every edge runs from a source before its input", () => {
  const graph = createGraph({ layers: 2, heads: 2 });
  const names = Array.from({ length: graph.edges }, (_, edge) => {
    const { source, input } = edgeEnds(graph, edge);
    return `${source.name}->${input.name}`;
  });
  assertEquals(new Set(names).size, graph.edges);
  assertEquals(names.slice(0, 3), ["embed->a0.h0.q", "embed->a0.h1.q", "embed->a0.h0.k"]);
  assertEquals(names.filter((name) => name.endsWith("->m0")), ["embed->m0", "a0.h0->m0", "a0.h1->m0"]);
  assertEquals(names.filter((name) => name.endsWith("->a1.h1.v")).length, 4);
  assertEquals(names.at(-1), "m1->logits");
  assertThrows(() => edgeEnds(graph, graph.edges), RangeError, `the graph has ${graph.edges}`);
  assertThrows(() => edgeEnds(graph, -1), RangeError);
});
