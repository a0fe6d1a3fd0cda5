/**
 * What a repository holds at a revision, as the hub's API tells it.
 *
 * @module
 */
import { inputError } from "../errors.ts";
import { isObject, shown } from "../files.ts";
import { type About, asObject, type HubClient } from "./client.ts";
import { isCommit, nameOf, type Repository } from "./names.ts";

/** A file of a commit. */
export interface HubFile {
  /** From the repository's root, with "/" between folders. */
  path: string;
  /** Bytes. */
  size: number;
  /** SHA-256 of its bytes where it lies in large file storage, else the SHA-1 of its git blob. */
  etag: string;
}

/** Pages of one listing at most. */
const MOST_PAGES = 1000;

const api = ({ environment }: HubClient, { kind, name }: Repository): string =>
  `${environment.endpoint}/api/${kind}s/${name}`;

/** Where a file's bytes are asked for. */
export function fileAddress(
  { environment }: HubClient,
  { kind, name }: Repository,
  commit: string,
  path: string,
): string {
  const of = kind === "dataset" ? `datasets/${name}` : name;
  return `${environment.endpoint}/${of}/resolve/${commit}/${
    path.split("/").map(encodeURIComponent).join("/")
  }`;
}

/**
 * The commit that a revision stands at now. A repository that has been renamed is said to be.
 *
 * @param options `tries`: how often the hub is asked before it is taken for out of reach
 * @throws {UserError} when there is none, or the hub cannot be asked
 */
export async function askCommit(
  client: HubClient,
  repository: Repository,
  revision: string,
  { tries = 3 }: { tries?: number } = {},
): Promise<string> {
  const about: About = { repository, revision };
  const { value } = await client.json(
    `${api(client, repository)}/revision/${encodeURIComponent(revision)}`,
    about,
    { tries },
  );
  const { sha, id } = asObject(value, about);
  if (typeof sha !== "string" || !isCommit(sha)) {
    throw inputError(`Cannot fetch ${nameOf(repository)} as the hub names no commit: ${shown(sha)}`);
  }
  if (typeof id === "string" && id !== repository.name && /^[\w./-]+$/.test(id)) {
    client.say(`${nameOf(repository)} has been renamed ${nameOf({ ...repository, name: id })} on the hub`);
  }
  return sha;
}

/** What a folder of a commit holds. */
export interface HubFolder {
  files: HubFile[];
  /** Paths of the folders in it. */
  folders: string[];
}

/**
 * Lists a folder of a commit.
 *
 * @param options `folder`: left out: the root; `recursive`: with all that is below it
 * @throws {UserError} when there is none, or the listing is none that is known
 */
export async function listFolder(
  client: HubClient,
  repository: Repository,
  commit: string,
  { folder = "", recursive = false }: { folder?: string; recursive?: boolean } = {},
): Promise<HubFolder> {
  const about: About = { repository, revision: commit, ...(folder ? { path: folder } : {}) };
  const path = folder.split("/").filter((part) => part).map((part) => "/" + encodeURIComponent(part)).join(
    "",
  );
  let address: string | undefined = `${api(client, repository)}/tree/${commit}${path}` +
    (recursive ? "?recursive=true" : "");
  const found: HubFolder = { files: [], folders: [] };
  for (let page = 0; address !== undefined; page++) {
    if (page === MOST_PAGES) throw inputError(`Cannot list ${nameOf(repository)} as it has no end`);
    const { value, next }: { value: unknown; next?: string } = await client.json(address, about);
    if (!Array.isArray(value)) throw unknownListing(about, value);
    for (const entry of value) {
      if (!isObject(entry) || typeof entry.path !== "string") throw unknownListing(about, entry);
      if (entry.type === "directory") found.folders.push(checkedPath(entry.path, about));
      else if (entry.type === "file") found.files.push(fileOf(entry, about));
    }
    address = next;
  }
  return found;
}

function fileOf(entry: Record<string, unknown>, about: About): HubFile {
  const lfs = isObject(entry.lfs) ? entry.lfs : undefined;
  const size = lfs?.size ?? entry.size;
  const etag = lfs?.oid ?? entry.oid;
  if (!Number.isSafeInteger(size) || (size as number) < 0 || typeof etag !== "string") {
    throw unknownListing(about, entry);
  }
  // It names the file that is written.
  if (!(lfs ? /^[0-9a-f]{64}$/ : /^[0-9a-f]{40}$/).test(etag)) throw unknownListing(about, entry);
  return { path: checkedPath(entry.path as string, about), size: size as number, etag };
}

/** A path that stays below where it is put. */
function checkedPath(path: string, about: About): string {
  const parts = path.split("/");
  // deno-lint-ignore no-control-regex
  const fits = !/[\\:\x00-\x1f]/.test(path) &&
    parts.every((part) => part !== "" && part !== "." && part !== "..");
  if (!fits) throw unknownListing(about, path);
  return path;
}

function unknownListing({ repository }: About, value: unknown): Error {
  return inputError(`Cannot fetch ${nameOf(repository)} as the hub lists what is no file: ${shown(value)}`);
}
