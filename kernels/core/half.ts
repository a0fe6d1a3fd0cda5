/**
 * Storage in half precision. A kernel is written for float32; which of its tensors are stored as f16 is said when it is
 * compiled, and its source is changed so that what it reads is unpacked and what it writes is rounded. Arithmetic and
 * sums stay float32.
 *
 * @module
 */

import { closing, storageElement } from "./wgsl.ts";

const FUNCTIONS = `
fn unpack_half(stored: vec2u) -> vec4f { return vec4f(unpack2x16float(stored.x), unpack2x16float(stored.y)); }
// What float16 cannot hold becomes its largest value, infinity too: packing it is otherwise undefined. What is no number
// stays none, whatever the bound makes of it; it is told by its bits, since WGSL leaves NaN comparisons open.
fn pack_half(value: vec4f) -> vec2u {
  let bounded = clamp(value, vec4f(-65504.0), vec4f(65504.0));
  let packed = vec2u(pack2x16float(bounded.xy), pack2x16float(bounded.zw));
  let magnitude = bitcast<vec4u>(value) & vec4u(0x7fffffffu);
  let nan = select(vec4u(), vec4u(0x7e00u), magnitude > vec4u(0x7f800000u));
  return packed | nan.xz | (nan.yw << vec2u(16u));
}
`;

/**
 * The source with storage variables `names` holding f16. They must be declared as `array<vec4f>`, or as `array<ELEMENT>`
 * with ELEMENT a vec4f, and be read as `name[…]` and written as `name[…] = …;`.
 *
 * @throws {SyntaxError} when one is not declared, or used in another way
 */
export function storeInHalf(source: string, names: readonly string[]): string {
  if (names.length === 0) return source;
  let result = source;
  for (const name of names) result = storeOneInHalf(result, name);
  return FUNCTIONS + result;
}

function storeOneInHalf(source: string, name: string): string {
  const fail = (required: string): never => {
    throw new SyntaxError(`Cannot store ${name} in half precision as it must be ${required}`);
  };
  const { declaration, element } = storageElement(source, name);
  if (element !== "vec4f") fail(`an array of vec4f: ${declaration}`);
  const use = new RegExp(`(?<![\\w.])${name}\\[`, "g");
  let result = "";
  let from = 0;
  for (const match of source.matchAll(use)) {
    const end = closing(source, match.index + match[0].length);
    const place = source.slice(match.index, end);
    if (match.index < from) fail(`indexed by something else than itself: ${place}`);
    const after = /^\s*([-+*/&|^%]?=(?!=))?/.exec(source.slice(end))!;
    result += source.slice(from, match.index);
    if (after[1] === undefined) {
      result += `unpack_half(${place})`;
      from = end;
    } else if (after[1] === "=") {
      const start = end + after[0].length;
      const semicolon = source.indexOf(";", start);
      const assigned = source.slice(start, semicolon).trim();
      if (assigned.search(use) >= 0) fail(`written from other variables: ${assigned}`);
      result += `${place} = pack_half(${assigned})`;
      from = semicolon;
    } else fail(`assigned as a whole: ${place} ${after[1]}`);
  }
  return (result + source.slice(from)).replace(declaration, declaration.replace(/<\w+>$/, "<vec2u>"));
}
