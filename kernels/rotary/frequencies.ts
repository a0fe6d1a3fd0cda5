/**
 * The angles of rotary positions, computed on the host: a position of a hundred thousand times a frequency has too few
 * digits left in float32.
 *
 * @module
 */

/** Which frequencies positions turn with. */
export interface RotaryFrequencies {
  /** Frequency i of R/2 is theta^(−2i/R). */
  theta: number;
  /** Elements R of each head that are turned, the first ones; even. */
  rotated: number;
  /** How frequencies are lowered for contexts longer than those of the pretraining. */
  scaling?: RotaryScaling;
}

/**
 * Llama 3's: waves longer than `original / low` positions are stretched by `factor`, those shorter than `original / high`
 * are left, and between the two it changes smoothly.
 */
export interface RotaryScaling {
  type: "llama3";
  factor: number;
  low: number;
  high: number;
  /** Positions of the pretraining. */
  original: number;
}

/** Radians per position (R/2). */
export function inverseFrequencies({ theta, rotated, scaling }: RotaryFrequencies): Float64Array {
  const plain = Float64Array.from({ length: rotated / 2 }, (_, i) => theta ** (-2 * i / rotated));
  if (!scaling) return plain;
  const { factor, low, high, original } = scaling;
  return plain.map((frequency) => {
    const waves = original * frequency / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (waves - low) / (high - low)));
    return (1 - kept) * frequency / factor + kept * frequency;
  });
}

/** Cosines and sines (position, 2, R/2), of positions 0 to `positions` − 1. */
export function rotaryTable(positions: number, frequencies: RotaryFrequencies): Float32Array {
  const inverse = inverseFrequencies(frequencies);
  const half = inverse.length;
  const table = new Float32Array(positions * 2 * half);
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < half; i++) {
      const angle = position * inverse[i];
      table[position * 2 * half + i] = Math.cos(angle);
      table[position * 2 * half + half + i] = Math.sin(angle);
    }
  }
  return table;
}
