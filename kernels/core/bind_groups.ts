/**
 * Bind groups, made once for each kernel and set of buffers and textures, and kept until one of these is destroyed: a
 * group keeps them, and nobody can ask for it again once one of them is gone.
 *
 * @module
 */

/** What a group binds. */
export type Resource = GPUBuffer | GPUTexture;

/** The bind groups of a device. */
export class BindGroups {
  readonly #groups = new Map<string, { group: GPUBindGroup; resources: ReadonlySet<Resource> }>();
  /** Keys of the groups that each resource is in. */
  readonly #keys = new WeakMap<Resource, Set<string>>();

  /** Groups that are kept. */
  get size(): number {
    return this.#groups.size;
  }

  /** The group that was added under `key`, if none of its resources was destroyed since. */
  get(key: string): GPUBindGroup | undefined {
    return this.#groups.get(key)?.group;
  }

  /** Keeps a group; `key` tells its kernel and resources from any others. */
  add(key: string, group: GPUBindGroup, resources: Iterable<Resource>): void {
    const entry = { group, resources: new Set(resources) };
    this.#groups.set(key, entry);
    for (const resource of entry.resources) {
      const keys = this.#keys.get(resource);
      if (keys) keys.add(key);
      else this.#keys.set(resource, new Set([key]));
    }
  }

  /** Forgets every group that the resource is in. */
  drop(resource: Resource): void {
    for (const key of this.#keys.get(resource) ?? []) {
      const { resources } = this.#groups.get(key)!;
      this.#groups.delete(key);
      for (const other of resources) this.#keys.get(other)!.delete(key);
    }
  }
}
