/**
 * What a command is given by name on the Hugging Face hub: models, and data to train on. A folder or a file of that name
 * goes first, and then nobody is asked.
 *
 * @module
 */
import { inputError } from "./errors.ts";
import { exists } from "./files.ts";
import { isNowhere } from "./hub/client.ts";
import { openHubData } from "./hub/data.ts";
import { fetchModel, type FetchModelOptions } from "./hub/model.ts";
import { hubModel, isHubData } from "./hub/names.ts";
import { readModelConfig } from "./model/config_file.ts";
import type { Locate, Located } from "./settings/resolve.ts";
import { type Source, sourceName } from "./text/data_files.ts";
import type { Reporter } from "./training/training_run.ts";

/** Milliseconds between two reports of how much has come. */
const REPORT_MS = 100;

/** What a fetch has of the command it is for. */
export interface Asking {
  reporter: Pick<Reporter, "activity" | "message">;
  signal: AbortSignal;
}

/** Tells how much has come, not at every piece. */
function comingOf(reporter: Asking["reporter"], name: string): (bytes: { done: number; of: number }) => void {
  let last = -Infinity;
  return ({ done, of }) => {
    const now = performance.now();
    if (now - last < REPORT_MS && done < of) return;
    last = now;
    reporter.activity({ name: `fetching ${name}`, bytes: true, done, of });
  };
}

/**
 * Finds a model: a folder, or else one of the hub, which is brought into the user's cache. Its config.json is read before
 * its weights are fetched.
 *
 * @param options as `fetchModel`'s
 * @throws {UserError} as `fetchModel`, and when its config.json is of no model that can be run
 */
export function locateModel(
  { reporter, signal }: Asking,
  { withoutWeights }: Pick<FetchModelOptions, "withoutWeights"> = {},
): Locate {
  return async (model) => {
    if (!hubModel(model) || await exists(model)) return { folder: model, name: model };
    // It may have been meant as a folder.
    const nowhere = (error: unknown): never => {
      if (!isNowhere(error)) throw error;
      throw inputError(`${(error as Error).message}; and there is no folder ${model}`, { cause: error });
    };
    return await fetchModel(model, {
      signal,
      withoutWeights,
      onMessage: (text) => reporter.message(text),
      onBytes: comingOf(reporter, model),
      check: async (folder) => void await readModelConfig(folder),
    }).catch(nowhere);
  };
}

/** Finds a model where it is on this machine; what the cache does not have is as if no model were named. */
export const locateHere: Locate = async (model): Promise<Located> => {
  if (!hubModel(model) || await exists(model)) return { folder: model, name: model };
  return await fetchModel(model, { cacheOnly: true }).catch(() => ({ folder: model, name: model }));
};

/** Data, and what it is called with its commits. */
export interface NamedData {
  /** What is read. */
  sources: Source[];
  /** What names the same for ever, where it comes from the hub. */
  names: string[];
  /** Whether some of it may still have to be fetched. */
  fetches: boolean;
}

/**
 * Opens the data of a command; of the hub's nothing is fetched yet.
 *
 * @throws {UserError} as `openHubData`
 */
export async function openData(data: readonly string[], { reporter, signal }: Asking): Promise<NamedData> {
  const sources: Source[] = [];
  for (const source of data) {
    if (!isHubData(source)) sources.push(source);
    else {
      reporter.activity({ name: `looking for ${source}` });
      sources.push(
        await openHubData(source, {
          signal,
          onMessage: (text) => reporter.message(text),
          onBytes: comingOf(reporter, source),
        }),
      );
    }
  }
  return { sources, names: sources.map(sourceName), fetches: data.some(isHubData) };
}
