/**
 * Micro-batches from a file of tokens. Which tokens stand in which batch is a pure function of the seed and the batch's
 * position, so that a resumed run sees what the killed one would have.
 *
 * @module
 */
import { inputError } from "../errors.ts";
import { permutation, randomStream } from "../../kernels/core/random.ts";
import { IGNORED } from "../../kernels/core/targets.ts";

/** Tokens by position. */
export interface TokenSource {
  /** For error messages, for example the file's name. */
  readonly name: string;
  /** Number of tokens. */
  readonly length: number;
  /** Tokens of each example, where the data are prompts with completions; windows then hold one example each. */
  readonly exampleTokens?: number;
  /**
   * The token that stands before every text, of a model that was trained with one: every window of running text begins
   * with it, also where it begins inside a document. Examples have it already.
   */
  readonly startOfText?: number;
  /** `length` tokens from `start` on. */
  window(start: number, length: number): ArrayLike<number> | Promise<ArrayLike<number>>;
  /** 1 where the token counts in the loss; needed with `exampleTokens`. */
  countedWindow?(start: number, length: number): ArrayLike<number> | Promise<ArrayLike<number>>;
  /** The tokens that come behind these, where they come in parts; undefined behind the last. */
  next?(): Promise<TokenSource | undefined>;
}

/** Inputs and the tokens that follow them, each (row, position). */
export interface Batch {
  /** Tokens that the model reads. */
  inputs: Uint32Array;
  /** The token behind each; {@link IGNORED} does not count. */
  targets: Uint32Array;
  /** Rows that are not padding. */
  rows: number;
}

/**
 * A batch cut into batches of fewer rows; the last is filled up with rows whose targets do not count. One of so many rows or
 * fewer stays as it is.
 */
export function cutBatch(
  whole: Batch,
  { batch, context }: Pick<BatchShape, "batch" | "context">,
): Batch[] {
  if (whole.inputs.length <= batch * context) return [whole];
  const parts: Batch[] = [];
  for (let first = 0; first < whole.rows; first += batch) {
    const part = emptyBatch({ batch, context }, Math.min(batch, whole.rows - first));
    const end = (first + part.rows) * context;
    part.inputs.set(whole.inputs.subarray(first * context, end));
    part.targets.set(whole.targets.subarray(first * context, end));
    parts.push(part);
  }
  return parts;
}

/** How tokens are cut into batches. */
export interface BatchShape {
  /** What is cut. */
  tokens: TokenSource;
  /** Rows. */
  batch: number;
  /** Positions T of each row. */
  context: number;
}

/**
 * Checks that tokens can be cut into rows of a context.
 *
 * @param name what messages call them; left out: their own
 * @throws {UserError} when they fill no row, or examples are of another length
 */
export function checkWindows(
  { tokens, context, name = tokens.name }: { tokens: TokenSource; context: number; name?: string },
): void {
  windowCount({ tokens: { ...tokens, name }, context }, 0);
}

/** Number of windows that start at `offset`, or the error that there is none. */
function windowCount({ tokens, context }: Pick<BatchShape, "tokens" | "context">, offset: number): number {
  const { exampleTokens, length, name } = tokens;
  if (exampleTokens !== undefined) {
    if (context !== exampleTokens - 1) {
      throw inputError(
        `Cannot cut ${name} into batches as its examples have ${exampleTokens} tokens, which needs ` +
          `--context ${exampleTokens - 1}: ${context}`,
      );
    }
    return length / exampleTokens;
  }
  const windows = Math.floor((length - 1 - offset) / context);
  if (windows < 1) {
    throw inputError(
      `Cannot cut ${name} into windows as a context of ${context} needs ${context + 1} tokens: ${length}; ` +
        `give more text, or a smaller --context`,
    );
  }
  return windows;
}

async function fillRow(
  { tokens, context }: BatchShape,
  batch: Batch,
  row: number,
  start: number,
): Promise<void> {
  const window = await tokens.window(start, context + 1);
  const { exampleTokens, startOfText } = tokens;
  const counted = exampleTokens === undefined ? undefined : await tokens.countedWindow!(start, context + 1);
  // Before the window, unless that begins with it, as examples do: every token of the window is then a target.
  const before = startOfText !== undefined && window[0] !== startOfText ? 1 : 0;
  if (before) batch.inputs[row * context] = startOfText!;
  for (let t = 0; t < context; t++) {
    if (t >= before) batch.inputs[row * context + t] = window[t - before];
    const target = t + 1 - before;
    batch.targets[row * context + t] = counted && counted[target] === 0 ? IGNORED : window[target];
  }
}

function emptyBatch({ batch, context }: Pick<BatchShape, "batch" | "context">, rows: number): Batch {
  const length = batch * context;
  return { inputs: new Uint32Array(length), targets: new Uint32Array(length).fill(IGNORED), rows };
}

/** Tokens that are gone through once, from a row on. */
interface Pass {
  tokens: TokenSource;
  /** How many there were before it; keys its order. */
  number: number;
  firstRow: number;
  windows: number;
  /** Offsets that its grid may have. */
  slack: number;
}

/**
 * Batches for training: each pass over the tokens is a new permutation of non-overlapping windows, whose grid is shifted by
 * a random offset so that a window's ends move from pass to pass. Tokens that come in parts are gone through part by
 * part, and then from the first again; a part is asked for as soon as the one before it is begun.
 *
 * @param options `rows`: how many are wanted in all, so that no part is asked for that is not; left out: without end
 * @throws {UserError} when the tokens do not fill one window
 */
export function createBatches(
  options: BatchShape & { seed: number; rows?: number },
): { at(position: number): Promise<Batch> } {
  const { batch, context, seed, rows = Infinity } = options;
  const passOver = (tokens: TokenSource, number: number, firstRow: number): Pass => {
    const slack = tokens.exampleTokens === undefined
      ? Math.max(1, Math.min(context, tokens.length - context))
      : 1;
    // A part that is too short for a row is left out.
    const tooShort = number > 0 && tokens.exampleTokens === undefined && tokens.length <= context;
    // As many windows as fit behind the largest offset, so that the number of a row says which pass it is of.
    const windows = tooShort ? 0 : windowCount({ tokens, context }, slack - 1);
    return { tokens, number, firstRow, windows, slack };
  };
  const first = passOver(options.tokens, 0, 0);
  let pass = first;
  let ordered = -1;
  let order = new Uint32Array();
  let offset = 0;
  /** Goes to the pass that a row is of, and lets the part behind it come. */
  async function goTo(row: number): Promise<void> {
    if (row < pass.firstRow) pass = first;
    while (row >= pass.firstRow + pass.windows) {
      const following = await pass.tokens.next?.() ?? options.tokens;
      pass = passOver(following, pass.number + 1, pass.firstRow + pass.windows);
    }
    // What goes wrong with it is thrown when it is needed.
    if (rows > pass.firstRow + pass.windows) pass.tokens.next?.().catch(() => {});
    if (ordered === pass.number) return;
    ordered = pass.number;
    const stream = randomStream(seed, pass.number);
    offset = stream.below(pass.slack);
    order = permutation(pass.windows, stream) as Uint32Array<ArrayBuffer>;
  }
  return {
    async at(position) {
      const result = emptyBatch(options, batch);
      for (let row = 0; row < batch; row++) {
        const index = position * batch + row;
        await goTo(index);
        const { tokens, firstRow } = pass;
        const start = offset + order[index - firstRow] * (tokens.exampleTokens ?? context);
        await fillRow({ tokens, batch, context }, result, row, start);
      }
      return result;
    },
  };
}

/** Windows that an evaluation takes. */
function windowsOf(options: BatchShape & { limit?: number }): number {
  const { context, limit = Infinity } = options;
  return Math.min(windowCount(options, 0), Math.max(1, Math.floor(limit / context)));
}

/**
 * How many batches {@link sequentialBatches} gives.
 *
 * @throws {UserError} when the tokens do not fill one window
 */
export function batchCount(options: BatchShape & { limit?: number }): number {
  return Math.ceil(windowsOf(options) / options.batch);
}

/**
 * Batches for evaluation: non-overlapping windows in order, up to `limit` tokens, and one at least. The last batch is
 * filled up with rows whose targets do not count.
 *
 * @throws {UserError} when the tokens do not fill one window
 */
export async function* sequentialBatches(options: BatchShape & { limit?: number }): AsyncGenerator<Batch> {
  const { tokens, batch, context } = options;
  const stride = tokens.exampleTokens ?? context;
  const windows = windowsOf(options);
  for (let first = 0; first < windows; first += batch) {
    const result = emptyBatch(options, Math.min(batch, windows - first));
    for (let row = 0; row < result.rows; row++) await fillRow(options, result, row, (first + row) * stride);
    yield result;
  }
}
