/**
 * Where the model, the tokenizer and the adapter of a run that goes on lie now. Each is compared with what the run began
 * with by its contents, so that any place of the same will do: the one it began with, another that a flag names, or the
 * run's own folder, which keeps the first two.
 *
 * @module
 */
import { join } from "node:path";
import { inputError, UserError } from "../errors.ts";
import { exists } from "../files.ts";
import type { RunFolder } from "../runs/run_folder.ts";
import type { Locate, Located } from "../settings/resolve.ts";

/** The settings that name them. */
interface Inputs {
  /** Left out: the command begins with none. */
  model?: string;
  /** Left out: the model's. */
  tokenizer?: string;
  /** Left out: training began without one. */
  adapter?: string;
}

/** What is found. */
export interface InputPlaces {
  /** Of a command that begins with a model. */
  model?: Located;
  /** Left out: the model's own. */
  tokenizer?: string;
}

/**
 * Finds them.
 *
 * @param settings the run's, with the flags' in their place
 * @param given only what flags say: what is named there is not replaced
 * @param tell is told, in one line, what the run's own is taken for
 * @throws {UserError} when the model or the adapter is nowhere
 */
export async function findInputs(
  folder: Pick<RunFolder, "name" | "dense" | "tokenizer">,
  settings: Inputs,
  given: Inputs,
  { locate, tell }: { locate: Locate; tell(message: string): void },
): Promise<InputPlaces> {
  const { adapter } = settings;
  if (adapter !== undefined && given.adapter === undefined && !await exists(adapter)) {
    throw inputError(
      `Cannot resume ${folder.name} as its adapter ${adapter} is no longer there: give --adapter, the folder where it is now`,
    );
  }
  const gone: string[] = [];
  const model = settings.model === undefined
    ? undefined
    : given.model !== undefined
    ? await locate(given.model)
    : await whereItLay(settings.model, folder, locate, gone);
  const tokenizer = await tokenizerOf(folder, settings, given, model?.folder, gone);
  if (gone.length > 0) tell(`${gone.join(" and ")} no longer there: the run's own copy is taken`);
  return { model, tokenizer };
}

/** Where the run's model lay, or the copy that the run keeps of it. */
async function whereItLay(
  model: string,
  { name, dense }: Pick<RunFolder, "name" | "dense">,
  locate: Locate,
  gone: string[],
): Promise<Located> {
  const isKept = await exists(join(dense, "config.json"));
  const located = await locate(model).catch((error) => {
    // Of the hub, which cannot be asked, or has it no more.
    if (!isKept || !(error instanceof UserError)) throw error;
  });
  if (located && await exists(join(located.folder, "config.json"))) return located;
  if (!isKept) {
    throw inputError(
      `Cannot resume ${name} as its model ${model} is no longer there, and the run keeps no copy of it: ` +
        `give --model, the folder where it is now`,
    );
  }
  gone.push(`the model ${model} is`);
  return { folder: dense, name: model };
}

async function tokenizerOf(
  { tokenizer: kept }: Pick<RunFolder, "tokenizer">,
  settings: Inputs,
  given: Inputs,
  model: string | undefined,
  gone: string[],
): Promise<string | undefined> {
  const { tokenizer } = settings;
  if (given.tokenizer !== undefined || !await exists(kept)) return tokenizer;
  if (tokenizer !== undefined) {
    if (await exists(tokenizer)) return tokenizer;
    gone.push(`the tokenizer ${tokenizer} is`);
    return kept;
  }
  return model === undefined || await exists(join(model, "tokenizer.json")) ? undefined : kept;
}
