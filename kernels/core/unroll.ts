/**
 * Loops written out at compile time. WGSL has no unrolling and drivers seldom keep an array indexed by a loop variable
 * in registers (an 8 x 8 matmul tile ran at 12 GFLOP/s as loops and at 19 written out, llvmpipe on two cores), so a
 * source may say
 *
 *     $for i in 0..ROWS {
 *     let a$i = a[row + $i];
 *     $}
 *
 * Loop variables are single letters; the upper bound is excluded and is a number or the name of an integer constant.
 * `$[$i / 4]` and `$[$i % LANES]` are quotient and remainder, worked out here, for parts of names.
 * Lines that only some variants of a kernel have, such as a binding, stand between `$if FLAG {` and `$}`.
 *
 * @module
 */

const OPEN = /^\s*\$for ([a-z]) in (\w+)\.\.(\w+) \{\s*$/;
const CONDITION = /^\s*\$if (\w+) \{\s*$/;
const DIVISION = /\$\[(\w+) ([/%]) (\w+)\]/g;
const CLOSE = /^\s*\$\}\s*$/;

/**
 * The source with every `$for` block written out, and every `$if` block kept or left out.
 *
 * @param constants values of the names that bounds and conditions may use
 * @throws {SyntaxError} on an unknown bound or condition, or an unbalanced block
 */
export function unroll(source: string, constants: Record<string, unknown>): string {
  if (!/\$(for|if)/.test(source)) return source;
  const lines = source.split("\n");
  const bound = (text: string): number => {
    const value = /^\d+$/.test(text) ? Number(text) : constants[text];
    if (typeof value !== "number" || !Number.isInteger(value)) {
      throw new SyntaxError(`Cannot unroll as the bound ${text} must be an integer constant: ${value}`);
    }
    return value;
  };
  let next = 0;
  function block(nested: boolean): string[] {
    const out: string[] = [];
    while (next < lines.length) {
      const line = lines[next++];
      if (CLOSE.test(line)) {
        if (!nested) throw new SyntaxError(`Cannot unroll as line ${next} closes no block`);
        return out;
      }
      const condition = CONDITION.exec(line);
      if (condition) {
        const flag = constants[condition[1]];
        if (typeof flag !== "boolean") {
          throw new SyntaxError(`Cannot unroll as ${condition[1]} must be true or false: ${flag}`);
        }
        const body = block(true);
        if (flag) out.push(...body);
        continue;
      }
      const open = OPEN.exec(line);
      if (!open) {
        out.push(line);
        continue;
      }
      const [, variable, from, to] = open;
      const body = block(true).join("\n");
      for (let i = bound(from); i < bound(to); i++) out.push(body.replaceAll("$" + variable, String(i)));
    }
    if (nested) throw new SyntaxError("Cannot unroll as a $for or $if block is not closed");
    return out;
  }
  return block(false).join("\n").replace(
    DIVISION,
    (_, dividend: string, operator: string, divisor: string) => {
      const [a, b] = [bound(dividend), bound(divisor)];
      return String(operator === "/" ? Math.floor(a / b) : a % b);
    },
  );
}
