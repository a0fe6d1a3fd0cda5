/**
 * Bind groups, made once for each kernel and set of buffers, and kept until one of the buffers is destroyed: a group
 * keeps its buffers, and nobody can ask for it again once one of them is gone.
 *
 * @module
 */

/** The bind groups of a device. */
export class BindGroups {
  readonly #groups = new Map<string, { group: GPUBindGroup; buffers: ReadonlySet<GPUBuffer> }>();
  /** Keys of the groups that each buffer is in. */
  readonly #keys = new WeakMap<GPUBuffer, Set<string>>();

  /** Groups that are kept. */
  get size(): number {
    return this.#groups.size;
  }

  /** The group that was added under `key`, if none of its buffers was destroyed since. */
  get(key: string): GPUBindGroup | undefined {
    return this.#groups.get(key)?.group;
  }

  /** Keeps a group; `key` tells its kernel and buffers from any others. */
  add(key: string, group: GPUBindGroup, buffers: Iterable<GPUBuffer>): void {
    const entry = { group, buffers: new Set(buffers) };
    this.#groups.set(key, entry);
    for (const buffer of entry.buffers) {
      const keys = this.#keys.get(buffer);
      if (keys) keys.add(key);
      else this.#keys.set(buffer, new Set([key]));
    }
  }

  /** Forgets every group that the buffer is in. */
  drop(buffer: GPUBuffer): void {
    for (const key of this.#keys.get(buffer) ?? []) {
      const { buffers } = this.#groups.get(key)!;
      this.#groups.delete(key);
      for (const other of buffers) this.#keys.get(other)!.delete(key);
    }
  }
}
