/**
 * Sums and maxima over the lanes of a workgroup. On a GPU they are trees in workgroup memory; on a CPU driver a workgroup
 * is one vector, and they are subgroup operations: the driver compiles and runs them several times faster, as nothing
 * waits at a barrier (docs/log.md).
 *
 * @module
 */
import type { Device } from "./device.ts";

/** A function over the lanes: `name(lane, value)` gives every lane the sum or maximum of all lanes' values. */
export interface LaneFunction {
  name: string;
  of: "sum" | "max";
  type: "f32" | "vec2f" | "vec4f" | "ELEMENT";
}

/** Lanes of a CPU driver's vector where they are not known: those of most. */
const USUAL_LANES = 8;

/** Lanes of a workgroup that works on one row together: `wanted` on a GPU, a power of two; a vector on a CPU driver. */
export function lanesOf({ adapter, lanes }: Pick<Device, "adapter" | "lanes">, wanted: number): number {
  return lanes ?? (adapter.software ? USUAL_LANES : wanted);
}

/**
 * WGSL of these functions, for a source with the constant LANES as {@link lanesOf} gives it. To be called in uniform
 * control flow; the order in which a sum is taken is fixed.
 */
export function laneFunctions(
  { lanes }: Pick<Device, "lanes">,
  functions: readonly LaneFunction[],
): string {
  return functions.map(lanes ? bySubgroup : byTree).join("");
}

function bySubgroup({ name, of, type }: LaneFunction): string {
  const operation = of === "sum" ? "subgroupAdd" : "subgroupMax";
  return `fn ${name}(lane: u32, value: ${type}) -> ${type} { return ${operation}(value); }\n`;
}

function byTree({ name, of, type }: LaneFunction): string {
  const joined = of === "sum" ? "a + b" : "max(a, b)";
  return `
var<workgroup> ${name}_partial: array<${type}, LANES>;
fn ${name}(lane: u32, value: ${type}) -> ${type} {
  // What an earlier call left has been read by all.
  workgroupBarrier();
  ${name}_partial[lane] = value;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) {
      let a = ${name}_partial[lane];
      let b = ${name}_partial[lane + half];
      ${name}_partial[lane] = ${joined};
    }
  }
  workgroupBarrier();
  return ${name}_partial[0];
}
`;
}
