/**
 * A model of a folder, ready to be looked into: text in, logits and any activation out, and any activation replaced on
 * the way.
 *
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { allOrNothing } from "../kernels/core/all_or_nothing.ts";
import { Gpu } from "../kernels/core/gpu.ts";
import { oneAtATime } from "../kernels/core/one_at_a_time.ts";
import { type Interventions, paddedPositions, prepareInterventions } from "./circuits/interventions.ts";
import { type HeadWeights, readHeadWeights } from "./circuits/head_weights.ts";
import { attributedActivations, attributeLogit, type LogitPart } from "./circuits/logit_attribution.ts";
import { type LensLayer, lensOf } from "./circuits/logit_lens.ts";
import { type OpenEdge, openEdgesOf } from "./circuits/open_edges.ts";
import {
  type PatchAxis,
  patchEach,
  type PatchedPrompt,
  type PatchEffects,
  patchPlaces,
} from "./circuits/patch_each.ts";
import { inputError } from "./errors.ts";
import { exists } from "./files.ts";
import { hubModel } from "./hub/names.ts";
import { activationAxes, type ActivationAxis, noActivation, placesOf } from "./model/activation_names.ts";
import { openWeights } from "./model/load_weights.ts";
import type { ModelConfig } from "./model/config.ts";
import { readModelConfig } from "./model/config_file.ts";
import { hardGates } from "./model/gates.ts";
import { type Network, prepareNetwork } from "./model/network.ts";
import { destroyParameters, loadParameters, type Parameters } from "./model/parameters.ts";
import {
  assertNoTwins,
  assertReplaceable,
  type Patch,
  type Prompt,
  promptList,
  type Replacement,
} from "./model/replacement.ts";
import { assertSelfCheck } from "./model/self_check.ts";
import {
  checkAttribution,
  checkGivenBack,
  checkLens,
  checkLoad,
  checkMeasured,
  checkOpenEdges,
  checkPatchEach,
  checkRun,
  isPairs,
} from "./run_options.ts";
import { oneToken } from "./text/one_token.ts";
import {
  checkOwnTokenizer,
  checkTokenizer,
  loadTokenizer,
  type Tokenizer,
  withStart,
} from "./text/tokenizer.ts";

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

/** Positions of a network that nobody has asked for more of: models of 131,072 would fill the device. */
const MOST_POSITIONS = 1024;
/** Positions of all prompts that are patched at once, and up to which a batch is rounded up. */
const PATCHED_POSITIONS = 512;
/** What the final norm gives. */
const FINAL = "ln_final.hook_normalized";
/** Shapes that stay compiled; a prompt of another number of tokens, rounded up, is another. */
const MOST_SHAPES = 4;

/**
 * Loads a model folder: config.json, safetensors and tokenizer.json, dense or with a `sparse_attention` block.
 *
 * @example Attention, gates and logits of a sparse model, and one head patched from another prompt
 * ```ts
 * import assert from "node:assert/strict";
 * import { likeliest, loadModel } from "../mod.ts";
 *
 * using model = await loadModel("data/addition-sparse");
 * const pattern = "blocks.0.attn.hook_pattern", gates = "blocks.0.attn.hook_gates";
 * const { logits, activations } = await model.run("12+34=", { read: [pattern, gates] });
 *
 * const [answer] = likeliest(logits.values);
 * assert(model.tokenizer.spell(answer.token) === "6");
 * assert(activations.get(gates)!.shape.join() === "1,4,6,6"); // (batch, head, query, key)
 *
 * const patched = await model.run("12+34=", {
 *   patch: [{ activation: "blocks.0.attn.hook_z", head: 1, by: { prompts: "50+21=" } }],
 * });
 * assert(patched.logits.values.length === model.config.vocabularySize);
 * ```
 *
 * @example A function on an activation, as with TransformerLens's hooks
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadModel } from "../mod.ts";
 *
 * using model = await loadModel("data/addition");
 * const { activations } = await model.run(["12+34=", "50+21="], {
 *   hooks: { "blocks.0.mlp.hook_post": (values) => values.map((value) => Math.min(value, 1)) },
 *   read: ["blocks.0.mlp.hook_post"],
 * });
 * assert(activations.get("blocks.0.mlp.hook_post")!.values.every((value) => value <= 1));
 * ```
 *
 * @throws {UserError} naming file and fault where the folder is no model, its weights are damaged or its tokenizer is
 * another model's, and on an option that there is not or of another type than it must be
 * @throws {AdapterError} when there is no adapter
 */
export async function loadModel(folder: string, options: LoadOptions = {}): Promise<LoadedModel> {
  checkLoad(options);
  const { adapterFolder } = options;
  if (hubModel(folder) && !await exists(folder)) {
    throw inputError(
      `Cannot load ${folder} as there is no folder of that name; a model of the Hugging Face hub is brought by ` +
        `fetchModel, which tells its folder`,
    );
  }
  const stored = await readModelConfig(folder, adapterFolder);
  const weights = await openWeights(folder, stored, adapterFolder);
  await weights.verify();
  const tokenizer = await loadTokenizer(options.tokenizer ?? folder, stored);
  checkTokenizer(tokenizer, stored, folder);
  await checkOwnTokenizer(tokenizer, folder);
  const config = options.dense ? { ...stored, gate: undefined } : stored;

  const gpu = options.gpu ?? await Gpu.open({ adapter: options.adapter });
  const closes = options.gpu === undefined;
  try {
    if (closes) await assertSelfCheck(gpu, { workload: { models: [config], interventions: true } });
    return await allOrNothing(async () => {
      const parameters = await loadParameters(gpu, weights.parameters, (name) => weights.read(name));
      const { batch = 1, context = Math.min(config.contextLength, MOST_POSITIONS) } = options;
      const network = await prepareNetwork(gpu, config, { batch, context, training: false });
      network.configureGates(hardGates(config.gate?.bias, batch));
      return modelOf({ folder, config, tokenizer, gpu, closes, parameters, network });
    });
  } catch (error) {
    if (closes) gpu.close();
    throw error;
  }
}

function modelOf(
  parts:
    & Omit<
      LoadedModel,
      | "hooks"
      | "run"
      | "attributeLogits"
      | "logitLens"
      | "openEdges"
      | "patchEach"
      | "headWeights"
      | "destroy"
      | typeof Symbol.dispose
    >
    & { closes: boolean },
): LoadedModel {
  const { closes, ...model } = parts;
  const { config, tokenizer, gpu, parameters, network } = model;
  const hooks = activationAxes(config);
  const places = placesOf(config);
  const compiled = new Map<string, Interventions>();
  const behindOthers = oneAtATime();
  let waiting = 0;
  let destroyed = false;
  const inHook = new AsyncLocalStorage<true>();

  const tokensOf = (prompt: Prompt): number[] =>
    typeof prompt === "string" ? withStart(tokenizer, tokenizer.encode(prompt)) : [...prompt];

  /** Rows that a model is compiled for to run so many prompts, a few more where there is room: few shapes are compiled. */
  function roundedBatch(prompts: number, positions: number): number {
    const rounded = prompts <= 8 ? 2 ** Math.ceil(Math.log2(prompts)) : 8 * Math.ceil(prompts / 8);
    const padded = paddedPositions(positions, config.contextLength);
    return rounded * padded <= PATCHED_POSITIONS ? rounded : prompts;
  }

  /** The model compiled for prompts of this shape; the ones asked for last are kept. */
  async function compiledFor(batch: number, positions: number): Promise<Interventions> {
    const key = `${batch} x ${positions}`;
    const found = compiled.get(key) ?? await prepareInterventions(gpu, model, { batch, positions });
    compiled.delete(key);
    compiled.set(key, found);
    if (compiled.size > MOST_SHAPES) {
      const [oldest, unused] = compiled.entries().next().value!;
      unused.destroy();
      compiled.delete(oldest);
    }
    return found;
  }

  async function runNow(prompts: readonly Prompt[], options: RunOptions): Promise<ModelRun> {
    const { patch = [], hooks: functions = {} } = options;
    const read = options.read === "all" ? [...hooks.keys()] : options.read ?? [];
    for (const name of [...read, ...Object.keys(functions), ...patch.map(({ activation }) => activation)]) {
      if (!hooks.has(name)) throw noActivation(name, hooks.keys());
    }
    for (const name of Object.keys(functions)) assertReplaceable(name);
    assertNoTwins(patch.map(({ activation }) => activation), places);
    const tokens = prompts.map(tokensOf);
    assertTokens(tokens);
    const lengths = tokens.map(({ length }) => length);
    const positions = Math.max(...lengths);
    const { at = [-1] } = options;
    const runs = await compiledFor(roundedBatch(tokens.length, positions), positions);
    const replace = patch.map(({ by, ...rest }): Replacement => {
      if (by === "zero" || "values" in by) return { ...rest, by };
      if ("meanOf" in by) return { ...rest, by: { meanOf: by.meanOf.map(tokensOf) } };
      return { ...rest, by: { prompts: promptList(by.prompts).map(tokensOf) } };
    });
    const shapeOf = (name: string) => [tokens.length, ...runs.names.get(name)!.slice(1)];
    for (const activation of hooks.keys()) {
      if (!Object.hasOwn(functions, activation)) continue;
      const { activations } = await runs.run(tokens, { replace, read: [activation], at: [] });
      const values = activations.get(activation)!;
      const changed = await inHook.run(
        true,
        () => functions[activation](values, shapeOf(activation)),
      );
      checkGivenBack(activation, changed);
      replace.push({ activation, by: { values: changed ?? values } });
    }
    const { logits, activations } = await runs.run(tokens, { replace, read, at });
    return {
      tokens,
      lengths,
      logits: {
        values: logits,
        shape: [tokens.length, at === "all" ? positions : at.length, config.vocabularySize],
      },
      activations: new Map(
        [...activations].map(([name, values]) => [name, { values, shape: shapeOf(name) }]),
      ),
    };
  }

  /** The one token that a text continues a prompt by. */
  function answerOf(answer: string | number): number {
    if (typeof answer === "number") {
      if (Number.isInteger(answer) && answer >= 0 && answer < config.vocabularySize) return answer;
      throw new RangeError(
        `Cannot take the logit of a token as it must be below ${config.vocabularySize}: ${answer}`,
      );
    }
    const found = oneToken(answer, tokenizer);
    if ("token" in found) return found.token;
    const instead = "lost" in found ? `none for ${JSON.stringify(found.lost)}` : found.tokens;
    throw new RangeError(
      `Cannot take the logit of ${JSON.stringify(answer)} as it must be one token: ${instead}`,
    );
  }

  async function attributeNow(prompt: Prompt, options: AttributionOptions): Promise<LogitPart[]> {
    const [answer, wrong] = [options.answer, options.wrong].map((text) =>
      text === undefined ? undefined : answerOf(text)
    );
    const { patch, hooks: functions } = options;
    const { tokens: [{ length }], activations, logits } = await runNow([prompt], {
      patch,
      hooks: functions,
      read: attributedActivations(config),
      at: [options.at ?? -1],
    });
    const position = (length + (options.at ?? -1)) % length;
    const rowOf = (name: string): Float32Array => {
      const { values } = activations.get(name)!;
      return values.subarray(position * values.length / length, (position + 1) * values.length / length);
    };
    const parts = await attributeLogit(gpu, model, rowOf, { answer: answer!, wrong });
    if (patch === undefined && functions === undefined) return parts;
    const given = parts.reduce((sum, { value }) => sum + value, 0);
    const logit = logits.values[answer!] - (wrong === undefined ? 0 : logits.values[wrong]);
    return [...parts, { component: "replaced", value: logit - given }];
  }

  async function lensNow(prompt: Prompt, options: LensOptions): Promise<LensLayer[]> {
    const { top = 5, at = "all", patch = [], hooks: functions = {} } = options;
    const replaced = [...patch.map(({ activation }) => activation), ...Object.keys(functions)];
    const unseen = replaced.find((name) => name === FINAL);
    if (unseen !== undefined) {
      throw new RangeError(`Cannot replace ${unseen} under a lens as it is computed anew for each layer`);
    }
    const tokens = tokensOf(prompt);
    assertTokens([tokens]);
    const read = async (names: readonly string[]) =>
      (await runNow([tokens], { patch, hooks: functions, read: names, at: [] })).activations;
    const runs = await compiledFor(1, tokens.length);
    return await lensOf(runs, { config, spell: tokenizer.spell }, read, {
      top,
      at: at === "all" ? tokens.map((_, position) => position) : at,
    });
  }

  async function openEdgesNow(
    prompt: Prompt,
    { answers = [-1], leastWeight }: OpenEdgesOptions,
  ): Promise<OpenEdge[]> {
    const tokens = tokensOf(prompt);
    assertTokens([tokens]);
    const runs = await compiledFor(1, tokens.length);
    return await openEdgesOf(runs, { config, spell: tokenizer.spell }, tokens, { answers, leastWeight });
  }

  async function patchEachNow(
    prompt: Prompt | readonly PatchPair[],
    options: PatchEachOptions,
  ): Promise<PatchEffects> {
    const { by, activations, each = ["position"], metric, at = -1 } = options;
    for (const name of activations) {
      if (!hooks.has(name)) throw noActivation(name, hooks.keys());
      assertReplaceable(name);
    }
    const pairs = pairsOf(prompt).map((pair, n): PatchedPrompt => {
      const from = by === undefined ? pair.from ?? options.from : undefined;
      const [answer, wrong] = [pair.answer ?? options.answer, pair.wrong ?? options.wrong].map((text) =>
        text === undefined ? undefined : answerOf(text)
      );
      return {
        prompt: tokensOf(pair.prompt),
        from: from === undefined ? undefined : tokensOf(from),
        measure(logits) {
          const value = metric
            ? metric(logits, n)
            : logits[answer!] - (wrong === undefined ? 0 : logits[wrong]);
          checkMeasured(value);
          return value;
        },
      };
    });
    assertTokens(pairs.map(({ prompt }) => prompt));
    const lengths = pairs.map(({ prompt }) => prompt.length);
    const positions = Math.max(...lengths);
    const other = each.includes("position") ? lengths.find((length) => length !== positions) : undefined;
    if (other !== undefined) {
      throw new RangeError(
        `Cannot patch prompts position by position as they must be of one length: ${other} and ${positions} tokens`,
      );
    }
    const task = {
      pairs,
      by: by === undefined || by === "zero" ? by : { meanOf: by.meanOf.map(tokensOf) },
      at,
    };
    const padded = paddedPositions(positions, config.contextLength);
    const runs = await compiledFor(Math.max(2, Math.floor(PATCHED_POSITIONS / padded)), positions);
    return await patchEach(runs, task, patchPlaces(hooks, runs.names, activations, each));
  }

  /** Weights are read beside runs, and by hooks of a run. */
  async function headWeights(layer: number, head: number): Promise<HeadWeights> {
    if (destroyed) throw new RangeError(`Cannot read weights of ${model.folder} as it was destroyed`);
    return await readHeadWeights(gpu, model, layer, head);
  }

  /** What is compiled holds one run at a time. */
  function inTurn<Result>(work: () => Promise<Result>): Promise<Result> {
    if (inHook.getStore()) {
      const error = new RangeError(
        `Cannot run ${model.folder} from a hook of its own run, which waits for the hook: run it before`,
      );
      return Promise.reject(error);
    }
    waiting++;
    return behindOthers(() => {
      if (destroyed) throw new RangeError(`Cannot run ${model.folder} as it was destroyed`);
      return work();
    }).finally(() => waiting--);
  }

  function destroy(): void {
    if (destroyed) return;
    destroyed = true;
    if (waiting === 0) free();
    else void behindOthers(() => Promise.resolve(free()));
  }

  function free(): void {
    for (const runs of compiled.values()) runs.destroy();
    network.destroy();
    destroyParameters(gpu, parameters);
    if (closes) gpu.close();
  }

  return {
    ...model,
    hooks,
    run: (prompts, options = {}) =>
      inTurn(() => {
        checkRun(prompts, options);
        return runNow(promptList(prompts), options);
      }),
    attributeLogits: (prompt, options) =>
      inTurn(() => {
        checkAttribution(prompt, options);
        return attributeNow(prompt, options);
      }),
    logitLens: (prompt, options = {}) =>
      inTurn(() => {
        checkLens(prompt, options);
        return lensNow(prompt, options);
      }),
    openEdges: (prompt, options = {}) =>
      inTurn(() => {
        checkOpenEdges(prompt, options);
        return openEdgesNow(prompt, options);
      }),
    patchEach: (prompt, options) =>
      inTurn(() => {
        checkPatchEach(prompt, options);
        return patchEachNow(prompt, options);
      }),
    headWeights,
    destroy,
    [Symbol.dispose]: destroy,
  };
}

/** One prompt as a list of such as are patched. */
function pairsOf(prompt: Prompt | readonly PatchPair[]): readonly PatchPair[] {
  return isPairs(prompt) ? prompt : [{ prompt: prompt as Prompt }];
}

function assertTokens(prompts: readonly (readonly number[])[]): void {
  if (prompts.length === 0 || prompts.some(({ length }) => length === 0)) {
    throw new RangeError(`Cannot run a prompt as it needs at least one token: none`);
  }
}
