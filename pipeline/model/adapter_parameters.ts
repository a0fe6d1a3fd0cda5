/**
 * The parameters of a product's adapters, as its step in the trace has them.
 *
 * @module
 */
import { type LowRank, rankOf } from "../../kernels/matmul/low_rank.ts";
import { type Adapters, scaleOf } from "./adapters.ts";
import type { StoredName } from "./family.ts";
import type { Parameter, Step } from "./op.ts";
import { roleOfUp } from "./ops/linear.ts";

/** A product that may have adapters. */
export interface AdaptedProduct {
  /** Before its name: that of its layer. */
  layer: string;
  /** What files call it, and its parts. */
  stored: StoredName;
  /** Rows of its weight. */
  inputs: number;
  /** Columns of each of its parts. */
  columns: readonly number[];
  /** Which learning rate moves it. */
  group: Parameter["group"];
}

/** The adapters of a product, where it has any: of each tensor that its columns stand in by itself, as in peft. */
export function adaptersOf(
  adapters: Adapters,
  { layer, stored: { name, parts }, inputs, columns, group }: AdaptedProduct,
): { adapters: LowRank[]; parameters: Step["parameters"] } | undefined {
  const whole = columns.reduce((sum, count) => sum + count, 0);
  const widths = parts ? columns : [whole];
  const found = (parts ?? [name]).flatMap((part, n) => {
    const module = `${layer}.${part}`;
    const column = widths.slice(0, n).reduce((sum, count) => sum + count, 0);
    return adapters[module] ? [{ module, column, columns: widths[n], ...adapters[module] }] : [];
  });
  if (found.length === 0) return undefined;
  const matrix = (name: string, shape: readonly number[], initial: Parameter["initial"]): Parameter => ({
    name: `${name}.weight`,
    shape,
    kind: "matrix",
    // As the weights that they stand for.
    group,
    readByProducts: false,
    initial,
    decayFrom: Infinity,
    trainable: true,
    adapter: true,
    stored: "f32",
  });
  // As peft begins: U(−1/√in, 1/√in) and 0, so that nothing is changed at first.
  const down = matrix(`${layer}.${name}.lora_A`, [inputs, rankOf(found)], {
    within: 1 / Math.sqrt(inputs),
  });
  const ups = found.map(({ module, rank, columns }, p) => [
    roleOfUp(p),
    matrix(`${module}.lora_B`, [rank, columns], { all: 0 }),
  ]);
  return {
    adapters: found.map(({ column, columns, ...adapter }) => ({
      column,
      columns,
      rank: adapter.rank,
      scale: scaleOf(adapter),
    })),
    parameters: {
      down: {
        ...down,
        parts: found.map(({ module, rank }) => ({ name: `${module}.lora_A.weight`, columns: rank })),
      },
      ...Object.fromEntries(ups),
    },
  };
}
