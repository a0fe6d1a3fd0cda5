/**
 * The edge-patched run in float64, and with fractions of edges kept: what the circuit engine must agree with. Readable
 * and slow; each input computes all of its branch from what it alone reads.
 *
 * @module
 */
import type { ModelConfig } from "../../pipeline/model/config.ts";
import type { ReferencePass, Step, Value } from "../../pipeline/model/op.ts";
import {
  referenceModel,
  referenceRoles,
  type ReferenceWeights,
} from "../../pipeline/model/reference_model.ts";
import { type Branch, type Model, stepIn, trace } from "../../pipeline/model/trace.ts";
import { matmulReference } from "../../kernels/matmul/reference.ts";

/** A model's sizes and weights, by the names of its parameters. */
export interface ReferenceModel extends ModelConfig {
  weights: ReferenceWeights;
}

/** How one run is patched. */
export interface ReferencePatch {
  /** What each source writes where its edges are not kept, [source][T · d]. */
  ablated: readonly Float64Array[];
  /** How much of the edge is kept, 0 to 1, by index of the input and of the source in the graph. */
  kept(input: number, source: number): number;
  /** Written for the source in place of what it computes, [T · d]. */
  replaced?: ReadonlyMap<number, Float64Array>;
}

/** One attention edge. */
export interface ReferenceEdge {
  layer: number;
  head: number;
  query: number;
  key: number;
}

/** What each source wrote in a run, and the logits. */
export interface SourcesRun {
  /** What each source wrote, [source][T · d]. */
  outputs: Float64Array[];
  /** [T · V] */
  logits: Float64Array;
}

/** Logits [T · V] of a prompt, all of it as it is. */
export function referenceLogits(
  model: ReferenceModel,
  tokens: ArrayLike<number>,
  isOpen?: ReferencePass["isOpen"],
): Float64Array {
  const traced = trace(model, { batch: 1, context: tokens.length });
  return referenceModel(traced, model.weights, tokens, { gateBias: model.gate?.bias, isOpen }).logits;
}

/** The values of steps, given those that they begin with. */
function run(
  steps: readonly Step[],
  given: readonly (readonly [Value, ArrayLike<number>])[],
  weights: ReferenceWeights,
  pass: ReferencePass,
): Map<Value, ArrayLike<number>> {
  const values = new Map(given);
  for (const step of steps) {
    const roles = referenceRoles(step, (value) => values.get(value)!, weights);
    values.set(step.writes.y, step.op.reference!.forward(roles, pass));
  }
  return values;
}

/**
 * Runs a prompt; with `patch`, every input reads the sum over its sources of what they wrote in this run where the edge
 * is kept, and of their ablated values where it is not. A head whose layer has a norm behind it writes its part of what
 * the norm makes of the layer's sum in this run.
 */
export function referenceRun(
  reference: ReferenceModel,
  tokens: ArrayLike<number>,
  patch?: ReferencePatch,
): SourcesRun {
  const { width, weights, heads, vocabularySize, norm: { epsilon } } = reference;
  const { keyValueHeads, headSize } = reference;
  const length = tokens.length;
  const model: Model = trace(reference, { batch: 1, context: length });
  const pass: ReferencePass = { tokens, gateBias: reference.gate?.bias };
  const outputs: Float64Array[] = [];
  const write = (output: ArrayLike<number>): void => {
    outputs.push(patch?.replaced?.get(outputs.length) ?? Float64Array.from(output));
  };
  /** Of the biases of attention layers, which no head owns, in each version of the residual stream. */
  const always = new Map([[model.embed.writes.y, new Float64Array(width)]]);
  let inputs = 0;
  /** What the next input reads of a version of the stream to which the first `sources` have written. */
  function read(stream: Value, sources: number): Float64Array {
    const input = inputs++;
    const unowned = always.get(stream)!;
    const x = Float64Array.from({ length: length * width }, (_, n) => unowned[n % width]);
    outputs.slice(0, sources).forEach((output, source) => {
      const kept = patch ? patch.kept(input, source) : 1;
      for (let n = 0; n < x.length; n++) {
        x[n] += patch ? kept * output[n] + (1 - kept) * patch.ablated[source][n] : output[n];
      }
    });
    return x;
  }
  /** How many sources had written to a stream. */
  const written = new Map<Value, number>();

  function attention(branch: Branch): void {
    const { stream, steps } = branch;
    const at = (step: Step): number => steps.indexOf(step);
    const [qkv, attend, out] = (["in", "attention", "out"] as const).map((what) => stepIn(branch, what));
    const columns = heads + 2 * keyValueHeads;
    const packed = new Float64Array(length * columns * headSize);
    for (let head = 0; head < columns; head++) {
      const x = read(stream, written.get(stream)!);
      const all = run(steps.slice(0, at(qkv) + 1), [[stream, x]], weights, pass).get(qkv.writes.y)!;
      for (let row = 0; row < length; row++) {
        for (let d = 0; d < headSize; d++) {
          const place = (row * columns + head) * headSize + d;
          packed[place] = all[place];
        }
      }
    }
    const [from, to] = [at(qkv) + 1, at(attend) + 1];
    const z = run(steps.slice(from, to), [[qkv.writes.y, packed]], weights, pass).get(attend.writes.y)!;
    const matrix = Array.from(weights.get(out.parameters.weight.name)!);
    const ofHeads = Array.from({ length: heads }, (_, head) =>
      matmulReference({
        layout: "nn",
        m: length,
        n: width,
        k: headSize,
        a: Float64Array.from(
          { length: length * headSize },
          (_, n) => z[(Math.floor(n / headSize) * heads + head) * headSize + n % headSize],
        ),
        b: matrix.slice(head * headSize * width, (head + 1) * headSize * width),
      }));
    const behind = steps.find(({ op }, n) => op.kind === "norm" && n > at(out));
    const weight = behind && weights.get(behind.parameters.weight.name)!;
    const scales = Array.from({ length }, (_, row) => {
      if (!behind) return 1;
      let squares = 0;
      for (let n = row * width; n < (row + 1) * width; n++) {
        squares += ofHeads.reduce((sum, output) => sum + output[n], 0) ** 2;
      }
      return 1 / Math.sqrt(squares / width + epsilon);
    });
    for (const output of ofHeads) {
      write(output.map((value, n) => value * scales[Math.floor(n / width)] * (weight?.[n % width] ?? 1)));
    }
  }

  write(model.embed.op.reference!.forward(referenceRoles(model.embed, () => [], weights), pass));
  written.set(model.embed.writes.y, 1);
  for (const branch of model.branches) {
    const { kind, stream, steps } = branch;
    const { reads, writes } = stepIn(branch, "add");
    const before = always.get(reads.stream)!;
    if (kind === "attention") {
      attention(branch);
      const bias = weights.get(stepIn(branch, "out").parameters.bias?.name);
      always.set(writes.y, before.map((value, n) => value + (bias?.[n] ?? 0)));
    } else {
      const x = read(stream, written.get(stream)!);
      write(run(steps.slice(0, -1), [[stream, x]], weights, pass).get(reads.x)!);
      always.set(writes.y, before);
    }
    written.set(writes.y, outputs.length);
  }
  const last = model.final.reads.x;
  const final = run([model.final], [[last, read(last, outputs.length)]], weights, pass);
  const [m, n, k] = [length, vocabularySize, width];
  const [a, b] = [final.get(model.final.writes.y)!, weights.get(model.head.name)!];
  return { outputs, logits: matmulReference({ layout: "nt", m, n, k, a, b }) };
}
