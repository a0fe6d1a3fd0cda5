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
import { patchEach, type PatchedPrompt, type PatchEffects, patchPlaces } from "./circuits/patch_each.ts";
import { inputError } from "./errors.ts";
import { exists } from "./files.ts";
import { hubModel } from "./hub/names.ts";
import type {
  AttributionOptions,
  LensOptions,
  LoadedModel,
  LoadOptions,
  ModelRun,
  OpenEdgesOptions,
  PatchEachOptions,
  PatchPair,
  RunOptions,
} from "./loaded_model.ts";
import { activationAxes, noActivation, placesOf } from "./model/activation_names.ts";
import { openWeights } from "./model/load_weights.ts";
import { readModelConfig } from "./model/config_file.ts";
import { hardGates } from "./model/gates.ts";
import { prepareNetwork } from "./model/network.ts";
import { destroyParameters, loadParameters } from "./model/parameters.ts";
import {
  assertNoTwins,
  assertReplaceable,
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
import { checkOwnTokenizer, checkTokenizer, loadTokenizer, withStart } from "./text/tokenizer.ts";

/** Positions of a network that nobody has asked for more of: models of 131,072 would fill the device. */
const MOST_POSITIONS = 1024;
/** Positions of all prompts that are patched at once, and up to which a batch is rounded up. */
const PATCHED_POSITIONS = 512;
/** What the final norm gives. */
const FINAL = "ln_final.hook_normalized";
/** Shapes that stay compiled; a prompt of another number of tokens is another. */
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
    return await readHeadWeights(gpu, model, layer, head).catch((error) => {
      throw destroyed ? new RangeError(`Cannot read weights of ${model.folder} as it was destroyed`) : error;
    });
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
