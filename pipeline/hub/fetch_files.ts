/**
 * Files of one commit into the cache, several at a time.
 *
 * @module
 */
import { statfs } from "node:fs/promises";
import { EXIT, UserError } from "../errors.ts";
import { exists } from "../files.ts";
import { CachedRepository } from "./cache.ts";
import type { HubClient } from "./client.ts";
import { fetchBlob, incompleteOf } from "./download.ts";
import { nameOf, type Repository } from "./names.ts";
import type { HubFile } from "./repository.ts";

/** Files that come at once. */
const AT_ONCE = 4;

/** Told how many bytes are there of how many. */
export type OnBytes = (bytes: { done: number; of: number }) => void;

/**
 * Brings files of a commit into its folder in the cache.
 *
 * @returns the commit's folder
 * @throws {UserError} when one cannot be had, or the disk has no room for what is missing, before anything is fetched
 */
export async function fetchFiles(
  client: HubClient,
  { repository, commit, files }: { repository: Repository; commit: string; files: readonly HubFile[] },
  onBytes: OnBytes = () => {},
): Promise<string> {
  const { cache } = client.environment;
  const cached = new CachedRepository(cache, repository);
  const missing: HubFile[] = [];
  for (const file of files) if (!await cached.has(commit, file.path)) missing.push(file);
  if (missing.length === 0) return cached.snapshot(commit);
  await cached.prepare();
  // Files of the same bytes are one blob.
  const blobs = [...new Map(missing.map((file) => [file.etag, file])).values()];
  await checkRoom(cached, repository, blobs);
  const of = blobs.reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  onBytes({ done, of });
  // The first failure ends the others.
  const failed = new AbortController();
  const among = client.until(failed.signal);
  const waiting = blobs.values();
  const bring = async (): Promise<void> => {
    for (const file of waiting) {
      among.signal.throwIfAborted();
      await fetchBlob(among, cached, { repository, commit, file }, (count) => {
        done += count;
        onBytes({ done, of });
      });
      for (const { path, etag } of missing) {
        if (etag === file.etag) await cached.link(commit, path, etag);
      }
    }
  };
  let failure: { error: unknown } | undefined;
  await Promise.all(
    Array.from({ length: Math.min(AT_ONCE, blobs.length) }, () =>
      bring().catch((error) => {
        failure ??= { error };
        failed.abort(error);
      })),
  );
  if (failure) throw failure.error;
  return cached.snapshot(commit);
}

/** The disk must have room for what is still to come. */
async function checkRoom(
  cached: CachedRepository,
  repository: Repository,
  blobs: readonly HubFile[],
): Promise<void> {
  let needed = 0;
  for (const { etag, size } of blobs) {
    const blob = cached.blob(etag);
    if (await exists(blob)) continue;
    const there = await Deno.stat(incompleteOf(blob)).catch(() => undefined);
    needed += size - Math.min(size, there?.size ?? 0);
  }
  const free = await freeBytes(cached.folder);
  if (free === undefined || needed <= free) return;
  throw new UserError(
    EXIT.device,
    `Cannot fetch ${nameOf(repository)} as ${
      gigabytes(needed)
    } are still to come and the disk of ${cached.folder} has ` +
      `${gigabytes(free)} left: make room, or put the cache elsewhere by HF_HUB_CACHE`,
  );
}

/** Bytes that a disk has left for us; undefined where the system does not say, or may not be asked. */
async function freeBytes(folder: string): Promise<number | undefined> {
  try {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  } catch {
    return undefined;
  }
}

const gigabytes = (bytes: number): string => `${Number((bytes / 1e9).toPrecision(3))} GB`;
