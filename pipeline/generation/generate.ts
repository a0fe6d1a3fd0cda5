/**
 * How a model continues a text: one token after the other, each drawn from what the model makes of all before it.
 *
 * @module
 */
import type { Gpu } from "../../kernels/core/gpu.ts";
import { inputError, usageError } from "../errors.ts";
import type { ModelConfig } from "../model/config.ts";
import { type Decoder, prepareDecoder } from "../model/decoder.ts";
import type { HeldShape } from "../model/held_weights.ts";
import type { Parameters } from "../model/parameters.ts";
import type { ActivationHook } from "../model/runner.ts";
import { type Patch, type Prompt, promptList, type ReplacementValue } from "../model/replacement.ts";
import { check, checkKeys, checkOptions, checkPatches, isObject, KINDS } from "../option_checks.ts";
import { type Tokenizer, withStart } from "../text/tokenizer.ts";
import { GENERATE } from "../settings.ts";
import { createSampler, type SamplingSettings } from "./sampling.ts";
import { type PreparedPatches, preparePatches } from "./patching.ts";
import { prepareSteering, type Steering } from "./steering.ts";
import { createTextStream } from "./text_stream.ts";

/** What generates: a {@link LoadedModel}, or its parts. */
export interface GeneratingModel {
  /** Its sizes; where `gate` stands, its gates are open or closed, without noise. */
  config: ModelConfig;
  /** Its weights. */
  parameters: Parameters;
  /** The device that they are on. */
  gpu: Gpu;
  /** Text to tokens and back. */
  tokenizer: Tokenizer;
  /** How the weights lie on the device; left out: all as f32. */
  held?: HeldShape;
}

/** How a text is continued. */
export interface GenerateOptions extends Partial<SamplingSettings> {
  /** Tokens of the continuation at most; 64 where left out. */
  tokens?: number;
  /** All gates of a sparse model are open. */
  dense?: boolean;
  /**
   * Replacements, as a run of the whole text would make them. Values and activations of other prompts, of as many tokens as
   * the prompt, stand in at the prompt's positions; zero also behind it, unless it is told where. Positions below 0 are
   * counted from the prompt's end. Scores, patterns and gates cannot be replaced here.
   */
  patch?: readonly Patch[];
  /** What is added to activations at every token, of the prompt too, behind what is replaced. */
  steer?: readonly Steering[];
  /** Is given the text as it comes, whole characters of it. */
  onText?(text: string): void;
  /** Is told how many tokens there are of the continuation. */
  onToken?(count: number): void;
  /** Aborted to end it before the next token. */
  signal?: AbortSignal;
  /** Compiled for this model, to be used again, for another text where this one was steered; left out: compiled for this text. */
  decoder?: Decoder;
}

/** How a model continues a text. */
export interface Continuation {
  /** Tokens of the prompt. */
  prompt: number[];
  /** Those behind it, without the one that ends a text. */
  tokens: number[];
  /** What they spell. */
  text: string;
  /** What ended it: as many tokens as were asked for, the end of the text, or that of the model's positions. */
  ended: "tokens" | "end of text" | "positions";
}

/** What a text is continued with. */
const OPTIONS = {
  tokens: KINDS.number,
  dense: KINDS.flag,
  temperature: KINDS.number,
  topP: KINDS.number,
  seed: KINDS.number,
  patch: KINDS.array,
  steer: KINDS.array,
  onText: KINDS.function,
  onToken: KINDS.function,
  signal: ["an AbortSignal", (value: unknown) => value instanceof AbortSignal],
  decoder: KINDS.object,
} as const;

/** Refuses options that there are not, and what is of another type than it must be. */
function checkGeneration(options: unknown): void {
  const doing = "continue a text";
  if (isObject(options) && options.hooks !== undefined) {
    throw usageError(
      "Cannot continue a text with `hooks` as they see all positions at once, and here a token is read by itself: replace by " +
        "`patch`, or add by `steer`",
    );
  }
  checkOptions("the options of a continuation", options, OPTIONS, doing);
  checkPatches(options.patch, doing);
  for (const [n, one] of Object.entries(options.steer ?? [])) {
    checkKeys(`steer[${n}]`, one, ["activation", "add"], doing);
    check(`\`activation\` of steer[${n}]`, one.activation, KINDS.name, doing);
    check(`\`add\` of steer[${n}]`, one.add, KINDS.values, doing);
  }
}

/** Positions that a decoder is made for are a multiple of this, where the model has so many. */
const STEP = 128;

/**
 * The tokens of a prompt, checked to have room in a model. A text gets the token that the model was trained with before
 * every text, where there is one.
 *
 * @throws {UserError} when there are none, one is not in the vocabulary, or they are more than positions
 */
export function promptTokens(
  prompt: string | readonly number[],
  { config, tokenizer }: Pick<GeneratingModel, "config" | "tokenizer">,
  positions: number = config.contextLength,
): number[] {
  const own = typeof prompt === "string" ? tokenizer.encode(prompt) : prompt;
  const tokens = typeof prompt === "string" ? withStart(tokenizer, own) : [...own];
  if (own.length === 0) throw inputError("Cannot continue an empty prompt: at least one token is needed");
  const { vocabularySize } = config;
  const unknown = tokens.find((token) => !(Number.isInteger(token) && token >= 0 && token < vocabularySize));
  if (unknown !== undefined) {
    throw inputError(
      `Cannot continue the prompt as the model's vocabulary has ${vocabularySize} entries: token ${unknown}`,
    );
  }
  if (tokens.length > positions) {
    throw inputError(
      `Cannot continue a prompt of ${tokens.length} tokens as the model's positions end at ${positions}: shorten it`,
    );
  }
  return tokens;
}

/** A replacement's value with prompts as tokens. */
function asTokens(by: Patch["by"], model: GeneratingModel): ReplacementValue {
  if (by === "zero" || "values" in by) return by;
  const tokensOf = (prompts: readonly Prompt[]) => prompts.map((prompt) => promptTokens(prompt, model));
  return "meanOf" in by ? { meanOf: tokensOf(by.meanOf) } : { prompts: tokensOf(promptList(by.prompts)) };
}

/**
 * Continues a text. Greedy where no temperature is given. It ends behind so many tokens, before a token that ends a
 * text, or where the model has no position for another.
 *
 * @example The answer of the addition model, and another text from a seed
 * ```ts
 * import assert from "node:assert/strict";
 * import { generate, loadModel } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition-sparse");
 * const { text, tokens, ended } = await generate(model, "12+34=", { tokens: 2 });
 * assert(text === "64" && tokens.length === 2 && ended === "tokens"); // 46, the last digit first
 *
 * let streamed = "";
 * const drawn = await generate(model, "12+34=", {
 *   temperature: 0.8,
 *   topP: 0.9,
 *   seed: 7,
 *   onText: (text) => streamed += text,
 * });
 * assert(drawn.text === streamed);
 * ```
 *
 * @param prompt text, which gets the token that the model was trained with before every text, or tokens as they are
 * @throws {UserError} as {@link promptTokens}, and on an option that there is not or of another type than it must be
 * @throws {RangeError} when the number of tokens is none from 1, or as {@link createSampler}, {@link preparePatches} and {@link prepareSteering}
 */
export async function generate(
  model: GeneratingModel,
  prompt: string | readonly number[],
  options: GenerateOptions = {},
): Promise<Continuation> {
  checkGeneration(options);
  const { gpu, config, parameters, tokenizer, held } = model;
  const { tokens: most = GENERATE.tokens.value, temperature = 0, topP = 1, seed = 1, dense = false } =
    options;
  const { patch = [], steer = [], onText, onToken, signal } = options;
  if (!Number.isSafeInteger(most) || most < 1) {
    throw new RangeError(`Cannot generate tokens as their number must be a whole one from 1: ${most}`);
  }
  const choose = createSampler({ temperature, topP, seed });
  const read = promptTokens(prompt, model);
  // The last token is drawn, and read no more.
  const wanted = STEP * Math.ceil((read.length + most - 1) / STEP);
  const replacements = patch.map(({ by, ...rest }) => ({ ...rest, by: asTokens(by, model) }));
  const steering = steer.length > 0 ? await prepareSteering(gpu, config, steer) : undefined;
  const decoder = options.decoder ??
    await prepareDecoder(gpu, config, { positions: Math.min(config.contextLength, wanted), held })
      .catch((error) => {
        steering?.destroy();
        throw error;
      });
  const ends = new Set([...tokenizer.endsOfText, config.endOfText]);
  const stream = createTextStream(tokenizer, read);
  const tokens: number[] = [];
  let text = "";
  let ended: Continuation["ended"] = "tokens";
  let patches: PreparedPatches | undefined;
  const tell = (more: string): void => {
    text += more;
    if (more !== "") onText?.(more);
  };
  try {
    promptTokens(read, model, decoder.positions);
    const gateBias = dense ? undefined : config.gate?.bias;
    patches = replacements.length > 0
      ? await preparePatches(model, decoder, read, replacements, { gateBias, signal })
      : undefined;
    const hooks = [patches, steering].flatMap((one) => one ? [one.hook] : []);
    const hook: ActivationHook | undefined = hooks.length > 0
      ? (...activation) => hooks.forEach((hook) => hook(...activation))
      : undefined;
    decoder.begin(parameters, { gateBias, hook });
    let logits = await decoder.read(read, signal);
    while (true) {
      const token = choose(logits);
      if (ends.has(token)) {
        ended = "end of text";
        break;
      }
      tokens.push(token);
      tell(stream.push(token));
      onToken?.(tokens.length);
      if (tokens.length === most) break;
      if (decoder.filled === decoder.positions) {
        ended = "positions";
        break;
      }
      logits = await decoder.read([token], signal);
    }
    tell(stream.end());
  } finally {
    if (!options.decoder) decoder.destroy();
    patches?.destroy();
    steering?.destroy();
  }
  return { prompt: read, tokens, text, ended };
}
