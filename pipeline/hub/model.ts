/**
 * A model of the hub as a folder: of its files those that a model is made of here, and no others.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "../errors.ts";
import { exists, isObject, readJson } from "../files.ts";
import { CachedRepository } from "./cache.ts";
import { type ClientOptions, HubClient, isNowhere, MissingError, whatOf } from "./client.ts";
import { type HubEnvironment, hubEnvironment } from "./environment.ts";
import { fetchFiles, type OnBytes } from "./fetch_files.ts";
import { type HubModel, hubModel, isCommit, nameOf } from "./names.ts";
import { askCommit, type HubFile, listFolder } from "./repository.ts";

/** Small files that say what the weights are. */
const ABOUT_WEIGHTS = /^(config|generation_config|sparsify|tokenizer.*)\.json$/;
/** What holds a whole model's weights. */
const WHOLE = "model.safetensors";
/** Says which files hold the weights where there are several. */
const INDEX = "model.safetensors.index.json";
/** Weights in forms that are not read here. */
const OTHER_WEIGHTS = /\.(bin|pt|pth|ckpt|h5|msgpack|gguf|onnx)$/;

/** How a model is fetched. */
export interface FetchModelOptions extends Omit<ClientOptions, "patience" | "firstPause"> {
  /** Where the hub and the cache are; left out: as the process's variables say. */
  environment?: HubEnvironment;
  /** Told how many bytes there are of how many. */
  onBytes?: OnBytes;
  /**
   * Looks at the folder when all but the weights is there; what it throws ends the matter before the weights are
   * fetched.
   */
  check?(folder: string): Promise<void>;
  /** Takes what the cache holds, and asks nobody. */
  cacheOnly?: boolean;
  /** Leaves out the weights, for who wants to know what a model is. */
  withoutWeights?: boolean;
}

/** A model of the hub on the disk. */
export interface FetchedModel {
  /** The commit's folder in the cache. */
  folder: string;
  /** The model with its commit, `owner/name@commit`: what names the same files for ever. */
  name: string;
}

/**
 * Brings a model of the Hugging Face hub into the user's cache, unless it is there: config.json, generation_config.json,
 * sparsify.json, the tokenizer and the weights in safetensors. The cache is the one that Python's huggingface_hub keeps, in its layout;
 * what is there is used, also without the net. Environment: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_HUB_OFFLINE.
 *
 * @example A model by name, then its weights on the device
 * ```ts ignore
 * import { fetchModel, loadModel } from "../../mod.ts";
 *
 * const { folder, name } = await fetchModel("openai-community/gpt2", {
 *   onBytes: ({ done, of }) => console.log(`${done} of ${of}`),
 * });
 * using model = await loadModel(folder);
 * console.log(name, model.config.layers);
 * ```
 *
 * @param model `owner/name`, or a bare name such as `gpt2`; `@` and a branch, tag or commit behind it
 * @throws {UserError} in one sentence: no such model or revision, gated, no weights in safetensors, too little room on
 * the disk, a connection that keeps breaking, bytes that are not the hub's, or offline and not in the cache
 */
export async function fetchModel(model: string, options: FetchModelOptions = {}): Promise<FetchedModel> {
  const wanted = hubModel(model);
  if (!wanted) throw inputError(`Cannot fetch ${model} as a model of the hub is named owner/name[@revision]`);
  const { environment = hubEnvironment(), onBytes, check } = options;
  const cached = new CachedRepository(environment.cache, wanted);
  const known = await inCache(cached, wanted);
  const done = async ({ folder, commit }: { folder: string; commit: string }): Promise<FetchedModel> => {
    await check?.(folder);
    return { folder, name: nameOf(wanted, commit) };
  };
  // A commit never changes.
  if (known && (isCommit(wanted.revision) || environment.offline || options.cacheOnly)) {
    return await done(known);
  }
  if (environment.offline || options.cacheOnly) {
    throw new MissingError(
      `Cannot load ${
        whatOf({ repository: wanted, revision: wanted.revision })
      } as it is not in the cache, whole, at ` +
        `${cached.folder}` + (environment.offline ? ", and HF_HUB_OFFLINE forbids to ask the hub" : ""),
      "repository",
    );
  }
  const client = new HubClient(environment, options);
  const commit = await commitOrKnown(client, wanted, known?.commit);
  if (known?.commit === commit) return await done(known);
  const { files } = await listFolder(client, wanted, commit);
  checkForms(wanted, files);
  await cached.keepCommit(wanted.revision, commit);
  if (!files.some(({ path }) => path === "tokenizer.json")) {
    await cached.keepMissing(commit, "tokenizer.json");
  }
  const bring = (some: readonly HubFile[]): Promise<string> =>
    fetchFiles(client, { repository: wanted, commit, files: some }, onBytes);
  const isIndex = ({ path }: HubFile): boolean =>
    path === INDEX && !files.some((file) => file.path === WHOLE);
  const folder = await bring(files.filter((file) => ABOUT_WEIGHTS.test(file.path) || isIndex(file)));
  await check?.(folder);
  if (options.withoutWeights) return { folder, name: nameOf(wanted, commit) };
  const names = await weightFiles(folder);
  const weights = files.filter(({ path }) => names.includes(path));
  const absent = names.find((name) => !weights.some(({ path }) => path === name));
  if (absent !== undefined) {
    throw inputError(`Cannot fetch ${nameOf(wanted)} as its ${INDEX} names ${absent}, which is not there`);
  }
  return { folder: await bring(weights), name: nameOf(wanted, commit) };
}

/** The commit of now; the cache's, which is said, where the hub cannot be reached. */
async function commitOrKnown(
  client: HubClient,
  wanted: HubModel,
  known: string | undefined,
): Promise<string> {
  try {
    // Who has the model waits for no hub that is out of reach.
    return await askCommit(client, wanted, wanted.revision, known === undefined ? {} : { tries: 1 });
  } catch (error) {
    client.signal.throwIfAborted();
    if (known === undefined || error instanceof MissingError || !isNowhere(error)) throw error;
    client.say(
      `the hub cannot be asked whether ${
        nameOf(wanted)
      } has changed: it is taken as the cache has it, commit ${known}`,
    );
    return known;
  }
}

/** The model where the cache has all of it. */
async function inCache(
  cached: CachedRepository,
  { revision }: HubModel,
): Promise<{ folder: string; commit: string } | undefined> {
  const commit = await cached.commitOf(revision);
  if (commit === undefined) return undefined;
  const folder = cached.snapshot(commit);
  if (!await exists(join(folder, "config.json"))) return undefined;
  if (!await cached.has(commit, "tokenizer.json") && !await cached.isKnownMissing(commit, "tokenizer.json")) {
    return undefined;
  }
  const names = await weightFiles(folder).catch(() => []);
  for (const name of names) if (!await cached.has(commit, name)) return undefined;
  return names.length > 0 ? { folder, commit } : undefined;
}

/** The files of a folder's weights, by name, whether they are there or not. */
async function weightFiles(folder: string): Promise<string[]> {
  const path = join(folder, INDEX);
  if (!await exists(path) || await exists(join(folder, WHOLE))) return [WHOLE];
  const index = await readJson(path);
  const names = isObject(index) && isObject(index.weight_map) ? Object.values(index.weight_map) : [];
  const unlike = names.find((name) => typeof name !== "string" || !/^[\w.-]+$/.test(name));
  if (names.length === 0 || unlike !== undefined) {
    throw inputError(`Cannot use ${path} as its weight_map must name the files of the weights`);
  }
  return [...new Set(names as string[])];
}

/** A model must have a config.json, and weights in safetensors. */
function checkForms(wanted: HubModel, files: readonly HubFile[]): void {
  const has = (name: string): boolean => files.some(({ path }) => path === name);
  if (!has("config.json")) {
    throw inputError(
      `Cannot use ${nameOf(wanted)} as it has no config.json, which every model of transformers has`,
    );
  }
  if (has(WHOLE) || has(INDEX)) return;
  const other = files.find(({ path }) => OTHER_WEIGHTS.test(path))?.path;
  throw inputError(
    other === undefined
      ? `Cannot use ${nameOf(wanted)} as it has no weights: ${WHOLE}, or ${INDEX}`
      : `Cannot use ${
        nameOf(wanted)
      } as its weights are not in safetensors but in ${other}: convert them at ` +
        `https://huggingface.co/spaces/safetensors/convert, whose result is then ${wanted.name}@refs/pr/NUMBER, or save ` +
        `them anew with save_pretrained of transformers`,
  );
}
