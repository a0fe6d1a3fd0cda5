/**
 * Shards: safetensors files of a bounded size, each whole by itself. One is in memory at a time.
 *
 * safetensors, since numpy, torch and JAX each read a file of it by one call, in the type and the shape in which it was
 * written, and map it into memory; Arrow has lists of lists where these have axes.
 *
 * @module
 */
import { elementsOf } from "../../kernels/core/tensor.ts";
import { join } from "node:path";
import { type WritableIntegers, type WritableTensor, writeSafetensors } from "../model/safetensors.ts";
import type { Split } from "../text/tokenise.ts";
import type { ReadRow } from "./read_rows.ts";
import { byQuery, EDGE_PARTS, openEdges, type StoredForm } from "./stored_form.ts";

/** A file that was written. */
export interface Shard {
  /** Name in the folder. */
  file: string;
  split: Split | "documents";
  tokens: number;
  /** Bytes of its tensors. */
  bytes: number;
}

/** Writes rows to a folder. */
export interface ShardWriter {
  /** Takes a row, and writes a file when that is full. */
  add(row: ReadRow): Promise<void>;
  /** Writes what is left. */
  end(): Promise<void>;
}

/** Bytes of an integer. */
const INTEGER_BYTES = 4;

/** A tensor that grows row by row. */
interface Growing {
  /** Elements behind the first axis. */
  inner: readonly number[];
  isInteger: boolean;
  pieces: (Float32Array | Int32Array)[];
}

/**
 * Begins the shards of a split, or of documents in rows of their own, `SPLIT-000000.safetensors` and so on, with tensors
 * `tokens`, `positions` (in the row of text) and `documents` (place in the data) beside the activations.
 *
 * @param options `shapes`: of the activations as they are computed; `bytes`: of a file, at most, or one row;
 * `metadata`: goes into each; `onShard` is told of each
 */
export function createShards(
  folder: string,
  { split, forms, shapes, type, bytes: most, metadata, onShard }: {
    split: Split | "documents";
    forms: readonly StoredForm[];
    shapes: ReadonlyMap<string, readonly number[]>;
    type: "F32" | "F16";
    bytes: number;
    metadata: Readonly<Record<string, string>>;
    onShard(shard: Shard): void;
  },
): ShardWriter {
  let tensors = new Map<string, Growing>();
  let tokens = 0;
  let bytes = 0;
  let count = 0;
  const bytesOf = ({ isInteger, pieces }: Growing): number =>
    pieces.reduce((sum, { length }) => sum + length, 0) *
    (isInteger ? INTEGER_BYTES : type === "F16" ? 2 : 4);

  /** What a row adds, by tensor. */
  function partsOf(row: ReadRow, first: number): Map<string, Growing> {
    const { positions, tokens: { length: queries } } = row;
    const parts = new Map<string, Growing>();
    const integers = (name: string, piece: Int32Array): void => {
      parts.set(name, { inner: [], isInteger: true, pieces: [piece] });
    };
    for (const { name, kind } of forms) {
      const values = row.activations.get(name)!;
      if (kind === "edges") {
        const edges = openEdges(values, positions, first);
        for (const part of EDGE_PARTS) integers(`${name}.${part}`, edges[part]);
      } else {
        // What is read is a view of a whole batch.
        const piece = kind === "map" ? byQuery(values, positions, queries) : values.slice();
        parts.set(name, { inner: innerOf(kind, shapes.get(name)!), isInteger: false, pieces: [piece] });
      }
    }
    integers("tokens", row.tokens);
    integers("positions", Int32Array.from(row.tokens, (_, position) => position));
    integers("documents", row.documents);
    return parts;
  }

  async function flush(): Promise<void> {
    if (tokens === 0) return;
    const file = `${split}-${String(count++).padStart(6, "0")}.safetensors`;
    await writeSafetensors(
      join(folder, file),
      [...tensors].map(([name, tensor]) => written(name, tensor, type)),
      {
        ...metadata,
        split,
      },
    );
    onShard({ file, split, tokens, bytes });
    tensors = new Map();
    [tokens, bytes] = [0, 0];
  }

  return {
    async add(row) {
      let parts = partsOf(row, tokens);
      const more = [...parts.values()].reduce((sum, part) => sum + bytesOf(part), 0);
      if (tokens > 0 && bytes + more > most) {
        await flush();
        // Edges are counted from the beginning of a file.
        parts = partsOf(row, 0);
      }
      for (const [name, part] of parts) {
        const before = tensors.get(name)?.pieces ?? [];
        before.push(...part.pieces);
        tensors.set(name, { ...part, pieces: before });
      }
      tokens += row.tokens.length;
      bytes += more;
    },
    end: flush,
  };
}

/** Axes behind the token. */
const innerOf = (kind: StoredForm["kind"], shape: readonly number[]): readonly number[] =>
  kind === "map" ? [shape[1], shape[3]] : shape.slice(2);

function written(
  name: string,
  { inner, isInteger, pieces }: Growing,
  type: "F32" | "F16",
): WritableTensor | WritableIntegers {
  const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
  const shape = [length / elementsOf(inner), ...inner];
  const joined = <Values extends Float32Array | Int32Array>(values: Values): Promise<Values> => {
    let at = 0;
    for (const piece of pieces) {
      values.set(piece, at);
      at += piece.length;
    }
    return Promise.resolve(values);
  };
  return isInteger
    ? { name, shape, type: "I32", read: () => joined(new Int32Array(length)) }
    : { name, shape, type, read: () => joined(new Float32Array(length)) };
}
