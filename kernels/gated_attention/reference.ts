/**
 * Gated attention in float64, as docs/method.md states it: forward, the straight-through gradient, and the noise.
 * Readable and slow; the shaders must agree with it.
 *
 * @module
 */

/** What one call computes. Arrays are laid out as on the device. */
export interface AttentionReferenceInput {
  batch: number;
  /** Query heads H. */
  heads: number;
  /** Key heads K, and as many value heads; query head h reads ⌊h / (H / K)⌋. Left out: H. */
  keyValueHeads?: number;
  /** Positions T. */
  positions: number;
  /** Head size D. */
  headSize: number;
  /** (batch, position, H + 2 K, D): query heads, then key heads, then value heads. */
  qkv: ArrayLike<number>;
  /** Left out: dense attention. */
  gate?: {
    bias: number;
    /** Which gates are open, told their logits; left out: where that is positive. */
    isOpen?(head: number, query: number, key: number, gate: number): boolean;
    temperature: number;
    /** Left out: evaluation, no noise. */
    noise?: { seed: number; step: number; layer: number; firstRow: number };
    saturationBound: number;
    saturationWeight: number;
    /** dObjective/dE times one edge's share of the mean. */
    edgeGradient: number;
    /** Power of 1 + i − j by which an edge's open probability weighs less in E; left out: 0. */
    distancePower?: number;
  };
}

/** murmur3's 32-bit finaliser. */
function mix(word: number): number {
  let h = word >>> 0;
  h ^= h >>> 16;
  h = Math.imul(h, 0x85ebca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The random word of edge (i, j); the same integers as kernels/core/random.wgsl. */
export function randomWord(
  { seed, step, layer, row, i, j }: Record<"seed" | "step" | "layer" | "row" | "i" | "j", number>,
): number {
  let k = 0;
  for (const word of [seed, step, layer, row]) k = mix((k ^ word) + 0x9e3779b9);
  return mix(mix(mix(k + Math.imul(i, 0x9e3779b1)) ^ Math.imul(j, 0x85ebca77)) + k);
}

/** Logistic noise ln u − ln(1 − u), u = (n + 1/2) / 2²⁴ with n the word's upper 24 bits. */
export function logisticNoise(word: number): number {
  const odd = 2 * (word >>> 8) + 1;
  return Math.log(odd) - Math.log(2 ** 25 - odd);
}

const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));

/** Everything about one row (batch, head, query i): l, g, g + noise, mask and softmax for j ≤ i. */
function rowOf(input: AttentionReferenceInput, b: number, head: number, i: number) {
  const { heads, keyValueHeads = heads, positions, headSize, qkv, gate } = input;
  const keyHead = Math.floor(head / (heads / keyValueHeads));
  // The head's query, key and value among the heads of a position.
  const places = [head, heads + keyHead, heads + keyValueHeads + keyHead];
  const at = (t: number, part: number) =>
    ((b * positions + t) * (heads + 2 * keyValueHeads) + places[part]) * headSize;
  const l = new Float64Array(i + 1);
  const noisy = new Float64Array(i + 1);
  const mask = new Uint8Array(i + 1).fill(1);
  for (let j = 0; j <= i; j++) {
    for (let d = 0; d < headSize; d++) l[j] += qkv[at(i, 0) + d] * qkv[at(j, 1) + d];
    l[j] /= Math.sqrt(headSize);
    if (!gate) continue;
    noisy[j] = l[j] + gate.bias;
    if (gate.noise) {
      const { seed, step, layer, firstRow } = gate.noise;
      noisy[j] += logisticNoise(randomWord({ seed, step, layer, row: firstRow + b * heads + head, i, j }));
    }
    mask[j] = (gate.isOpen?.(head, i, j, noisy[j]) ?? noisy[j] > 0) ? 1 : 0;
  }
  const highest = Math.max(...l);
  const total = l.reduce((sum, score) => sum + Math.exp(score - highest), 0);
  const logSumExp = highest + Math.log(total);
  return { l, noisy, mask, softmax: l.map((score) => Math.exp(score - logSumExp)), logSumExp, at };
}

/** What an edge weighs by its distance from 0 on: by that power of 1 + distance, and 1 in the mean over a row's causal edges. */
export function distanceWeights(positions: number, power: number): number[] {
  const weights = Array.from({ length: positions }, (_, distance) => (1 + distance) ** -power);
  const edges = Array.from({ length: positions }, (_, i) => weights.slice(0, i + 1)).flat();
  const mean = edges.reduce((sum, weight) => sum + weight, 0) / edges.length;
  return weights.map((weight) => weight / mean);
}

/** y, log-sum-exp, the four row sums of forward.wgsl, and for every causal edge its mask and g + noise. */
export function attentionReference(input: AttentionReferenceInput) {
  const { batch, heads, positions, headSize, qkv, gate } = input;
  const y = new Float64Array(batch * positions * heads * headSize);
  const logSumExp = new Float64Array(batch * heads * positions);
  const rowSums = new Float64Array(batch * heads * positions * 4);
  const masks: number[] = [];
  const noisyLogits: number[] = [];
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < positions; i++) {
        const row = rowOf(input, b, head, i);
        const rowIndex = (b * heads + head) * positions + i;
        logSumExp[rowIndex] = row.logSumExp;
        for (let j = 0; j <= i; j++) {
          const g = row.l[j] + (gate?.bias ?? 0);
          const excess = gate ? Math.max(Math.abs(g) - gate.saturationBound, 0) : 0;
          const sums = gate ? [sigmoid(g), row.mask[j], excess ** 2, g > 0 ? 1 : 0] : [1, 1, 0, 1];
          sums.forEach((value, n) => rowSums[4 * rowIndex + n] += value);
          masks.push(row.mask[j]);
          noisyLogits.push(row.noisy[j]);
          for (let d = 0; d < headSize; d++) {
            y[((b * positions + i) * heads + head) * headSize + d] += row.mask[j] * row.softmax[j] *
              qkv[row.at(j, 2) + d];
          }
        }
      }
    }
  }
  return { y, logSumExp, rowSums, masks, noisyLogits };
}

/**
 * dqkv (as qkv) for a gradient dy into y, plus the edge objective's own gradient. That of a key or value head is the sum
 * over the query heads that read it.
 *
 *     dl = s [(m + p̃ (1 − p̃)/τg) (dy·v) − dy·y] + edgeGradient [w p (1 − p) + 2 weight relu(|g| − bound) sign(g)]
 *
 * with w the edge's weight by its distance. Without noise the gates are constants and the straight-through term is left out.
 */
export function attentionGradientReference(
  input: AttentionReferenceInput,
  dy: ArrayLike<number>,
): Float64Array {
  const { batch, heads, positions, headSize, qkv, gate } = input;
  const dqkv = new Float64Array(qkv.length);
  const scale = 1 / Math.sqrt(headSize);
  const weights = distanceWeights(positions, gate?.distancePower ?? 0);
  for (let b = 0; b < batch; b++) {
    for (let head = 0; head < heads; head++) {
      for (let i = 0; i < positions; i++) {
        const { l, noisy, mask, softmax, at } = rowOf(input, b, head, i);
        const dyAt = ((b * positions + i) * heads + head) * headSize;
        const dyV = new Float64Array(i + 1);
        let delta = 0;
        for (let j = 0; j <= i; j++) {
          for (let d = 0; d < headSize; d++) dyV[j] += dy[dyAt + d] * qkv[at(j, 2) + d];
          delta += mask[j] * softmax[j] * dyV[j];
        }
        for (let j = 0; j <= i; j++) {
          let slope: number = mask[j];
          let edge = 0;
          if (gate) {
            if (gate.noise) {
              const relaxed = sigmoid(noisy[j] / gate.temperature);
              slope += relaxed * (1 - relaxed) / gate.temperature;
            }
            const g = l[j] + gate.bias;
            const p = sigmoid(g);
            const excess = Math.max(Math.abs(g) - gate.saturationBound, 0);
            edge = gate.edgeGradient *
              (weights[i - j] * p * (1 - p) + gate.saturationWeight * 2 * excess * Math.sign(g));
          }
          const dl = softmax[j] * (slope * dyV[j] - delta) + edge;
          for (let d = 0; d < headSize; d++) {
            dqkv[at(i, 0) + d] += dl * qkv[at(j, 1) + d] * scale;
            dqkv[at(j, 1) + d] += dl * qkv[at(i, 0) + d] * scale;
            dqkv[at(j, 2) + d] += mask[j] * softmax[j] * dy[dyAt + d];
          }
        }
      }
    }
  }
  return dqkv;
}
