/**
 * A model that reads a text a few tokens at a time: keys and values of what it has read are kept on the device, so that a
 * token more costs one row. The steps are those of the trace, and only attention, rotary and embedded positions run
 * otherwise than in the network.
 *
 * @module
 */
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, type Tensor, within } from "../../kernels/core/tensor.ts";
import { turn } from "../turn.ts";
import type { ModelConfig } from "./config.ts";
import { prepareLogits } from "./head.ts";
import type { HeldShape } from "./held_weights.ts";
import { hardGates } from "./gates.ts";
import type { Roles, Step, Value } from "./op.ts";
import type { Parameters } from "./parameters.ts";
import { headValues } from "./logits.ts";
import { type NetworkShape, planActions } from "./plan.ts";
import { type ActivationHook, type Bindings, prepareSteps } from "./runner.ts";
import { schedule } from "./schedule.ts";
import { stepsOf, trace } from "./trace.ts";

/** How a decoder is made. */
export interface DecoderOptions {
  /** Positions that are read at most; all that the model has where left out. */
  positions?: number;
  /** Positions that there is room for at first; doubled whenever it is used up. */
  room?: number;
  /** How the parameters lie on the device; left out: all as f32. */
  held?: HeldShape;
}

/** A compiled model with the keys and values of what it has read. */
export interface Decoder {
  /** Positions that can be read at most. */
  readonly positions: number;
  /** Positions that have been read. */
  readonly filled: number;
  /**
   * Begins a text, which these parameters read.
   *
   * @param options `gateBias`: b of the gates; left out: dense attention; `hook` sees what each step computes of the tokens
   * that are read together, and may record what changes it; the first of them is at the position of `filled`
   */
  begin(parameters: Parameters, options?: { gateBias?: number; hook?: ActivationHook }): void;
  /**
   * Reads the next tokens.
   *
   * @param signal aborted to end it between two submissions: then another text must be begun
   * @returns the logits [V] of what comes behind the last of them
   * @throws {RangeError} when there are none, more than positions, or one that is not in the vocabulary
   */
  read(tokens: readonly number[], signal?: AbortSignal): Promise<Float32Array>;
  /** Frees what it holds on the device, which is all but the caller's parameters. */
  destroy(): void;
}

/** Rows that are read at once, all but the last token of a text: a power of two between these. */
const ROWS = { fewest: 16, most: 128 };
/** All numbers of rows that are read at once. */
export const ROW_COUNTS: readonly number[] = Array.from(
  { length: Math.log2(ROWS.most) + 1 },
  (_, n) => 2 ** n,
);
/** Positions that there is room for at first. */
const ROOM = 256;

/**
 * Prepares a decoder of one row.
 *
 * @throws {RangeError} when the positions are none, or more than the model has
 */
export function prepareDecoder(
  gpu: Gpu,
  config: ModelConfig,
  options: DecoderOptions = {},
): Promise<Decoder> {
  return allOrNothing(() => prepare(gpu, config, options));
}

async function prepare(
  gpu: Gpu,
  config: ModelConfig,
  { positions = config.contextLength, room = ROOM, held = {} }: DecoderOptions,
): Promise<Decoder> {
  const { keyValueHeads, headSize } = config;
  if (!Number.isInteger(positions) || positions < 1 || positions > config.contextLength) {
    throw new RangeError(
      `Cannot decode ${positions} positions as there must be 1 to the model's ${config.contextLength}`,
    );
  }
  // A layer's keys are bound whole.
  const most = Math.min(positions, Math.floor(gpu.maxBindingBytes / (4 * keyValueHeads * headSize)));
  const single = await prepareRows(gpu, config, { count: 1, positions: most, held, withLogits: true });
  const { head, logits } = single;
  const logitsOf = await prepareLogits(gpu, { head, config }, { rows: 1, stride: logits!.shape[1] });
  const byRows = new Map([[1, single]]);
  let [filled, capacity] = [0, 0];
  let kept: Roles[] = [];
  let text: { parameters: Parameters; gateBias?: number; hook?: ActivationHook } | undefined;

  /** Makes room for so many positions. */
  function reserve(count: number): void {
    if (count <= capacity) return;
    capacity = Math.min(most, Math.max(count, capacity === 0 ? room : 2 * capacity));
    const before = kept;
    kept = single.keeping.map(({ op }, n) =>
      Object.fromEntries(
        Object.entries(op.kept!).map(([role, { shape, half }]) => [
          role,
          gpu.tensor(`${role} of layer ${n}`, [capacity, ...shape], half ? "f16" : "f32"),
        ]),
      )
    );
    if (before.length === 0) return;
    gpu.submit("making room for more positions", (recorder) => {
      before.forEach((roles, n) => {
        for (const [role, tensor] of Object.entries(roles)) recorder.copy(tensor, kept[n][role]);
      });
    });
    freeKept(before);
  }

  function freeKept(of: readonly Roles[]): void {
    for (const roles of of) for (const tensor of Object.values(roles)) destroyTensor(gpu, tensor);
  }

  /** Submits rows of tokens, of which those past `tokens` are read by none, and overwritten by the next. */
  function submit(
    rows: PreparedRows,
    tokens: readonly number[],
    { withLogits }: { withLogits: boolean },
  ): void {
    const { parameters, gateBias, hook } = text!;
    reserve(filled + rows.count);
    const inputs = new Uint32Array(rows.count);
    inputs.set(tokens);
    rows.place(inputs, filled, gateBias);
    const mode = gateBias === undefined ? "dense" : "deterministic";
    gpu.submit("reading tokens", (recorder) => {
      const keptBy = (step: Step): Roles => kept[rows.keeping.indexOf(step)];
      rows.run(recorder, { parameters, keptBy }, mode, hook);
      if (!withLogits) return;
      const matrix = parameters.get(head.name)!;
      logitsOf.record(recorder, { final: rows.final, matrix, logits: logits! });
    });
    filled += tokens.length;
  }

  return {
    positions: most,
    get filled() {
      return filled;
    },

    begin(parameters, options = {}) {
      text = { parameters, ...options };
      filled = 0;
    },

    async read(tokens, signal) {
      if (!text) throw new RangeError("Cannot read tokens as no text was begun");
      if (tokens.length < 1 || filled + tokens.length > most) {
        throw new RangeError(
          `Cannot read ${tokens.length} tokens behind ${filled} as there must be 1 token or more and ${most} positions at most`,
        );
      }
      const unknown = tokens.find((token) => !(token >= 0 && token < config.vocabularySize));
      if (unknown !== undefined) {
        throw new RangeError(
          `Cannot read tokens as the vocabulary has ${config.vocabularySize} entries: token ${unknown}`,
        );
      }
      const left = tokens.slice(0, -1);
      const wanted = Math.min(ROWS.most, Math.max(ROWS.fewest, 2 ** Math.ceil(Math.log2(left.length || 1))));
      while (left.length > 0) {
        const fitting = 2 ** Math.floor(Math.log2(most - filled));
        const count = left.length === 1 ? 1 : Math.min(wanted, fitting);
        let rows = byRows.get(count);
        if (!rows) {
          const size = { count, positions: most, held, withLogits: false };
          rows = await allOrNothing(() => prepareRows(gpu, config, size));
          byRows.set(count, rows);
        }
        submit(rows, left.splice(0, count), { withLogits: false });
        await turn();
        signal?.throwIfAborted();
      }
      submit(single, tokens.slice(-1), { withLogits: true });
      const values = await gpu.read(logits!, 0, config.vocabularySize);
      signal?.throwIfAborted();
      return values;
    },

    destroy() {
      for (const rows of byRows.values()) rows.destroy();
      freeKept(kept);
      byRows.clear();
      kept = [];
      [text, filled, capacity] = [undefined, 0, 0];
    },
  };
}

type PreparedRows = Awaited<ReturnType<typeof prepareRows>>;

/** The steps for so many rows at once, behind what was read before, and room for logits where they are wanted. */
async function prepareRows(
  gpu: Gpu,
  config: ModelConfig,
  { count, positions, held, withLogits }: {
    count: number;
    positions: number;
    held: HeldShape;
    withLogits: boolean;
  },
) {
  const shape: NetworkShape = { batch: 1, context: count, training: false, withLogits, ...held };
  const model = trace(config, { ...shape, cached: positions, maxBindingBytes: gpu.maxBindingBytes });
  const scheduled = schedule(model);
  const plan = planActions(model, scheduled, shape, gpu.maxBindingBytes);
  const runner = await prepareSteps(gpu, scheduled.forward, shape);
  const buffers = plan.buffers.map((bytes, n) =>
    gpu.tensor(`activations ${n} of ${count} rows`, [bytes / 4])
  );
  const tensors = new Map(
    [...plan.tensors].map(([name, { shape, type, buffer }]) =>
      [name, within(buffers[buffer], name, shape, type)] as const
    ),
  );
  const tensorOf = ({ name }: Value): Tensor => tensors.get(name)!;
  return {
    count,
    head: model.head,
    final: tensorOf(model.final.writes.y),
    logits: tensors.get(headValues(model, shape, plan).logits.name),
    /** The steps that keep something, a layer each. */
    keeping: stepsOf(model).filter(({ op }) => op.kept),
    /** Sets what the next submission reads, from which position on, and through which gates. */
    place(tokens: Uint32Array, position: number, gateBias: number | undefined): void {
      const { batchRows: _, ...gates } = hardGates(gateBias, 1);
      for (const op of runner.ops) {
        op.upload?.(tokens);
        op.startAt?.(position);
        op.configureGates?.({ ...gates, edgeWeight: 0 });
      }
    },
    run(
      recorder: Recorder,
      bindings: Omit<Bindings, "tensorOf">,
      mode: "dense" | "deterministic",
      hook: ActivationHook | undefined,
    ): void {
      for (const group of scheduled.forward) {
        runner.run(recorder, group, { tensorOf, ...bindings }, { mode }, hook);
      }
    },
    destroy(): void {
      runner.destroy();
      for (const buffer of buffers) destroyTensor(gpu, buffer);
    },
  };
}
