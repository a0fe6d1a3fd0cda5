/**
 * A split of a data set of the hub: the Parquet files that the hub makes of every public data set (branch
 * refs/convert/parquet), one after the other as they are wanted.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "../errors.ts";
import { CachedRepository } from "./cache.ts";
import { type ClientOptions, HubClient, MissingError, whatOf } from "./client.ts";
import { type HubEnvironment, hubEnvironment } from "./environment.ts";
import { fetchFiles, type OnBytes } from "./fetch_files.ts";
import { type HubData, hubData, isCommit, nameOf } from "./names.ts";
import { askCommit, type HubFile, listFolder } from "./repository.ts";

/** Where the hub keeps what it has made of a data set's files. */
const CONVERTED = "refs/convert/parquet";
const MAIN = "main";

/** A split of a data set, in files. */
export interface HubShards {
  /** The split with its commit, `hf:owner/name@commit:config/split`: what names the same files for ever. */
  name: string;
  /**
   * Brings one of its files into the cache, unless it is there; undefined behind the last.
   *
   * @param index from 0
   * @throws {UserError} as {@link fetchFiles}, and when only the cache may be used and does not have it
   */
  file(index: number): Promise<string | undefined>;
}

/** How data is fetched. */
export interface OpenDataOptions extends Omit<ClientOptions, "patience" | "firstPause"> {
  /** Where the hub and the cache are; left out: as the process's variables say. */
  environment?: HubEnvironment;
  /** Told how many bytes there are of how many, of the file that is being fetched. */
  onBytes?: OnBytes;
}

/**
 * Opens a split of a data set of the Hugging Face hub. Its files come when they are asked for, into the same cache as
 * {@link fetchModel}'s.
 *
 * @example The first file of a split
 * ```ts ignore
 * import { openHubData, readDocuments } from "../../mod.ts";
 *
 * const shards = await openHubData("hf:roneneldan/TinyStories/validation");
 * const first = await shards.file(0);
 * for await (const document of readDocuments([first!])) console.log(document);
 * ```
 *
 * @param source `hf:owner/name[@revision][:config][/split]`; without a split `train`, without a config `default`, or the
 * only ones
 * @throws {UserError} in one sentence: no such data set, part or split, gated, no Parquet, or offline and not in the cache
 */
export async function openHubData(source: string, options: OpenDataOptions = {}): Promise<HubShards> {
  const wanted = hubData(source);
  const { environment = hubEnvironment(), onBytes } = options;
  const cached = new CachedRepository(environment.cache, wanted);
  const client = new HubClient(environment, options);
  // Named whole, it is the same for ever, and only a file that is missing has to be asked for.
  const whole = wanted.revision !== undefined && isCommit(wanted.revision) && wanted.config !== undefined &&
    wanted.split !== undefined;
  let listing: Promise<Listing> | undefined;
  // Whoever asks again after a failure may find the net there again.
  const list = (): Promise<Listing> =>
    listing ??= listSplit(client, cached, wanted).catch((error) => {
      listing = undefined;
      throw error;
    });
  const place = environment.offline || whole
    ? await placeInCache(cached, wanted, { offline: environment.offline })
    : undefined;
  const { commit, config, split } = place ?? await list();
  return {
    name: `${nameOf(wanted, commit)}:${config}/${split}`,
    async file(index) {
      if (place) {
        const path = numbered(place.folder, index);
        if (await cached.has(commit, path)) return join(cached.snapshot(commit), path);
        if (await cached.isKnownMissing(commit, path)) return undefined;
        if (environment.offline) throw notInCache(cached, wanted, path);
      }
      const { files, folder } = await list();
      const file = files[index];
      // So that without the net it is known where the split ends.
      if (index === files.length - 1 && file.path === numbered(folder, index)) {
        await cached.keepMissing(commit, numbered(folder, index + 1));
      }
      if (file === undefined) return undefined;
      const snapshot = await fetchFiles(client, { repository: wanted, commit, files: [file] }, onBytes);
      return join(snapshot, file.path);
    },
  };
}

/** Where a split lies. */
interface Place {
  commit: string;
  config: string;
  split: string;
  /** Of its files. */
  folder: string;
}

/** A split's files in order. */
interface Listing extends Place {
  files: readonly HubFile[];
}

/** The name that the hub gives to the files that it makes. */
const numbered = (folder: string, index: number): string =>
  `${folder}/${String(index).padStart(4, "0")}.parquet`;

/** Of data sets that are too large the hub makes Parquet of a part, under this name. */
const folderNames = (split: string): string[] => [split, `partial-${split}`];

/** Asks the hub for the files of a split. */
async function listSplit(client: HubClient, cached: CachedRepository, wanted: HubData): Promise<Listing> {
  let { revision } = wanted;
  let commit: string;
  if (revision !== undefined) commit = await askCommit(client, wanted, revision);
  else {
    try {
      commit = await askCommit(client, wanted, revision = CONVERTED);
    } catch (error) {
      if (!(error instanceof MissingError) || error.missing !== "revision") throw error;
      // Of a private data set the hub makes none.
      commit = await askCommit(client, wanted, revision = MAIN);
      const listing = await listOwn(client, wanted, commit);
      await cached.keepCommit(revision, commit);
      return listing;
    }
  }
  const { folders } = await listFolder(client, wanted, commit);
  if (revision !== CONVERTED && !await isConverted(client, wanted, commit, folders)) {
    return await listOwn(client, wanted, commit);
  }
  const config = chosen(folders, wanted.config, "default", `part of ${nameOf(wanted)}`, (name) => `:${name}`);
  const ofConfig = await listFolder(client, wanted, commit, { folder: config });
  const splits = ofConfig.folders.map((path) => path.slice(config.length + 1));
  const names = splits.map((name) => name.replace(/^partial-/, ""));
  const split = chosen(
    names,
    wanted.split,
    "train",
    `split of ${nameOf(wanted)}:${config}`,
    (name) => `/${name}`,
  );
  const folder = `${config}/${splits[names.indexOf(split)]}`;
  const { files } = await listFolder(client, wanted, commit, { folder });
  await cached.keepCommit(revision, commit);
  return { commit, config, split, folder, files: parquetIn(files, wanted) };
}

/** Whether a commit holds what the hub makes, a folder for each part with one for each split, rather than a data set's own. */
async function isConverted(
  client: HubClient,
  wanted: HubData,
  commit: string,
  folders: readonly string[],
): Promise<boolean> {
  const folder = wanted.config ?? (folders.includes("default") ? "default" : folders[0]);
  if (!folders.includes(folder)) return false;
  return (await listFolder(client, wanted, commit, { folder })).folders.length > 0;
}

/** The Parquet files that a data set itself has, named after the split as `push_to_hub` names them. */
async function listOwn(client: HubClient, wanted: HubData, commit: string): Promise<Listing> {
  const { files } = await listFolder(client, wanted, commit, { recursive: true });
  const own = new Map<string, Map<string, HubFile[]>>();
  for (const file of files) {
    const [, folder, split] = /^(?:([^/]+)\/)?([^/]+?)-\d+-of-\d+(?:-[0-9a-f]+)?\.parquet$/.exec(file.path) ??
      [];
    if (split === undefined) continue;
    const config = folder === undefined || folder === "data" ? "default" : folder;
    const splits = own.get(config) ?? new Map<string, HubFile[]>();
    own.set(config, splits.set(split, [...splits.get(split) ?? [], file]));
  }
  if (own.size === 0) {
    throw inputError(
      `Cannot use ${
        nameOf(wanted)
      } as the hub has no Parquet of it: download its files, and give their folder`,
    );
  }
  const config = chosen(
    [...own.keys()],
    wanted.config,
    "default",
    `part of ${nameOf(wanted)}`,
    (name) => `:${name}`,
  );
  const splits = own.get(config)!;
  const of = `split of ${nameOf(wanted)}:${config}`;
  const split = chosen([...splits.keys()], wanted.split, "train", of, (name) => `/${name}`);
  const ofSplit = splits.get(split)!;
  const folder = ofSplit[0].path.includes("/") ? ofSplit[0].path.split("/")[0] : ".";
  return { commit, config, split, folder, files: parquetIn(ofSplit, wanted) };
}

function parquetIn(files: readonly HubFile[], wanted: HubData): HubFile[] {
  const found = files.filter(({ path }) => path.endsWith(".parquet"))
    .sort((a, b) => a.path < b.path ? -1 : 1);
  if (found.length > 0) return found;
  throw inputError(`Cannot use ${nameOf(wanted)} as the hub has no Parquet of it`);
}

/** The one that is wanted, else the usual one, else the only one. */
function chosen(
  names: readonly string[],
  wanted: string | undefined,
  usual: string,
  what: string,
  flag: (name: string) => string,
): string {
  const name = wanted ?? (names.includes(usual) ? usual : names.length === 1 ? names[0] : undefined);
  if (name !== undefined && names.includes(name)) return name;
  const some = names.slice(0, 8).map(flag).join(", ") +
    (names.length > 8 ? ` and ${names.length - 8} more` : "");
  throw inputError(
    name === undefined
      ? `Cannot choose the ${what}: give one behind its name, ${some}`
      : `Cannot find the ${what} called ${name}: there are ${some}`,
  );
}

/** Where the cache has a split; undefined where it has nothing of it and the hub may be asked. */
async function placeInCache(
  cached: CachedRepository,
  wanted: HubData,
  { offline }: { offline: boolean },
): Promise<Place | undefined> {
  const commit = await cached.commitOf(wanted.revision ?? CONVERTED);
  const list = async (folder: string): Promise<string[]> => {
    const entries = await Array.fromAsync(Deno.readDir(folder)).catch(() => []);
    return entries.filter((entry) => entry.isDirectory).map((entry) => entry.name).sort();
  };
  const of = nameOf(wanted);
  const root = commit === undefined ? undefined : cached.snapshot(commit);
  const configs = root === undefined ? [] : await list(root);
  if (commit === undefined || root === undefined || configs.length === 0) {
    if (offline) throw notInCache(cached, wanted);
    return undefined;
  }
  if (!offline && !configs.includes(wanted.config!)) return undefined;
  const config = chosen(
    configs,
    wanted.config,
    "default",
    `part of ${of} in the cache`,
    (name) => `:${name}`,
  );
  const folders = await list(join(root, config));
  const splits = folders.map((name) => name.replace(/^partial-/, ""));
  if (!offline && !splits.includes(wanted.split!)) return undefined;
  const where = `split of ${of}:${config} in the cache`;
  const split = chosen(splits, wanted.split, "train", where, (name) => `/${name}`);
  const folder = folderNames(split).find((name) => folders.includes(name))!;
  return { commit, config, split, folder: `${config}/${folder}` };
}

function notInCache(cached: CachedRepository, wanted: HubData, path?: string): Error {
  return inputError(
    `Cannot load ${
      whatOf({ repository: wanted, path })
    } as it is not in the cache at ${cached.folder}, and ` +
      `HF_HUB_OFFLINE forbids to ask the hub`,
  );
}
