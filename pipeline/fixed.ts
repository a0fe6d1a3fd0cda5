/**
 * Numbers with a fixed number of decimals.
 *
 * @module
 */

/** From here on a number is told by its power of ten: a loss that has run away has more digits than a line holds. */
const MOST = 1e6;

/**
 * A number with so many decimals, a large one as `1.55e17`; a dash where there is none, as of an infinite perplexity,
 * which JSON does not hold.
 */
export function fixed(value: number | null | undefined, digits: number): string {
  if (!Number.isFinite(value)) return "–";
  const number = value as number;
  return Math.abs(number) < MOST ? number.toFixed(digits) : number.toExponential(2).replace("e+", "e");
}
