/**
 * What a model of a folder can be asked, with its options.
 *
 * @module
 */
import type { Gpu } from "../kernels/core/gpu.ts";
import type { HeadWeights } from "./circuits/head_weights.ts";
import type { LogitPart } from "./circuits/logit_attribution.ts";
import type { LensLayer } from "./circuits/logit_lens.ts";
import type { OpenEdge } from "./circuits/open_edges.ts";
import type { PatchAxis, PatchEffects } from "./circuits/patch_each.ts";
import type { ActivationAxis } from "./model/activation_names.ts";
import type { ModelConfig } from "./model/config.ts";
import type { Network } from "./model/network.ts";
import type { Parameters } from "./model/parameters.ts";
import type { Patch, Prompt } from "./model/replacement.ts";
import type { Tokenizer } from "./text/tokenizer.ts";

/** An array with its axes' sizes, the last axis the fastest. */
export interface Activation {
  /** All elements. */
  values: Float32Array;
  /** Sizes of the axes. */
  shape: readonly number[];
}

/**
 * Sees an activation, and may change it in place or give back another of the same length.
 *
 * @param values in the shape that {@link LoadedModel.hooks} gives the axes of
 */
export type Hook = (
  values: Float32Array,
  shape: readonly number[],
) => Float32Array | void | Promise<Float32Array | void>;

/** What a run changes. */
export interface RunChanges {
  /** Replacements, in the order in which they are given where they meet. */
  patch?: readonly Patch[];
  /**
   * Functions by the name of the activation that they see, patches done. Each costs a run of its own, as it is called
   * with what the hooks before it, in the order of computation, have made of the activation.
   */
  hooks?: Readonly<Record<string, Hook>>;
}

/** What a run reads and changes. */
export interface RunOptions extends RunChanges {
  /** Names of {@link LoadedModel.hooks} to read, as they are after patches and hooks; `"all"` for every one. */
  read?: readonly string[] | "all";
  /** Positions whose logits are wanted, `"all"` or a list, below 0 counted from the end; the last where left out. */
  at?: readonly number[] | "all";
}

/**
 * What a run gives. Of prompts of unequal length the position axes are as long as the longest: behind a prompt's end
 * activations and logits are 0, scores and gate logits −∞.
 */
export interface ModelRun {
  /** Tokens of each prompt. */
  tokens: number[][];
  /** How many they are of each. */
  lengths: number[];
  /** Logits (batch, position asked for, vocabulary). */
  logits: Activation;
  /** What was read, by name. */
  activations: Map<string, Activation>;
}

/** Which logit is taken apart, and of which run. */
export interface AttributionOptions extends RunChanges {
  /** A token, or a text that continues the prompt by one. */
  answer: string | number;
  /** Another, whose logit is taken away: what tells the two apart is attributed. */
  wrong?: string | number;
  /** Position whose logits are meant, below 0 counted from the end; the last where left out. */
  at?: number;
}

/** What a logit lens shows, and of which run. */
export interface LensOptions extends RunChanges {
  /** How many of the likeliest tokens; 5 where left out. */
  top?: number;
  /** Positions, `"all"` or a list, below 0 counted from the end; all where left out. */
  at?: readonly number[] | "all";
}

/** A prompt that is patched beside others, with what of {@link PatchEachOptions} is its own. */
export interface PatchPair {
  /** The prompt. */
  prompt: Prompt;
  /** A prompt of as many tokens, whose activations stand in. */
  from?: Prompt;
  /** As there. */
  answer?: string | number;
  /** As there. */
  wrong?: string | number;
}

/** What is patched, one place after the other. */
export interface PatchEachOptions {
  /** A prompt of as many tokens, whose activations stand in. */
  from?: Prompt;
  /** In its place: zero, or the mean over prompts, at each position over those that reach it. */
  by?: "zero" | { meanOf: readonly Prompt[] };
  /** Names of {@link LoadedModel.hooks}. */
  activations: readonly string[];
  /** Whether by head and by position: each position where left out, and where empty each activation as a whole. */
  each?: readonly PatchAxis[];
  /** A token, or a text that continues the prompt by one, whose logit is looked at. */
  answer?: string | number;
  /** Another, whose logit is taken away. */
  wrong?: string | number;
  /** In the answer's place: a number of the logits [V], told which pair they are of, from 0. */
  metric?(logits: Float32Array, pair: number): number;
  /** Position whose logits are meant, below 0 counted from each prompt's own end; the last where left out. */
  at?: number;
}

/** Which edges are listed, and on the way to which answers. */
export interface OpenEdgesOptions {
  /** Positions whose logits are the answer, below 0 counted from the end; the last where left out. */
  answers?: readonly number[];
  /**
   * Softmax weight, from 0 to 1, below which an edge is not listed; 0 where left out. A model without gates needs it, as all
   * of its causal edges are open.
   */
  leastWeight?: number;
}

/** How a model is loaded. */
export interface LoadOptions {
  /** A device that is open, which stays the caller's; left out, one is opened and checked, and closed with the model. */
  gpu?: Gpu;
  /** Which adapter is opened: a part of its name, or its number; the fastest where left out. */
  adapter?: string;
  /** tokenizer.json or its folder; the model's where left out. */
  tokenizer?: string;
  /** Folder of a low-rank adapter, as peft saves it, which is merged into the weights. */
  adapterFolder?: string;
  /** Ignores the gates of a sparse model. */
  dense?: boolean;
  /** Rows of {@link LoadedModel.network}; 1 where left out. */
  batch?: number;
  /** Positions of {@link LoadedModel.network}; where left out all that the model has, up to 1,024. */
  context?: number;
}

/** A model on the device with its tokenizer. What takes a `config` and `parameters`, takes it. */
export interface LoadedModel extends Disposable {
  /** Folder that it is from. */
  readonly folder: string;
  /** Its sizes; `gate` stands where it is sparse, and its gates are not ignored. */
  readonly config: ModelConfig;
  /** Text to tokens and back. */
  readonly tokenizer: Tokenizer;
  /** The device. */
  readonly gpu: Gpu;
  /** Weights by their Hugging Face names. */
  readonly parameters: Parameters;
  /** The network of `batch` rows of `context` positions, for what records work itself, such as `evaluate`. */
  readonly network: Network;
  /**
   * The axes of everything that {@link LoadedModel.run} can read and, but for a norm's `hook_scale`, replace, by
   * TransformerLens's name, in the order of computation. Patterns are softmax weights before the gates, gates are 0 or 1: an edge's weight is their product.
   */
  readonly hooks: ReadonlyMap<string, readonly ActivationAxis[]>;
  /**
   * Runs one prompt, or several, which may be of different lengths. Before a text comes the token that the model was trained
   * with before every text, `model.tokenizer.startOfText`, where there is one; tokens are run as they are given.
   *
   * @throws {RangeError} on an unknown name, which is told with those that there are, on prompts that are too long, on
   * patches by prompts of other lengths, on patches of one activation under two names (a block's `hook_resid_post` is the `hook_resid_pre`
   * of the next), and on a head, a position or a number of values that the activation has not
   * @throws {UserError} on a character that the vocabulary has no token for, and on what is of another type than it must be
   */
  run(prompts: Prompt | readonly Prompt[], options?: RunOptions): Promise<ModelRun>;
  /**
   * Direct logit attribution: what each component of the model adds to the answer's logit, or to its difference from
   * another's, each norm in between being held to the scale that it has in this run. The values sum to that logit but for
   * rounding. Of a run with patches or hooks the last part, `replaced`, is what of the logit no component gave: 0 but for
   * rounding where what was replaced is a head's or an MLP's own, and otherwise what stands in for attention's output, the
   * residual stream or the final norm's.
   *
   * @throws {RangeError} on an answer that is not one token, and as {@link LoadedModel.run}
   */
  attributeLogits(prompt: Prompt, options: AttributionOptions): Promise<LogitPart[]>;
  /**
   * Logit lens: the likeliest next tokens if the residual stream behind each layer were the last, by layer and position; of
   * a run with patches or hooks the stream that they left. The final norm is computed anew, and cannot be replaced here.
   *
   * @throws {RangeError} on a number of tokens that the vocabulary has not, and as {@link LoadedModel.run}
   */
  logitLens(prompt: Prompt, options?: LensOptions): Promise<LensLayer[]>;
  /**
   * The open attention edges of a prompt by layer, head, query and key: which token looks at which, the softmax weight, and
   * whether values go along the edge to an answer, through open edges and the residual stream. What such paths leave out,
   * {@link tokenCircuit} says.
   *
   * @throws {UserError} of a model without gates, where no least weight is given, and as {@link LoadedModel.run}
   * @throws {RangeError} on an answer at no position of the prompt, and as {@link LoadedModel.run}
   */
  openEdges(prompt: Prompt, options?: OpenEdgesOptions): Promise<OpenEdge[]>;
  /**
   * Activation patching, place by place: what it does to the answer's logit, to its difference from another's or to a metric
   * of one's own, to take one activation at one position or head from another prompt's run, or to put zero or a mean there.
   * Many places are run at once. Of several prompts the means are told, and each by itself; position by position they must
   * have as many tokens each.
   *
   * @throws {RangeError} on prompts of different lengths, on heads where there are none, and as {@link LoadedModel.run} and
   * {@link LoadedModel.attributeLogits}
   */
  patchEach(prompt: Prompt | readonly PatchPair[], options: PatchEachOptions): Promise<PatchEffects>;
  /**
   * The weights of a head, in TransformerLens's shapes, whatever the family.
   *
   * @throws {RangeError} when there is no such layer or head
   */
  headWeights(layer: number, head: number): Promise<HeadWeights>;
  /** Frees all that it holds on the device, and closes a device that was opened for it. A second call does nothing. */
  destroy(): void;
}
