/**
 * An engine whose circuit is known, for testing what is built on engines without a model: each prompt's metric is 3 where
 * the three edges of a chain are kept, and 1 more with one direct edge, times the prompt's own size.
 *
 * @module
 */
import type { CircuitEngine } from "../../../pipeline/circuits/engine.ts";
import { createGraph, edgeEnds } from "../../../pipeline/circuits/graph.ts";
import type { PromptSet } from "../../../pipeline/circuits/prompts.ts";
import { randomStream } from "../../../kernels/core/random.ts";

const CHAIN = ["embed->a0.h1.v", "a0.h1->a1.h0.k", "a1.h0->logits"];
const DIRECT = "embed->logits";

/** Prompts of two templates; only their number and templates matter. */
export function plantedSet(prompts: number): PromptSet {
  return {
    task: "planted",
    metric: "logit_difference",
    pairs: Array.from({ length: prompts }, (_, n) => ({
      clean: [1, 2 + n, 3],
      corrupted: [4, 2 + n, 3],
      places: [{ position: 2, right: [1], wrong: [4] }],
      template: n % 2 === 0 ? "even" : "odd",
    })),
  };
}

/** An engine whose circuits have other metrics, one by one and many at once. */
export function withRun(engine: CircuitEngine, run: CircuitEngine["run"]): CircuitEngine {
  return { ...engine, run, runEach: (circuits) => Promise.all(circuits.map((kept) => run(kept))) };
}

/** The engine, over 2 layers of 2 heads. `able: false`: right as often as wrong; `keyValueHeads: 1`: both read one key head. */
export function plantedEngine(
  prompts: number,
  { able = true, keyValueHeads = 2 } = {},
): CircuitEngine & { planted: Uint8Array } {
  const graph = createGraph({ layers: 2, heads: 2, keyValueHeads });
  const names = Array.from({ length: graph.edges }, (_, edge) => {
    const { source, input } = edgeEnds(graph, edge);
    return `${source.name}->${input.name}`;
  });
  const ofGroup = (name: string): string => keyValueHeads === 2 ? name : name.replace(/h\d(\.[kv])$/, "g0$1");
  const chain = CHAIN.map((name) => names.indexOf(ofGroup(name)));
  const direct = names.indexOf(DIRECT);
  const sizes = Float64Array.from({ length: prompts }, (_, n) => 1 + n % 3);
  const metricOf = (kept: Uint8Array): number =>
    (chain.every((edge) => kept[edge]) ? 3 : 0) + (kept[direct] ? 1 : 0);
  const run = (kept: Uint8Array) => Promise.resolve(sizes.map((size) => size * metricOf(kept)));
  const all = new Uint8Array(graph.edges).fill(1);
  const without = (left: (edge: number) => boolean) => all.map((_, edge) => left(edge) ? 0 : 1);
  return {
    planted: Uint8Array.from(names, (name) => [...CHAIN.map(ofGroup), DIRECT].includes(name) ? 1 : 0),
    graph,
    bytes: 1000,
    batch: prompts,
    baselines: () =>
      Promise.resolve({
        clean: sizes.map((size) => 4 * size),
        corrupted: sizes.map((size) => able ? 0 : 4 * size),
        correct: new Float64Array(prompts).fill(able ? 1 : 0.5),
        exact: new Float64Array(prompts).fill(0.25),
      }),
    run,
    runEach: (circuits) => Promise.all(circuits.map(run)),
    attribute: () =>
      Promise.resolve(Array.from(sizes, (size, prompt) => {
        const noise = randomStream(prompt);
        return Float32Array.from(names, (_, edge) =>
          size * (chain.includes(edge) ? 3 : edge === direct ? 1 : 0.01 * noise.normal()));
      })),
    patchNodes: async (direction) => {
      const result = Array.from({ length: prompts }, () => new Float64Array(graph.sources.length));
      for (const [source, { name }] of graph.sources.entries()) {
        const kept = without((edge) => names[edge].startsWith(`${name}->`));
        const metrics = direction === "noising" ? await run(kept) : await run(kept.map((one) => 1 - one));
        metrics.forEach((metric, n) =>
          result[n][source] = direction === "noising" ? 4 * sizes[n] - metric : metric
        );
      }
      return result;
    },
    patchEdges: async (edges) => {
      const result = Array.from({ length: prompts }, () => new Float64Array(edges.length));
      for (const [n, edge] of edges.entries()) {
        const metrics = await run(without((other) => other === edge));
        metrics.forEach((metric, prompt) => result[prompt][n] = 4 * sizes[prompt] - metric);
      }
      return result;
    },
    destroy() {},
  };
}
