import { assert, assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { type LayerPattern, readAttention } from "../../../pipeline/attention_pattern.ts";
import {
  type AttentionEdge,
  closedEdges,
  prepareInterventions,
} from "../../../pipeline/circuits/interventions.ts";
import { tokenCircuit, tokenPaths } from "../../../pipeline/circuits/token_circuit.ts";

import { prepareNetwork } from "../../../pipeline/network.ts";
import { randomModel, randomSet, TINY } from "../../support/circuit_models.ts";
import { gpuTest } from "../../support/gpu.ts";

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
    assertEquals(tokenPaths(circuit, 1e4).length, circuit.paths.reduce((a, b) => a + b, 0));
  }
});

Deno.test("a position that is not in the prompt is refused", () => {
  assertThrows(() => tokenCircuit(layersOf([[], []]), { ...SHAPE, answers: [4] }), RangeError, "position 4");
});

gpuTest(
  "closing every open edge off the circuit leaves the answer's bits, closing any on it does not",
  async (gpu) => {
    const config = { ...TINY, gate: { bias: -0.1, temperature: 1 } };
    const model = randomModel(gpu, config);
    const [{ clean }] = randomSet(TINY, { pairs: 1, positions: 6 }).pairs;
    const network = await prepareNetwork(gpu, config, { batch: 1, context: 6, training: false });
    const attention = await readAttention(gpu, network, model.parameters, clean, config.gate.bias);
    const circuit = tokenCircuit(attention.layers, { heads: 2, length: 6, answers: [5] });
    const upTo = (last: number): number[] => Array.from({ length: last + 1 }, (_, n) => n);
    const causal = [0, 1].flatMap((layer) =>
      [0, 1].flatMap((head) =>
        upTo(5).flatMap((query) => upTo(query).map((key) => ({ layer, head, query, key })))
      )
    );
    assertEquals(causal.length, circuit.all);
    const nameOf = ({ layer, head, query, key }: AttentionEdge): string => [layer, head, query, key].join();
    const onPaths = circuit.edges.filter(({ onPath }) => onPath);
    const inside = new Set(onPaths.map(nameOf));
    assert(inside.size > 3 && inside.size < circuit.open, `${inside.size} of ${circuit.open}`);
    const run = await prepareInterventions(gpu, model, { batch: 1, positions: 6 });
    const logitsWithout = async (edges: readonly AttentionEdge[]) =>
      (await run.run([clean], { replace: closedEdges(edges) })).logits;
    const logits = await logitsWithout([]);
    assertEquals(await logitsWithout(causal.filter((edge) => !inside.has(nameOf(edge)))), logits);
    for (const edge of onPaths) assertNotEquals(await logitsWithout([edge]), logits, nameOf(edge));
    run.destroy();
    network.destroy();
  },
);
