/**
 * Kernels that treat every element alike go over four at a time where they can: on a CPU driver an access costs the same
 * for one float as for four (docs/log.md), on a GPU wide loads are the fast ones.
 *
 * @module
 */

/** How a kernel sees `count` elements: as vectors of four where `multiples` all are multiples of 4, else one by one. */
export function elementwise(count: number, ...multiples: number[]): {
  /** Declares `ELEMENT`; goes before the kernel's source. */
  alias: string;
  /** Floats to an element. */
  width: 1 | 4;
  /** Elements. */
  elements: number;
} {
  const width = [count, ...multiples].every((extent) => extent % 4 === 0) ? 4 : 1;
  return { alias: `alias ELEMENT = ${width === 4 ? "vec4f" : "f32"};\n`, width, elements: count / width };
}
