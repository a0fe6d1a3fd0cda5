/**
 * Kernels that treat every element alike go over four at a time where they can: on a CPU driver an access costs the same
 * for one float as for four (docs/log.md), on a GPU wide loads are the fast ones.
 *
 * @module
 */

/** How a kernel sees `count` elements: as vectors of four where `multiples` all are multiples of 4, else one by one. */
export function elementwise(count: number, ...multiples: number[]): {
  /** Declares `ELEMENT` and `sum_of(ELEMENT) -> f32`; goes before the kernel's source. */
  alias: string;
  /** Floats to an element. */
  width: 1 | 4;
  /** Elements. */
  elements: number;
} {
  const width = [count, ...multiples].every((extent) => extent % 4 === 0) ? 4 : 1;
  const alias = width === 4
    ? "alias ELEMENT = vec4f;\nfn sum_of(value: ELEMENT) -> f32 { return dot(value, vec4f(1.0)); }\n"
    : "alias ELEMENT = f32;\nfn sum_of(value: ELEMENT) -> f32 { return value; }\n";
  return { alias, width, elements: count / width };
}
