/**
 * The edge-patched run in float64, and with fractions of edges kept: what the engine must agree with. Readable and slow.
 *
 * @module
 */

/** A GPT-2's sizes and weights, by the names of its parameters. */
export interface ReferenceModel {
  vocabularySize: number;
  width: number;
  layers: number;
  heads: number;
  mlpWidth: number;
  layerNormEpsilon: number;
  /** Hard gates open where score + bias > 0; left out: dense attention. */
  gateBias?: number;
  weights: ReadonlyMap<string, ArrayLike<number>>;
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

/** What a run gives. */
export interface ReferenceRun {
  /** What each source wrote, [source][T · d]. */
  outputs: Float64Array[];
  /** [T · V] */
  logits: Float64Array;
}

function layerNorm(x: Float64Array, weight: ArrayLike<number>, bias: ArrayLike<number>, epsilon: number) {
  const width = weight.length;
  const y = new Float64Array(x.length);
  for (let at = 0; at < x.length; at += width) {
    const row = x.subarray(at, at + width);
    const mean = row.reduce((a, b) => a + b, 0) / width;
    const variance = row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / width;
    const inverse = 1 / Math.sqrt(variance + epsilon);
    for (let n = 0; n < width; n++) y[at + n] = (row[n] - mean) * inverse * weight[n] + bias[n];
  }
  return y;
}

/** Columns `first` to `first + count` of x W + b, for x [rows, inputs] and W [inputs, outputs]. */
function linear(
  x: Float64Array,
  weight: ArrayLike<number>,
  bias: ArrayLike<number>,
  inputs: number,
  first = 0,
  count = bias.length,
): Float64Array {
  const rows = x.length / inputs;
  const y = new Float64Array(rows * count);
  for (let row = 0; row < rows; row++) {
    for (let n = 0; n < count; n++) {
      let sum = bias[first + n];
      for (let k = 0; k < inputs; k++) sum += x[row * inputs + k] * weight[k * bias.length + first + n];
      y[row * count + n] = sum;
    }
  }
  return y;
}

const gelu = (x: number): number =>
  0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));

/** Gated attention of one head from its q, k and v [T, D]: the softmax runs over all causal keys, open or not. */
function attention(
  q: Float64Array,
  k: Float64Array,
  v: Float64Array,
  size: number,
  isOpen: (query: number, key: number, score: number) => boolean,
) {
  const length = q.length / size;
  const z = new Float64Array(q.length);
  for (let i = 0; i < length; i++) {
    const scores: number[] = [];
    for (let j = 0; j <= i; j++) {
      let dot = 0;
      for (let d = 0; d < size; d++) dot += q[i * size + d] * k[j * size + d];
      scores.push(dot / Math.sqrt(size));
    }
    const highest = Math.max(...scores);
    const total = scores.reduce((sum, score) => sum + Math.exp(score - highest), 0);
    scores.forEach((score, j) => {
      if (!isOpen(i, j, score)) return;
      const weight = Math.exp(score - highest) / total;
      for (let d = 0; d < size; d++) z[i * size + d] += weight * v[j * size + d];
    });
  }
  return z;
}

/**
 * Runs a prompt; with `patch`, every input reads the sum over its sources of what they wrote in this run where the edge
 * is kept, and of their ablated values where it is not.
 *
 * @param isOpen which edges are open, told their gate logits (∞ in dense attention); left out: where that is positive
 */
export function referenceRun(
  model: ReferenceModel,
  tokens: ArrayLike<number>,
  patch?: ReferencePatch,
  isOpen: (edge: ReferenceEdge, gate: number) => boolean = (_, gate) => gate > 0,
): ReferenceRun {
  const { vocabularySize, width, layers, heads, mlpWidth, layerNormEpsilon, gateBias } = model;
  const get = (name: string): ArrayLike<number> => model.weights.get(name)!;
  const length = tokens.length;
  const size = width / heads;
  const outputs: Float64Array[] = [];
  const write = (output: Float64Array): void => {
    outputs.push(patch?.replaced?.get(outputs.length) ?? output);
  };
  /** Of the biases of the attention layers' output, which no head owns. */
  const always = new Float64Array(width);
  let inputs = 0;
  function read(): Float64Array {
    const input = inputs++;
    const x = Float64Array.from({ length: length * width }, (_, n) => always[n % width]);
    outputs.forEach((output, source) => {
      const kept = patch ? patch.kept(input, source) : 1;
      for (let n = 0; n < x.length; n++) {
        x[n] += patch ? kept * output[n] + (1 - kept) * patch.ablated[source][n] : output[n];
      }
    });
    return x;
  }

  const [wte, wpe] = [get("wte.weight"), get("wpe.weight")];
  write(
    Float64Array.from({ length: length * width }, (_, n) => {
      const position = Math.floor(n / width);
      return wte[tokens[position] * width + n % width] + wpe[n];
    }),
  );
  for (let layer = 0; layer < layers; layer++) {
    const h = `h.${layer}`;
    const norm = (name: string) =>
      layerNorm(read(), get(`${h}.${name}.weight`), get(`${h}.${name}.bias`), layerNormEpsilon);
    const [weight, bias] = [get(`${h}.attn.c_attn.weight`), get(`${h}.attn.c_attn.bias`)];
    const parts = [0, 1, 2].map((part) =>
      Array.from(
        { length: heads },
        (_, head) => linear(norm("ln_1"), weight, bias, width, part * width + head * size, size),
      )
    );
    const projection = get(`${h}.attn.c_proj.weight`);
    const ofHeads = parts[0].map((_, head) => {
      const [q, k, v] = parts.map((part) => part[head]);
      const z = attention(
        q,
        k,
        v,
        size,
        (query, key, score) => isOpen({ layer, head, query, key }, score + (gateBias ?? Infinity)),
      );
      const rowsOfHead = Float64Array.from(
        { length: size * width },
        (_, n) => projection[head * size * width + n],
      );
      return linear(z, rowsOfHead, new Float64Array(width), size);
    });
    ofHeads.forEach(write);
    const projectionBias = get(`${h}.attn.c_proj.bias`);
    always.forEach((_, n) => always[n] += projectionBias[n]);
    const pre = linear(norm("ln_2"), get(`${h}.mlp.c_fc.weight`), get(`${h}.mlp.c_fc.bias`), width);
    write(linear(pre.map(gelu), get(`${h}.mlp.c_proj.weight`), get(`${h}.mlp.c_proj.bias`), mlpWidth));
  }
  const final = layerNorm(read(), get("ln_f.weight"), get("ln_f.bias"), layerNormEpsilon);
  const logits = new Float64Array(length * vocabularySize);
  for (let position = 0; position < length; position++) {
    for (let token = 0; token < vocabularySize; token++) {
      let sum = 0;
      for (let n = 0; n < width; n++) sum += final[position * width + n] * wte[token * width + n];
      logits[position * vocabularySize + token] = sum;
    }
  }
  return { outputs, logits };
}
