/**
 * What a model is: its sizes, and the choices by which it is built.
 *
 * @module
 */
/** The sizes of a model, and the choices by which it is built, which do not depend on each other. */
export interface ModelConfig {
  /** `model_type` of config.json: which names, and which fields, its files have. */
  family: string;
  /** V. */
  vocabularySize: number;
  /** Positions that it has, or was trained for. */
  contextLength: number;
  /** d. */
  width: number;
  /** L. */
  layers: number;
  /** H, of each layer. */
  heads: number;
  /** K, a divisor of the heads: query head h reads key and value head ⌊h · K / H⌋. */
  keyValueHeads: number;
  /** D. */
  headSize: number;
  /** F, the width inside the MLP. */
  mlpWidth: number;
  /** What normalises what a branch reads or writes. */
  norm: {
    kind: "layer" | "rms";
    /** Parameters: a weight and a bias, a weight, or none. */
    affine: "both" | "weight" | "none";
    /** Added to the variance, in all norms. */
    epsilon: number;
    /** Where a branch has its norm. */
    at: "input" | "output";
  };
  /** Queries and keys have norms, over each head or over all of them. */
  queryKeyNorm?: "head" | "all";
  /** How a position is told. */
  positions: { kind: "learned" } | {
    kind: "rotary";
    theta: number;
    /** Of each head, what turns. */
    share: number;
    /** Llama 3's: wave lengths beyond original / low are stretched by factor, those below original / high are not. */
    scaling?: { factor: number; low: number; high: number; original: number };
  };
  /** What is inside an MLP. */
  mlp: "geluTanh" | "gelu" | "swiglu";
  /** Which products have biases. */
  biases: { qkv: boolean; other: boolean };
  /** Queries, keys and values lie within ± this. */
  clip?: number;
  /** Attention and MLP read the same residual stream. */
  parallel: boolean;
  /** Logits are products with the token embedding. */
  tied: boolean;
  /** Id of the token that ends a text, where config.json names one. */
  endOfText?: number;
  /** Id of the token that begins a text, where config.json names it. */
  startOfText?: number;
  /** How the gates of a sparse model are computed. */
  gate?: { bias: number; temperature: number };
}

/** What tells models of GPT-2's type from each other. */
export type Gpt2Sizes =
  & Pick<ModelConfig, "vocabularySize" | "contextLength" | "width" | "layers" | "heads">
  & Partial<Pick<ModelConfig, "mlpWidth" | "tied" | "endOfText" | "startOfText" | "gate">>
  & { epsilon?: number };

/**
 * A model of GPT-2's type. Left out, `mlpWidth` is 4 d, `epsilon` 1e-5, and `tied` true.
 *
 * @example
 * ```ts
 * import { gpt2Config, parametersOf } from "../../mod.ts";
 *
 * const config = gpt2Config({ vocabularySize: 61, contextLength: 32, width: 16, layers: 2, heads: 2 });
 * console.log(parametersOf(config).map(({ name, shape }) => `${name} ${shape}`));
 * ```
 */
export function gpt2Config({ epsilon = 1e-5, ...sizes }: Gpt2Sizes): ModelConfig {
  const { width, heads } = sizes;
  return {
    family: "gpt2",
    keyValueHeads: heads,
    headSize: width / heads,
    mlpWidth: 4 * width,
    norm: { kind: "layer", affine: "both", epsilon, at: "input" },
    positions: { kind: "learned" },
    mlp: "geluTanh",
    biases: { qkv: true, other: true },
    parallel: false,
    tied: true,
    ...sizes,
  };
}

/** The largest sizes that are taken: far beyond any model, and small enough to count through. */
export const LARGEST = {
  vocabularySize: 2 ** 24,
  contextLength: 2 ** 24,
  width: 2 ** 17,
  layers: 2 ** 12,
  heads: 2 ** 12,
  mlpWidth: 2 ** 20,
} as const;
/** Elements of the largest matrix that can be held as float32: 8 GiB. */
const LARGEST_MATRIX = 2 ** 31;

/** What is wrong with a model's sizes, as half a sentence; undefined when nothing is. */
export function faultOfSizes(config: ModelConfig): string | undefined {
  for (const [name, largest] of Object.entries(LARGEST)) {
    const size = config[name as keyof typeof LARGEST];
    if (size > largest) return `its ${name} must be at most ${largest}: ${size}`;
  }
  const { vocabularySize, contextLength, width, heads, keyValueHeads, headSize, mlpWidth } = config;
  // Queries, keys and values stand side by side in one matrix, and so do the two products of a gated MLP.
  const rows = Math.max(vocabularySize, contextLength, 2 * mlpWidth, (heads + 2 * keyValueHeads) * headSize);
  if (rows * width <= LARGEST_MATRIX) return undefined;
  return `a matrix of it must have at most ${LARGEST_MATRIX} elements: ${rows} × ${width}`;
}

/** Why weights cannot be stored in less than float32, which is read and written by fours; undefined where they can. */
export function faultOfFours({ width, headSize, mlpWidth }: ModelConfig): string | undefined {
  if ([width, headSize, mlpWidth].every((size) => size % 4 === 0)) return undefined;
  return `width, head size and MLP width must be multiples of 4: ${width}, ${headSize}, ${mlpWidth}`;
}

/** Why a model cannot be stored as f16, in vectors of four elements, as half a sentence; undefined where it can. */
export function faultOfHalf(config: ModelConfig): string | undefined {
  const fault = faultOfFours(config);
  if (fault) return fault;
  const { headSize, positions } = config;
  // A vector's elements are turned with those of another, half of what is turned further on.
  const turned = positions.kind === "rotary" ? Math.floor(positions.share * headSize) : 0;
  return turned % 8 === 0 ? undefined : `what turns of each head must be a multiple of 8: ${turned}`;
}

/** Whether it is a number that float32 holds: JSON's 1e999 is none. */
export function isFloat(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(Math.fround(value));
}
