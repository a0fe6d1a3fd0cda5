/**
 * A file from the hub to the cache, going on wherever it stopped, and checked to its last bit.
 *
 * @module
 */
import { createHash, type Hash } from "node:crypto";
import { inputError } from "../errors.ts";
import { exists, readAt, storing, writeAll } from "../files.ts";
import type { CachedRepository } from "./cache.ts";
import { type About, type HubClient, PassingError } from "./client.ts";
import { nameOf, type Repository } from "./names.ts";
import { fileAddress, type HubFile } from "./repository.ts";

/** Bytes of a piece that is read of what has come before. */
const PIECE_BYTES = 1 << 20;

/** Where a blob grows. */
export const incompleteOf = (blob: string): string => `${blob}.incomplete`;

/** The digest that names a blob: SHA-256 of the bytes, or SHA-1 of them as a blob of git. */
export function digestFor({ etag, size }: Pick<HubFile, "etag" | "size">): Hash {
  return etag.length === 64 ? createHash("sha256") : createHash("sha1").update(`blob ${size}\0`);
}

/**
 * Fetches a file's blob, unless it is there. What has come is kept whatever happens, and is not asked for again.
 *
 * @param onBytes told of bytes that are there: those that were, and each that comes; less than 0 where they were thrown
 * away as the server gave all of it anew
 * @throws {UserError} when the hub refuses it, the connection keeps breaking, the disk is full, or the bytes are not
 * those that the hub lists, in which case they are removed
 */
export async function fetchBlob(
  client: HubClient,
  cached: CachedRepository,
  { repository, commit, file }: { repository: Repository; commit: string; file: HubFile },
  onBytes: (count: number) => void,
): Promise<void> {
  const blob = cached.blob(file.etag);
  const about: About = { repository, path: file.path };
  using _ = await cached.lock(file.etag, {
    signal: client.signal,
    onWait: () => client.say(`another process is fetching ${file.path}: waiting for it`),
  });
  if (await exists(blob)) return onBytes(file.size);
  const temporary = incompleteOf(blob);
  const digest = await storing(temporary, async () => {
    using output = await Deno.open(temporary, { read: true, write: true, create: true });
    return await fill(
      client,
      output,
      fileAddress(client, repository, commit, file.path),
      file,
      about,
      onBytes,
    );
  });
  if (digest !== file.etag) {
    await Deno.remove(temporary);
    throw inputError(
      `Cannot use ${file.path} of ${nameOf(repository)} as it came damaged and has been thrown away: its ` +
        `${file.etag.length === 64 ? "SHA-256" : "SHA-1 as a git blob"} must be ${file.etag}: ${digest}`,
    );
  }
  await storing(blob, () => Deno.rename(temporary, blob));
}

/** Fills a file up to its size, and gives back the digest of what it then holds. */
async function fill(
  client: HubClient,
  output: Deno.FsFile,
  address: string,
  file: HubFile,
  about: About,
  onBytes: (count: number) => void,
): Promise<string> {
  let at = (await output.stat()).size;
  let digest = digestFor(file);
  const startAnew = async (): Promise<void> => {
    await output.truncate(0);
    onBytes(-at);
    at = 0;
    digest = digestFor(file);
  };
  onBytes(at);
  if (at > file.size) await startAnew();
  for (let read = 0; read < at; read += PIECE_BYTES) {
    client.signal.throwIfAborted();
    digest.update((await readAt(output, read, Math.min(PIECE_BYTES, at - read)))!);
  }
  await client.persevering(about, async (progressed) => {
    if (at === file.size) return;
    const response = await client.get(address, about, at);
    const from = startOf(response);
    if (from !== at && from !== 0) {
      await client.drop(response);
      throw new PassingError(`another part was sent than the one from byte ${at} on`);
    }
    // The server does not know parts.
    if (from !== at) await startAnew();
    await output.seek(at, Deno.SeekMode.Start);
    for await (const piece of client.bytes(response)) {
      if (at + piece.length > file.size) {
        throw inputError(
          `Cannot use ${file.path} of ${
            nameOf(about.repository)
          } as more comes than the ${file.size} bytes that the ` +
            `hub lists`,
        );
      }
      await writeAll(output, piece);
      digest.update(piece);
      at += piece.length;
      onBytes(piece.length);
      progressed();
    }
    if (at < file.size) throw new PassingError("the connection ended early");
  });
  await output.sync();
  return digest.digest("hex");
}

/** The first byte of an answer; undefined where it does not say. */
function startOf({ status, headers }: Response): number | undefined {
  if (status === 200) return 0;
  const [, start] = /^bytes (\d+)-/.exec(headers.get("content-range") ?? "") ?? [];
  return start === undefined ? undefined : Number(start);
}
