/**
 * The logits of a batch, which are too many to be held at once: in blocks of positions.
 *
 * @module
 */
import type { Value } from "./op.ts";
import type { Model } from "./trace.ts";

/** How logits are held. */
export interface LogitBlocks {
  /** Consecutive positions, starting at multiples of 64 so that slices are aligned. */
  readonly blocks: readonly { first: number; count: number }[];
  /** Elements from one row of logits to the next. */
  readonly logitsStride: number;
}

/**
 * Bytes that one block of logits takes where nobody says how many. Products with the vocabulary want many rows: in blocks of
 * 64 MiB they took 131 of 349 ms of GPT-2's step on an H100. By this most its 8 x 1024 positions make three blocks, whose
 * gradients are 132 tiles of 128 x 128. A half of a binding is 64 MiB where that is all that every adapter has.
 */
const usualLogitsBytes = (maxBindingBytes: number): number => Math.min(576 << 20, maxBindingBytes / 2);

/**
 * Blocks that fit a binding: as few as can be, and of one size but for the last, as a product of few rows fills no device.
 *
 * @param logitsBytes that one block may take; left out: half a binding, or 576 MiB
 */
export function blocksOf(
  { positions, vocabularySize }: { positions: number; vocabularySize: number },
  maxBindingBytes: number,
  logitsBytes: number = usualLogitsBytes(maxBindingBytes),
): LogitBlocks {
  const logitsStride = 4 * Math.ceil(vocabularySize / 4);
  const fitting = Math.floor(Math.min(logitsBytes, maxBindingBytes) / (4 * logitsStride));
  const most = Math.max(64, Math.floor(fitting / 64) * 64);
  const count = fitting >= positions
    ? positions
    : 64 * Math.ceil(positions / Math.ceil(positions / most) / 64);
  const blocks = [];
  for (let first = 0; first < positions; first += count) {
    blocks.push({ first, count: Math.min(count, positions - first) });
  }
  return { blocks, logitsStride };
}

/** What the head computes with beside the final norm: logits of one block, and of a teacher, and its final norm. */
export function headValues(
  { config, final }: Model,
  { half = false }: { half?: boolean },
  { blocks, logitsStride }: LogitBlocks,
): Record<"logits" | "teacherLogits" | "teacherFinal", Value> {
  const logits = [blocks[0].count, logitsStride];
  const [rows] = final.writes.y.shape;
  return {
    logits: { name: "logits", shape: logits },
    teacherLogits: { name: "teacher's logits", shape: logits },
    teacherFinal: { name: "teacher's final norm", shape: [rows, config.width], half },
  };
}
