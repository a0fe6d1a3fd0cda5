/**
 * The cache of the hub's files, in the layout of the Python package huggingface_hub, so that what either has fetched
 * serves the other:
 *
 *     models--owner--name/refs/main                    the commit that the branch stood at
 *     models--owner--name/blobs/<etag>                 a file's bytes, under their SHA-256 or their git blob's SHA-1
 *     models--owner--name/blobs/<etag>.incomplete      what has come of one
 *     models--owner--name/snapshots/<commit>/<path>    a link to a blob
 *     models--owner--name/.no_exist/<commit>/<path>    an empty file: the commit has no such path
 *     .locks/models--owner--name/<etag>.lock           held by who fetches it
 *
 * @module
 */
import { dirname, join, relative } from "node:path";
import { exists, storing } from "../files.ts";
import { isCommit, type Repository } from "./names.ts";

/** Milliseconds between two tries to have a lock. */
const LOCK_RETRY_MS = 100;
/** Marks a folder that can be made again, for tools that make backups (bford.info/cachedir). */
const CACHE_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n" +
  "# This file is a cache directory tag created by huggingface_hub.\n" +
  "# For information about cache directory tags, see:\n" +
  "#\thttps://bford.info/cachedir/\n";

/** A repository's part of the cache. */
export class CachedRepository {
  /** Its folder. */
  readonly folder: string;
  readonly #cache: string;

  /** @param cache folder of the whole cache */
  constructor(cache: string, { kind, name }: Repository) {
    this.#cache = cache;
    this.folder = join(cache, [`${kind}s`, ...name.split("/")].join("--"));
  }

  /** The commit that a revision stood at when it was last asked for; undefined where it never was. */
  async commitOf(revision: string): Promise<string | undefined> {
    if (isCommit(revision)) return revision;
    const text = await Deno.readTextFile(join(this.folder, "refs", revision)).catch(() => undefined);
    return text !== undefined && isCommit(text.trim()) ? text.trim() : undefined;
  }

  /** Keeps which commit a revision stands at. */
  async keepCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit || await this.commitOf(revision) === commit) return;
    const path = join(this.folder, "refs", revision);
    await storing(path, async () => {
      await Deno.mkdir(dirname(path), { recursive: true });
      const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}.tmp`;
      await Deno.writeTextFile(temporary, commit);
      await Deno.rename(temporary, path);
    });
  }

  /** Folder of a commit's files. */
  snapshot(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  /** Whether a file of a commit is there, whole. */
  async has(commit: string, path: string): Promise<boolean> {
    const info = await Deno.stat(join(this.snapshot(commit), path)).catch(() => undefined);
    return info?.isFile ?? false;
  }

  /** Where a blob lies. */
  blob(etag: string): string {
    return join(this.folder, "blobs", etag);
  }

  /** Makes a blob's folder. */
  async prepare(): Promise<void> {
    const blobs = join(this.folder, "blobs");
    await storing(blobs, () => Deno.mkdir(blobs, { recursive: true }));
    const tag = join(this.#cache, "CACHEDIR.TAG");
    // For backups only: without it nothing is lost.
    await Deno.writeTextFile(tag, CACHE_TAG, { createNew: true }).catch(() => {});
  }

  /** Puts a blob under its path in a commit's folder. Where the system has no links the blob moves there. */
  async link(commit: string, path: string, etag: string): Promise<void> {
    const at = join(this.snapshot(commit), path);
    await storing(at, async () => {
      await Deno.mkdir(dirname(at), { recursive: true });
      if (await exists(at)) return;
      // A link to a blob that was removed.
      await Deno.remove(at).catch(() => {});
      try {
        await Deno.symlink(relative(dirname(at), this.blob(etag)), at);
      } catch (error) {
        // Another process has made it meanwhile.
        if (error instanceof Deno.errors.AlreadyExists) return;
        if (Deno.build.os !== "windows") throw error;
        await Deno.rename(this.blob(etag), at);
      }
    });
  }

  /** Whether it is known that a commit has no file of a path. */
  async isKnownMissing(commit: string, path: string): Promise<boolean> {
    return await exists(join(this.folder, ".no_exist", commit, path));
  }

  /** Keeps that a commit has no file of a path. */
  async keepMissing(commit: string, path: string): Promise<void> {
    const at = join(this.folder, ".no_exist", commit, path);
    await storing(at, async () => {
      await Deno.mkdir(dirname(at), { recursive: true });
      await Deno.writeTextFile(at, "");
    });
  }

  /**
   * Waits until no other process fetches a blob, and keeps others from it.
   *
   * @param onWait called once where another has it
   */
  async lock(
    etag: string,
    { signal, onWait }: { signal?: AbortSignal; onWait?(): void },
  ): Promise<Disposable> {
    const path = join(this.#cache, ".locks", relative(this.#cache, this.folder), `${etag}.lock`);
    const file = await storing(path, async () => {
      await Deno.mkdir(dirname(path), { recursive: true });
      return await Deno.open(path, { create: true, write: true });
    });
    /** Whether it is ours; some network file systems have no locks, and there it is done without. */
    const taken = (): boolean => {
      try {
        return file.tryLockSync(true);
      } catch {
        return true;
      }
    };
    try {
      for (let tries = 0; !taken(); tries++) {
        if (tries === 0) onWait?.();
        signal?.throwIfAborted();
        await new Promise((resolve) => setTimeout(resolve, LOCK_RETRY_MS));
      }
    } catch (error) {
      file.close();
      throw error;
    }
    return {
      // Closing gives the lock back.
      [Symbol.dispose]: () => file.close(),
    };
  }
}
