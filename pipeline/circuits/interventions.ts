/**
 * Reads and replaces what happens inside a model: the residual stream, queries, keys, values and outputs of heads,
 * attention patterns, gates, MLPs; at chosen heads and positions, for a batch of prompts at once. Running clean prompts
 * with activations of corrupted ones is noising, the other way about denoising.
 *
 * @module
 */
import { oneAtATime } from "../../kernels/core/one_at_a_time.ts";
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import { MASKED, prepareExplicitAttention } from "../../kernels/explicit_attention/op.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, elementsOf, type Tensor } from "../../kernels/core/tensor.ts";
import { IGNORED } from "../../kernels/core/targets.ts";
import {
  EMBEDDINGS,
  isMasked,
  isScale,
  isSquare,
  type Location,
  locationsOf,
  noActivation,
} from "../model/activation_names.ts";
import type { Value } from "../model/op.ts";
import {
  fromStart,
  type Prompts,
  type ReplacedPart,
  replacedParts,
  type Replacement,
  type ReplacementValue,
  span,
} from "../model/replacement.ts";
import { prepareSteps, type StepRunner } from "../model/runner.ts";
import { stepIn } from "../model/trace.ts";
import { hardGates } from "../model/gates.ts";
import { prepareNetwork } from "../model/network.ts";
import { type EmbeddingParts, prepareEmbeddingParts } from "./embedding_parts.ts";
import type { CircuitModel } from "./engine.ts";

/** One attention edge. */
export interface AttentionEdge {
  /** From 0. */
  layer: number;
  /** From 0. */
  head: number;
  /** Position that attends. */
  query: number;
  /** Position that is attended to. */
  key: number;
}

/** What a run gives. */
export interface InterventionResult {
  /** Logits [prompts, positions asked for, V]. */
  logits: Float32Array;
  /** What was read, by name. */
  activations: Map<string, Float32Array>;
}

/** A model compiled for up to B prompts of up to T tokens. */
export interface Interventions {
  /**
   * Names and shapes, for B prompts, of what can be read and replaced: `hook_embed` and, where positions are learned, `hook_pos_embed`
   * [B, T, d] (where they are not, `hook_embed` is `blocks.0.hook_resid_pre`), `blocks.N.hook_resid_pre`, `hook_resid_mid`, `hook_resid_post`
   * (the next block's `hook_resid_pre`), `hook_attn_out`, `hook_mlp_out` [B, T, d], `blocks.N.attn.hook_q`, `hook_z` [B, T, H, D], `hook_k`, `hook_v` [B, T, K, D] (with rotary
   * positions before they are turned, and `hook_rot_q`, `hook_rot_k` after), `hook_attn_scores`,
   * `hook_pattern`, `hook_gate_logits` of a model with gates and `hook_gates` [B, H, T, T] (scores: q · k / √D; pattern: their
   * softmax before the gates; gate logits: score + b; gates: 0 or 1; scores and gate logits are −∞ for keys behind the query), `blocks.N.mlp.hook_pre` and
   * `hook_post` [B, T, F] (`hook_pre_linear` beside it where the MLP is gated), `blocks.N.ln1.hook_normalized` and `ln2`, and
   * `ln_final.hook_normalized` [B, T, d]. Beside each norm's is its `hook_scale` [B, T], what it divides by, which can be read and not replaced.
   */
  readonly names: ReadonlyMap<string, readonly number[]>;
  /**
   * Runs up to B prompts with replacements, in the order in which they are given where they meet, and reads activations as
   * they are after replacement, in their shapes, but for as many prompts as there are. A prompt of fewer than T tokens is
   * filled up behind its end, which nothing before sees: what is read there is 0, of scores and gate logits −∞, and what
   * replaces it stands for nothing.
   *
   * Runs that are asked for together follow one another.
   *
   * @param options.at positions whose logits are wanted, below 0 counted from each prompt's own end, or all T; the last,
   * where left out
   * @throws {RangeError} when a name is unknown, or a head, a position, a prompt or the length of values is not the
   * activation's, on other prompts that are not as long, and on a mean at a position that none of its prompts reaches
   */
  run(prompts: Prompts, options?: {
    replace?: readonly Replacement[];
    read?: readonly string[];
    at?: readonly number[] | "all";
  }): Promise<InterventionResult>;
  /**
   * Logits [B, positions asked for, V] that the final norm and the head make of a residual stream [B, T, d].
   *
   * @throws {RangeError} when it has other sizes, or a position is none of the prompts'
   */
  logitsOfStream(stream: Float32Array, at: readonly number[]): Promise<Float32Array>;
  /** Frees what is held. */
  destroy(): void;
}

/** Closes single gates without renormalising, of a dense model too: a replacement for each query that has one. */
export function closedEdges(edges: readonly AttentionEdge[]): Replacement[] {
  const rows = Map.groupBy(edges, ({ layer, head, query }) => `${layer} ${head} ${query}`);
  return Array.from(rows.values(), (ofRow) => ({
    activation: `blocks.${ofRow[0].layer}.attn.hook_gates`,
    head: ofRow[0].head,
    positions: [ofRow[0].query],
    keys: ofRow.map(({ key }) => key),
    by: "zero",
  }));
}

/**
 * Positions that a model is compiled for: behind a prompt stand positions that none of its own sees. Products of a round
 * number of rows compile in a fraction of the time, and prompts of about one length share what was compiled.
 */
const ROUND = 16;

/** Positions that a model of `contextLength` is compiled for to run prompts of so many tokens. */
export function paddedPositions(positions: number, contextLength: number): number {
  return Math.min(Math.ceil(positions / ROUND) * ROUND, contextLength);
}

/**
 * Compiles the model for up to `batch` prompts of up to `positions` tokens.
 *
 * {@link LoadedModel.run} does so by itself, for prompts of any length.
 *
 * @example The answer's logits with one head's output taken from another prompt
 * ```ts
 * import assert from "node:assert/strict";
 * import { loadModel, prepareInterventions } from "../../mod.ts";
 *
 * using model = await loadModel("data/addition");
 * const runs = await prepareInterventions(model.gpu, model, { batch: 1, positions: 6 });
 * const [clean, other] = ["12+34=", "56+78="].map(model.tokenizer.encode);
 *
 * const { logits } = await runs.run([clean], {
 *   replace: [{ activation: "blocks.0.attn.hook_z", head: 1, by: { prompts: [other] } }],
 * });
 * assert(logits.length === model.config.vocabularySize);
 * runs.destroy();
 * ```
 */
export function prepareInterventions(
  gpu: Gpu,
  model: CircuitModel,
  size: { batch: number; positions: number },
): Promise<Interventions> {
  return allOrNothing(() => prepare(gpu, model, size));
}

async function prepare(
  gpu: Gpu,
  { config, parameters }: CircuitModel,
  { batch, positions }: { batch: number; positions: number },
): Promise<Interventions> {
  const { heads, vocabularySize, contextLength } = config;
  const { keyValueHeads, headSize } = config;
  if (!(Number.isInteger(positions) && positions >= 1 && positions <= contextLength)) {
    throw new RangeError(`Cannot run prompts as the model takes 1 to ${contextLength} tokens: ${positions}`);
  }
  const padded = paddedPositions(positions, contextLength);
  const network = await prepareNetwork(gpu, config, { batch, context: padded, training: false });
  network.configureGates(hardGates(config.gate?.bias, batch));
  const mode = config.gate ? "deterministic" : "dense";
  const locations = locationsOf(network.model, { batch, positions, padded });
  const squares = { batch, heads, keyValueHeads, positions: padded, headSize, gateBias: config.gate?.bias };
  /** What attention reads, by the name of what it gives. */
  const attentions = new Map(
    network.model.branches.filter(({ kind }) => kind === "attention").map((branch) => {
      const { reads, writes } = stepIn(branch, "attention");
      return [writes.y.name, { place: `blocks.${branch.layer}.attn`, qkv: reads.x.name }];
    }),
  );
  const explicit = await prepareExplicitAttention(gpu, squares);
  const square = [batch, heads, padded, padded];
  const [pattern, gates] = ["pattern", "gates"].map((name) => gpu.tensor(`attention ${name}`, square));

  /** The network holds one run. */
  const inTurn = oneAtATime();
  let embeddingParts: EmbeddingParts | undefined;
  let finalNorm: StepRunner | undefined;

  const locate = (name: string): Location => {
    const location = locations.get(name);
    if (!location) throw noActivation(name, locations.keys());
    return location;
  };

  function assertPrompts(prompts: Prompts): void {
    if (prompts.length < 1 || prompts.length > batch) {
      throw new RangeError(`Cannot run prompts as there must be 1 to ${batch}: ${prompts.length}`);
    }
    const other = prompts.findIndex(({ length }) => length < 1 || length > positions);
    if (other >= 0) {
      throw new RangeError(
        `Cannot run prompts as each has 1 to ${positions} tokens: ${
          prompts[other].length
        } of prompt ${other} (from 0)`,
      );
    }
  }

  function tokensOf(prompts: Prompts): Uint32Array {
    assertPrompts(prompts);
    const tokens = new Uint32Array(batch * padded);
    prompts.forEach((prompt, n) => {
      const outside = prompt.find((token) =>
        !(Number.isInteger(token) && token >= 0 && token < vocabularySize)
      );
      if (outside !== undefined) {
        throw new RangeError(`Cannot run a prompt as its tokens must be below ${vocabularySize}: ${outside}`);
      }
      tokens.set(prompt, n * padded);
    });
    return tokens;
  }

  /** Elements of an activation of one prompt. */
  const lengthOf = (activation: string): number => elementsOf(locate(activation).shape.slice(1));

  const readOf = async (activation: string, prompts: Prompts): Promise<Float32Array> =>
    (await runOnce(prompts, [], [activation], [])).activations.get(activation)!;

  /** The mean of an activation over prompts, of one prompt; 0 where none has a position. */
  async function meanOver(activation: string, prompts: Prompts): Promise<Float32Array> {
    if (prompts.length === 0) throw new RangeError(`Cannot take the mean of ${activation} over no prompts`);
    const { length, placeOf } = locate(activation);
    const ofPrompt = lengthOf(activation);
    const reaching = Array.from(
      { length: positions },
      (_, position) => prompts.filter(({ length }) => length > position).length,
    );
    const mean = new Float64Array(ofPrompt);
    for (let first = 0; first < prompts.length; first += batch) {
      // Of longer prompts is seen what these have too: nothing looks ahead.
      const part = prompts.slice(first, first + batch).map((prompt) => prompt.slice(0, positions));
      const values = await readOf(activation, part);
      for (let start = 0; start < values.length; start += length) {
        const { row, position } = placeOf(start / length);
        if (position >= part[row].length) continue;
        for (let n = start; n < start + length; n++) mean[n % ofPrompt] += values[n] / reaching[position];
      }
    }
    return Float32Array.from(mean);
  }

  /** Refuses other prompts that do not reach where they are to stand in. */
  function checkReach(
    { activation, rows, by }: Replacement,
    parts: readonly ReplacedPart[],
    prompts: Prompts,
  ): void {
    if (by === "zero" || "values" in by) return;
    if ("prompts" in by) {
      const others = by.prompts;
      if (others.length !== prompts.length) {
        throw new RangeError(
          `Cannot replace ${activation} by other prompts' as there must be ${prompts.length}: ${others.length}`,
        );
      }
      for (const row of rows ?? prompts.keys()) {
        if (others[row].length === prompts[row].length) continue;
        throw new RangeError(
          `Cannot replace ${activation} by another prompt's as the prompt has ${
            prompts[row].length
          } tokens: ${others[row].length}`,
        );
      }
      return;
    }
    const longest = by.meanOf.reduce((most, { length }) => Math.max(most, length), 0);
    const beyond = by.meanOf.length > 0 ? parts.find(({ position }) => position >= longest) : undefined;
    if (beyond) {
      throw new RangeError(
        `Cannot take the mean of ${activation} at position ${beyond.position} as its prompts have up to ${longest} tokens`,
      );
    }
  }

  /** The values of a replacement of so many prompts in its activation's shape; undefined for zeros. */
  async function valuesOf({ activation, by }: Replacement, count: number): Promise<Float32Array | undefined> {
    if (by === "zero") return undefined;
    const ofPrompt = lengthOf(activation);
    const length = count * ofPrompt;
    if ("values" in by) {
      if (by.values.length === length) return by.values;
      throw new RangeError(
        `Cannot replace ${activation} as it has ${length} elements: ${by.values.length} values`,
      );
    }
    if ("prompts" in by) return await readOf(activation, by.prompts);
    const mean = await meanOver(activation, by.meanOf);
    return Float32Array.from({ length }, (_, n) => mean[n % ofPrompt]);
  }

  /** The values of a replacement on the device; undefined for zeros. */
  async function bring(replacement: Replacement, count: number): Promise<Tensor | undefined> {
    const values = await valuesOf(replacement, count);
    if (!values) return undefined;
    const tensor = gpu.tensor(`values for ${replacement.activation}`, [values.length]);
    const isInfinite = isMasked(replacement.activation);
    gpu.write(tensor, isInfinite ? values.map((value) => Math.max(value, MASKED)) : values);
    return tensor;
  }

  /** A replacement whose values, if it has any, are on the device. */
  interface Prepared {
    hook: string;
    parts: ReplacedPart[];
    values?: Tensor;
  }

  /**
   * Positions of each prompt, of such as are counted from either end; with "all" also those behind its end.
   *
   * @throws {RangeError} on one that a prompt has not
   */
  function rowsAt(at: readonly number[] | "all", lengths: readonly number[]): number[][] {
    const isOneLength = lengths.every((other) => other === lengths[0]);
    return lengths.map((tokens, row) => {
      if (at === "all") return Array.from({ length: positions }, (_, position) => position);
      return fromStart(at, tokens, (position) => {
        const found = isOneLength ? `prompts have ${tokens}` : `prompt ${row} has ${tokens}`;
        throw new RangeError(`Cannot read logits as ${found} tokens: position ${position}`);
      });
    });
  }

  async function runOnce(
    prompts: Prompts,
    replace: readonly Prepared[],
    read: readonly string[],
    at: readonly number[] | "all",
  ): Promise<InterventionResult> {
    const lengths = prompts.map(({ length }) => length);
    const rows = rowsAt(at, lengths);
    const uploaded = tokensOf(prompts);
    network.upload(uploaded, new Uint32Array(batch * padded).fill(IGNORED));
    const replaces = (hook: string): boolean => replace.some((one) => one.hook === hook);
    const isSeen = (name: string): boolean => replaces(name) || read.includes(name);
    const embedding = EMBEDDINGS.some((name) => locations.get(name)?.hook === name && isSeen(name))
      ? embeddingParts ??= await prepareEmbeddingParts(gpu, network.model, { batch, positions: padded })
      : undefined;
    embedding?.upload(uploaded);
    const located = [...new Set(read)].map((name) => ({ name, location: locate(name) }));
    const wanted = located.map((one) => ({
      ...one,
      copy: gpu.tensor(one.name, [prompts.length, ...one.location.shape.slice(1)]),
    }));
    const intervene = (hook: string, tensor: Tensor, recorder: Recorder): void => {
      for (const { parts, values } of replace.filter((one) => one.hook === hook)) {
        for (const { at, from, length } of parts) {
          if (values) recorder.copy(span(values, from, length), tensor, at);
          else recorder.clear(span(tensor, at, length));
        }
      }
      for (
        const { location: { from, runs, length, start }, copy } of wanted.filter((one) =>
          one.location.hook === hook
        )
      ) {
        const count = prompts.length * elementsOf(runs.slice(1));
        const source = from === undefined ? tensor : network.activations.get(from)!;
        for (let run = 0; run < count; run++) {
          recorder.copy(span(source, start(run), length), copy, run * length);
        }
      }
    };
    /** Overwrites what the model begins with where a part of it was replaced. */
    const embedInParts = (recorder: Recorder, sum: Tensor): void => {
      if (!embedding) return;
      embedding.record(recorder, parameters);
      for (const name of EMBEDDINGS) intervene(name, embedding.tensors[name], recorder);
      if (EMBEDDINGS.some(replaces)) embedding.add(recorder, sum);
    };
    /** Overwrites z where what leads to it was replaced. */
    const attendExplicitly = (
      recorder: Recorder,
      { place, qkv }: { place: string; qkv: string },
      z: Tensor,
    ): void => {
      const names = ["attn_scores", "pattern", "gate_logits", "gates"].map((what) => `${place}.hook_${what}`);
      if (!names.some(isSeen)) return;
      const [ofScores, ofPattern, ofLogits, ofGates] = names;
      const tensors = { qkv: network.activations.get(qkv)!, pattern, gates };
      explicit.scores(recorder, { ...tensors, scores: pattern });
      intervene(ofScores, pattern, recorder);
      explicit.pattern(recorder, tensors);
      intervene(ofPattern, pattern, recorder);
      intervene(ofLogits, gates, recorder);
      explicit.open(recorder, tensors);
      intervene(ofGates, gates, recorder);
      if (names.some(replaces)) explicit.mix(recorder, { ...tensors, y: z });
    };
    try {
      gpu.submit("run with interventions", (recorder) =>
        network.forward(recorder, parameters, mode, {
          countEdges: false,
          hook(name, tensor, recorder) {
            const attention = attentions.get(name);
            if (attention) attendExplicitly(recorder, attention, tensor);
            if (name === network.model.embed.writes.y.name) embedInParts(recorder, tensor);
            intervene(name, tensor, recorder);
          },
        }));
      const logits = rows[0].length === 0 ? new Float32Array() : await logitsAt(rows, lengths);
      const activations = new Map<string, Float32Array>();
      for (const { name, location, copy } of wanted) {
        activations.set(name, shownOf(name, await gpu.read(copy), location, lengths));
      }
      return { logits, activations };
    } finally {
      for (const { copy } of wanted) destroyTensor(gpu, copy);
    }
  }

  /** What is told of an activation that was copied: nothing of what is behind a prompt's end. */
  function shownOf(
    name: string,
    values: Float32Array,
    { length, placeOf }: Location,
    lengths: readonly number[],
  ): Float32Array {
    const shown = isScale(name) ? values.map((inverse) => 1 / inverse) : values;
    const isHidden = isMasked(name);
    const nothing = isHidden ? -Infinity : 0;
    for (let start = 0; start < shown.length; start += length) {
      const { row, position } = placeOf(start / length);
      if (position >= lengths[row]) shown.fill(nothing, start, start + length);
      else if (isHidden) {
        for (let key = 0; key < length; key++) {
          if (key > position || shown[start + key] <= MASKED) shown[start + key] = nothing;
        }
      } else if (isSquare(name)) shown.fill(nothing, start + lengths[row], start + length);
    }
    return shown;
  }

  /** Logits of each prompt at its positions, after a forward; 0 behind its end. */
  async function logitsAt(
    at: readonly (readonly number[])[],
    lengths: readonly number[],
  ): Promise<Float32Array> {
    const ofPrompt = at[0].length;
    const logits = new Float32Array(at.length * ofPrompt * vocabularySize);
    for (const [block, { first, count }] of network.blocks.entries()) {
      gpu.submit("logits", (recorder) => network.logits(recorder, parameters, block));
      const values = await gpu.read(network.logitsTensor, 0, count * network.logitsStride);
      for (const [prompt, ofRow] of at.entries()) {
        for (const [n, position] of ofRow.entries()) {
          const row = prompt * padded + position - first;
          if (position >= lengths[prompt] || row < 0 || row >= count) continue;
          const start = row * network.logitsStride;
          const place = (prompt * ofPrompt + n) * vocabularySize;
          logits.set(values.subarray(start, start + vocabularySize), place);
        }
      }
    }
    return logits;
  }

  return {
    names: new Map([...locations].map(([name, { shape }]) => [name, shape])),

    run: (prompts, { replace = [], read = [], at = [-1] } = {}) =>
      inTurn(async () => {
        const prepared: Prepared[] = [];
        /** What stands in for several parts of an activation is brought to the device once. */
        const brought = new Map<ReplacementValue, Map<string, Tensor | undefined>>();
        const lengths = prompts.map(({ length }) => length);
        assertPrompts(prompts);
        try {
          for (const replacement of replace) {
            const { activation, by } = replacement;
            const parts = replacedParts(replacement, locate(activation), lengths);
            checkReach(replacement, parts, prompts);
            const ofValue = brought.get(by) ?? new Map<string, Tensor | undefined>();
            brought.set(by, ofValue);
            if (!ofValue.has(activation)) ofValue.set(activation, await bring(replacement, prompts.length));
            prepared.push({ hook: locate(activation).hook, parts, values: ofValue.get(activation) });
          }
          return await runOnce(prompts, prepared, read, at);
        } finally {
          for (const tensor of [...brought.values()].flatMap((ofValue) => [...ofValue.values()])) {
            if (tensor) destroyTensor(gpu, tensor);
          }
        }
      }),

    logitsOfStream: (stream, at) =>
      inTurn(async () => {
        const { final, config: { width } } = network.model;
        const length = batch * positions * width;
        if (stream.length !== length) {
          throw new RangeError(`Cannot read logits as a stream has ${length} elements: ${stream.length}`);
        }
        const lengths = Array.from({ length: batch }, () => positions);
        const rows = rowsAt(at, lengths);
        const runner = finalNorm ??= await prepareSteps(gpu, [[final]], { training: false });
        const tensorOf = ({ name }: Value): Tensor => network.activations.get(name)!;
        for (let n = 0; n < batch; n++) {
          const ofPrompt = stream.subarray(n * positions * width, (n + 1) * positions * width);
          gpu.write(tensorOf(final.reads.x), ofPrompt, n * padded * width);
        }
        gpu.submit(
          "final norm of a stream",
          (recorder) => runner.run(recorder, [final], { parameters, tensorOf }, { mode }),
        );
        return await logitsAt(rows, lengths);
      }),

    destroy() {
      for (const tensor of [pattern, gates]) destroyTensor(gpu, tensor);
      embeddingParts?.destroy();
      finalNorm?.destroy();
      for (const part of [explicit, network]) part.destroy();
    },
  };
}
