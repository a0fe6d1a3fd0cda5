/**
 * Buffers that several share whose moments do not overlap. A shared buffer holds one thing at a time: WebGPU lets no dispatch
 * read one part of a buffer and write another.
 *
 * @module
 */

/** What needs a buffer, and when. */
export interface Held {
  /** Unique among them. */
  name: string;
  bytes: number;
  /** First and last moment of each time that it holds something. */
  lifetimes: readonly (readonly [number, number])[];
}

/** The largest first, each into the smallest buffer that holds it and is free whenever it is needed, else a new one. */
export function shareBuffers(tensors: readonly Held[]): { buffers: number[]; bufferOf: Map<string, number> } {
  const buffers: { bytes: number; holds: Held[] }[] = [];
  const bufferOf = new Map<string, number>();
  for (const tensor of tensors.toSorted((a, b) => b.bytes - a.bytes)) {
    // Buffers were made largest first, so the last that is free is the smallest.
    let at = buffers.findLastIndex(({ holds }) => !holds.some((other) => overlap(tensor, other)));
    if (at < 0) at = buffers.push({ bytes: tensor.bytes, holds: [] }) - 1;
    buffers[at].holds.push(tensor);
    bufferOf.set(tensor.name, at);
  }
  return { buffers: buffers.map(({ bytes }) => bytes), bufferOf };
}

function overlap(a: Held, b: Held): boolean {
  return a.lifetimes.some(([first, last]) =>
    b.lifetimes.some(([otherFirst, otherLast]) => first <= otherLast && otherFirst <= last)
  );
}
