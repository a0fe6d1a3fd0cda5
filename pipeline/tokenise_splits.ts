/**
 * The text of a command that runs a model over it and trains nothing: opened, tokenised and cut into splits, as far as it is
 * wanted.
 *
 * @module
 */
import type { CommandThread } from "./command_thread.ts";
import { openData } from "./fetch_named.ts";
import { checkWindows } from "./text/batches.ts";
import { type Split, SPLITS, tokenise, type Tokens } from "./text/tokenise.ts";
import type { Tokenizer } from "./text/tokenizer.ts";
import { tokenising } from "./training/prepare_run.ts";

/** Tokens of some splits. */
export interface TokenisedSplits {
  /** What the data is called, with its commit on the hub. */
  names: string[];
  /** Those that are wanted, in order. */
  splits: readonly Split[];
  tokens: Tokens;
}

/**
 * Tokenises the data into a folder, and gives up the net as soon as all is there.
 *
 * @param options `limit`: tokens of each split that are wanted, of what has to be fetched
 * @throws {UserError} on data that cannot be read, or a split that fills no row
 */
export async function tokeniseSplits(
  thread: Pick<CommandThread, "reporter" | "signal" | "leaveNet">,
  { data: named, textColumn, split: wanted, limit, context, tokenizer, folder }: {
    data: readonly string[];
    textColumn: string;
    split: Split | "all";
    limit: number;
    context: number;
    tokenizer: Tokenizer;
    folder: string;
  },
): Promise<TokenisedSplits> {
  const { reporter } = thread;
  const data = await openData(named, thread);
  if (!data.fetches) thread.leaveNet();
  const splits: readonly Split[] = wanted === "all" ? SPLITS : [wanted];
  // Of each split a token at least, since documents go to splits only where each has one.
  const enough = (split: Split): number =>
    splits.includes(split) ? Math.max(limit, context) + context + 1 : 1;
  const tokens = await tokenise({
    sources: data.sources,
    textColumn,
    enough: { train: enough("train"), validation: enough("validation"), test: enough("test") },
    tokenizer,
    folder,
    onProgress: tokenising(reporter),
    onLoss: (message) => reporter.warning(message),
  });
  thread.leaveNet();
  for (const split of splits) {
    checkWindows({ tokens: tokens[split], context, name: `the ${split} split of ${data.names.join(", ")}` });
  }
  return { names: data.names, splits, tokens };
}
