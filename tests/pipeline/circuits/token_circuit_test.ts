import { assertEquals, assertThrows } from "@std/assert";
import type { LayerPattern } from "../../../pipeline/model/attention_pattern.ts";
import { tokenCircuit, tokenPaths } from "../../../pipeline/circuits/token_circuit.ts";

/** Layers of one head over four tokens, by their open edges as query, key. */
const layersOf = (open: [query: number, key: number][][]): LayerPattern[] =>
  open.map((edges) => {
    const [gates, weights] = [new Float32Array(16).fill(-1), new Float32Array(16)];
    for (const [query, key] of edges) [gates[query * 4 + key], weights[query * 4 + key]] = [2, 0.5];
    return { weights, gates };
  });

const SHAPE = { heads: 1, length: 4, answers: [3] };

const edgeOf = (layer: number, query: number, key: number) => ({
  layer,
  head: 0,
  query,
  key,
  weight: 0.5,
  onPath: true,
  mayMatter: true,
});

Deno.test("what reaches the answer goes through open edges and the residual stream", () => {
  // Layer 0 takes token 1 to position 2; layer 1 position 2 to 3. Others lead elsewhere.
  const circuit = tokenCircuit(layersOf([[[2, 1], [1, 0]], [[3, 2], [2, 0]]]), SHAPE);
  assertEquals(circuit.reached, [
    [false, true, true, true],
    [false, false, true, true],
    [false, false, false, true],
  ]);
  assertEquals(circuit.edges.filter(({ onPath }) => onPath), [edgeOf(1, 3, 2), edgeOf(0, 2, 1)]);
  assertEquals(circuit.paths, Float64Array.of(0, 1, 1, 1));
  assertEquals(circuit.sources, [1, 2, 3]);
  assertEquals([circuit.all, circuit.open, circuit.onPaths], [20, 4, 2]);
});

Deno.test("what moves a key of an open edge may matter, though it carries no value to the answer", () => {
  // The answer reads position 2's value; the softmax that weighs it has position 1's key, to which layer 0 carries token
  // 0. No open edge of layer 1 has position 3 as a query but the answer's, so layer 0's edge at 3 matters through it.
  const circuit = tokenCircuit(layersOf([[[1, 0], [3, 0]], [[3, 2], [2, 2]]]), SHAPE);
  const found = circuit.edges.map(({ layer, query, key, onPath, mayMatter }) =>
    [layer, query, key, onPath, mayMatter] as const
  );
  assertEquals(found, [
    [1, 2, 2, false, false],
    [1, 3, 2, true, true],
    [0, 1, 0, false, true],
    [0, 3, 0, true, true],
  ]);
  assertEquals([circuit.open, circuit.onPaths, circuit.mayMatter], [4, 2, 3]);
  // Without an open edge at the answer there is no weight that a key could set.
  assertEquals(tokenCircuit(layersOf([[[1, 0], [3, 0]], [[2, 2]]]), SHAPE).mayMatter, 1);
});

Deno.test("paths come with the fewest edges first, and as many as were asked for", () => {
  const circuit = tokenCircuit(layersOf([[[2, 1], [3, 3]], [[3, 2]]]), SHAPE);
  const paths = [
    { source: 3, answer: 3, steps: [undefined, undefined] },
    { source: 3, answer: 3, steps: [edgeOf(0, 3, 3), undefined] },
    { source: 2, answer: 3, steps: [undefined, edgeOf(1, 3, 2)] },
    { source: 1, answer: 3, steps: [edgeOf(0, 2, 1), edgeOf(1, 3, 2)] },
  ];
  assertEquals(tokenPaths(circuit, 10), paths);
  assertEquals(tokenPaths(circuit, 2), paths.slice(0, 2));
  assertEquals(circuit.paths, Float64Array.of(0, 1, 1, 2));
});

Deno.test("of a dense model every causal edge that the answers can see is on a path", () => {
  const dense = [0, 1].map(() => ({ weights: new Float32Array(32), gates: new Float32Array() }));
  // By head: the answers' own queries in layer 1, every query up to the last answer in layer 0.
  for (const [answers, ofHead] of [[[0], 1 + 1], [[2], 3 + 6], [[1, 3], 2 + 4 + 10]] as const) {
    const circuit = tokenCircuit(dense, { heads: 2, length: 4, answers });
    assertEquals([circuit.all, circuit.open, circuit.onPaths], [40, 40, 2 * ofHead]);
    assertEquals(circuit.mayMatter, circuit.onPaths);
    assertEquals(tokenPaths(circuit, 1e4).length, circuit.paths.reduce((a, b) => a + b, 0));
  }
});

Deno.test("answers below 0 are counted from the end", () => {
  const layers = layersOf([[[2, 1], [1, 0]], [[3, 2], [2, 0]]]);
  for (const [given, positions] of [[[-1], [3]], [[-4, 2], [0, 2]], [[3, -1], [3, 3]]]) {
    const counted = tokenCircuit(layers, { ...SHAPE, answers: given });
    assertEquals(counted, tokenCircuit(layers, { ...SHAPE, answers: positions }));
    assertEquals(counted.answers, positions);
  }
});

Deno.test("a position that is not in the prompt is refused", () => {
  for (const answer of [4, -5, 0.5, NaN]) {
    assertThrows(
      () => tokenCircuit(layersOf([[], []]), { ...SHAPE, answers: [3, answer] }),
      RangeError,
      `position ${answer} as the prompt has 4 tokens`,
    );
  }
});
