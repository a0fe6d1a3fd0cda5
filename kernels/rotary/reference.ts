/**
 * Rotary positions in float64.
 *
 * @module
 */

/** The shape of x (batch, position, (H + 2 K) · D), and what turns in it. */
export interface RotaryReferenceShape {
  positions: number;
  heads: number;
  keyValueHeads: number;
  headSize: number;
  /** Of each head. */
  rotated: number;
  theta: number;
  /** Llama 3's. */
  scaling?: { factor: number; low: number; high: number; original: number };
  /** The position of the first of each row, 0 when left out. */
  start?: number;
}

/** y = x cos(angle) + rotateHalf(x) sin(angle) for queries and keys, rotateHalf(x) being [−x₂, x₁] of the two halves. */
export function rotaryReference(x: ArrayLike<number>, shape: RotaryReferenceShape): Float64Array {
  return turned(x, shape, 1);
}

/** dx for a gradient dy into y: what was turned is turned back. */
export function rotaryGradientReference(dy: ArrayLike<number>, shape: RotaryReferenceShape): Float64Array {
  return turned(dy, shape, -1);
}

/** Radians per position. */
export function rotaryFrequencyReference(
  i: number,
  { theta, rotated, scaling }: Pick<RotaryReferenceShape, "theta" | "rotated" | "scaling">,
): number {
  const frequency = 1 / Math.pow(theta, 2 * i / rotated);
  if (!scaling) return frequency;
  const { factor, low, high, original } = scaling;
  const wavelength = 2 * Math.PI / frequency;
  if (wavelength > original / low) return frequency / factor;
  if (wavelength < original / high) return frequency;
  const smooth = (original / wavelength - low) / (high - low);
  return (1 - smooth) * frequency / factor + smooth * frequency;
}

function turned(x: ArrayLike<number>, shape: RotaryReferenceShape, direction: 1 | -1): Float64Array {
  const { positions, heads, keyValueHeads, headSize, rotated, start = 0 } = shape;
  const y = Float64Array.from(x);
  const columns = (heads + 2 * keyValueHeads) * headSize;
  for (let row = 0; row < x.length / columns; row++) {
    const position = start + row % positions;
    for (let head = 0; head < heads + keyValueHeads; head++) {
      for (let i = 0; i < rotated / 2; i++) {
        const angle = direction * position * rotaryFrequencyReference(i, shape);
        const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
        const first = row * columns + head * headSize + i;
        const second = first + rotated / 2;
        y[first] = x[first] * cosine - x[second] * sine;
        y[second] = x[second] * cosine + x[first] * sine;
      }
    }
  }
  return y;
}
