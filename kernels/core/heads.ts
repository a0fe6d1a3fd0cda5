/**
 * Heads of attention as they stand side by side in a row, and grouped queries: several query heads may share a key head
 * and its value head.
 *
 * @module
 */
import headsSource from "./heads.wgsl" with { type: "text" };

/** The heads of one layer. */
export interface Heads {
  /** Query heads H. */
  heads: number;
  /** Key heads K, and as many value heads; divides H. Query head h reads ⌊h / (H / K)⌋. Left out: H. */
  keyValueHeads?: number;
  /** Head size D. */
  headSize: number;
}

/** What a kernel over heads is compiled from. */
export interface HeadsSource {
  /** K. */
  keyValueHeads: number;
  /** WGSL: ELEMENT, which is vec4f where D is a multiple of 4, its `dot_element`, and heads.wgsl. */
  source: string;
  /** HEADS, KEY_HEADS, QUERIES_PER_KEY, and CHUNKS, the elements of a head. */
  constants: Record<"HEADS" | "KEY_HEADS" | "QUERIES_PER_KEY" | "CHUNKS", number>;
}

/**
 * The source and constants that a kernel over these heads begins with.
 *
 * @param what is prepared, for error messages
 * @param extents other sizes that must be positive integers, by name
 * @throws {RangeError} when an extent is not a positive integer, or K does not divide H
 */
export function headsSourceOf(
  what: string,
  { heads, keyValueHeads = heads, headSize }: Heads,
  extents: Record<string, number>,
): HeadsSource {
  for (const [name, value] of Object.entries({ heads, keyValueHeads, headSize, ...extents })) {
    if (!Number.isInteger(value) || value < 1) {
      throw new RangeError(`Cannot prepare ${what} as ${name} must be a positive integer: ${value}`);
    }
  }
  if (heads % keyValueHeads !== 0) {
    throw new RangeError(
      `Cannot prepare ${what} as keyValueHeads must divide the ${heads} heads: ${keyValueHeads}`,
    );
  }
  const vector = headSize % 4 === 0;
  const element = vector
    ? "alias ELEMENT = vec4f;\nfn dot_element(a: vec4f, b: vec4f) -> f32 { return dot(a, b); }\n"
    : "alias ELEMENT = f32;\nfn dot_element(a: f32, b: f32) -> f32 { return a * b; }\n";
  return {
    keyValueHeads,
    source: element + headsSource,
    constants: {
      HEADS: heads,
      KEY_HEADS: keyValueHeads,
      QUERIES_PER_KEY: heads / keyValueHeads,
      CHUNKS: vector ? headSize / 4 : headSize,
    },
  };
}
