/**
 * From documents to token files: `train.arrow`, `validation.arrow` and `test.arrow` in one folder.
 *
 * Which split a document belongs to follows from its index alone, not from a seed or from the other documents, so that
 * a model post-trained with another seed is still measured on what it was not pre-trained on.
 *
 * @module
 */
import { extname, join } from "node:path";
import {
  type FileSequence,
  filesOf,
  findDataFiles,
  type Source,
  sourceName,
  STANDARD_INPUT,
} from "./data_files.ts";
import { type Example, lineEnds, readDocuments, TEXT_COLUMN, type TextPiece } from "./documents.ts";
import { inputError, UserError } from "../errors.ts";
import {
  digestOf,
  exists,
  hashFile,
  isObject,
  readAt,
  readSealedJson,
  shown,
  storing,
  TEMPORARY,
  writeAll,
  writeSealedJson,
} from "../files.ts";
import { hashWords } from "../../kernels/core/random.ts";
import { turn } from "../turn.ts";
import {
  openTokenFile,
  type TokenArray,
  type TokenChunk,
  type TokenFile,
  writeTokenFile,
} from "./token_file.ts";
import { encodeAhead, type EncodedAhead, type SharedEncoder, textsOf } from "./shared_encoding.ts";
import { type KnownTokens, type Tokenizer, withStart } from "./tokenizer.ts";

/** The three splits. */
export const SPLITS = ["train", "validation", "test"] as const;

/** One of the three splits. */
export type Split = typeof SPLITS[number];

/** Share of the characters that may have no token: beyond it, what is left is another text. */
const MOST_LOST = 0.01;
/** Tokens between two calls of `onProgress`, about. */
const PROGRESS_TOKENS = 1 << 14;
/** Share of the documents in each held-out split. */
const HELD_OUT = { validation: 0.05, test: 0.05 };
const FORMAT = "3";
/** The rule by which documents go to splits, as their files tell it, where there are enough of them. */
const BY_DOCUMENT = "by document: a hash of its index, 5 % validation, 5 % test";
/** Holds the digests of the token files, which are taken for what they were when it was written. */
const DIGESTS = "tokens.json";

/** The split that a document belongs to, by its index among all documents. */
export function splitOf(index: number): Split {
  const place = hashWords(index) / 2 ** 32;
  if (place < HELD_OUT.validation) return "validation";
  return place < HELD_OUT.validation + HELD_OUT.test ? "test" : "train";
}

/** Whether each split has documents of its own, by {@link splitOf}, rather than a part of all tokens. */
export function isSplitByDocument({ train }: Tokens): boolean {
  return train.metadata.get("split_rule") === BY_DOCUMENT;
}

/** A range of tokens, end excluded. */
interface Range {
  start: number;
  end: number;
}

/** What tokenising gives. */
export type Tokens = Record<Split, TokenFile>;

/**
 * SHA-256 over the hashes of the files that the sources stand for, in order; `-` where standard input is among them,
 * which can be read once only. Of a sequence its name counts, which says what its files hold.
 *
 * @throws {UserError} when a source cannot be read
 */
export async function hashSources(sources: readonly Source[]): Promise<string> {
  if (sources.includes(STANDARD_INPUT)) return STANDARD_INPUT;
  const hashes: string[] = [];
  for (const source of sources) {
    if (typeof source !== "string") {
      hashes.push(source.name);
      continue;
    }
    // One after the other: a folder may have more files than a process may open. An ending says how a file is read.
    for (const file of (await findDataFiles([source])).files) {
      hashes.push(`${await hashFile(file)} ${extname(file).toLowerCase()}`);
    }
  }
  return digestOf(hashes.join("\n"));
}

/** Tokens of each split that are as many as anybody wants. */
export type Enough = Record<Split, number>;

/**
 * Tokenises the sources into `folder`, or opens what an earlier call left there for the same sources, tokenizer and tokens
 * that begin and end a text. The latter stand around every document; an example has the one that begins a text, which is
 * of its prompt.
 *
 * Of sources that have to be fetched no more is read than is enough. Where the only one is a sequence of files, its first
 * files are read until there is enough of the held-out splits; each further file is a part of the training tokens, which
 * comes when it is asked for (`next`).
 *
 * @param options `textColumn`: where records have their text; `hash` is the sources' {@link hashSources}; `enough`: left out: all there is; `onDamage` is told when token files were damaged, which are
 * made anew; `encoder` finds tokens ahead, of what is read to its end; `onLoss`, how many characters were left out as the vocabulary has no token for them, and where the first is
 * @throws {UserError} on unreadable data, on examples of unequal length or with a character that has no token, where more
 * than 1 % of a text has none, where there is too little to split, and when the disk is full
 */
export async function tokenise(
  {
    sources,
    textColumn = TEXT_COLUMN,
    hash,
    tokenizer,
    folder,
    enough,
    encoder,
    onProgress,
    onDamage,
    onLoss,
  }: {
    sources: readonly Source[];
    textColumn?: string;
    hash?: string;
    enough?: Enough;
    tokenizer: Tokenizer;
    folder: string;
    encoder?: SharedEncoder;
    /** Called with the bytes of the sources that have been read, and all of them; undefined for standard input. */
    onProgress?: (read: { done: number; of: number | undefined }) => void;
    onDamage?: (message: string) => void;
    onLoss?: (message: string) => void;
  },
): Promise<Tokens> {
  const { startOfText, endOfText } = tokenizer;
  const identity = {
    format: FORMAT,
    tokenizer: tokenizer.hash,
    sources: hash ?? await hashSources(sources),
    end_of_text: String(endOfText),
    ...(startOfText === undefined ? {} : { start_of_text: String(startOfText) }),
    ...(textColumn === TEXT_COLUMN ? {} : { text_column: textColumn }),
    // What lies on the disk is read to its end.
    ...(enough && sources.some((source) => typeof source !== "string")
      ? { enough: SPLITS.map((split) => enough[split]).join(" ") }
      : {}),
  };
  const [only] = sources;
  const sequence = sources.length === 1 && typeof only !== "string" ? only : undefined;
  const further = sequence && { sequence, textColumn, folder, identity, tokenizer, onLoss };
  const known = await openSplits(folder, identity, onDamage, further);
  if (known) return known;
  // Not what it stands in: a start that is being taken back must not come again.
  await storing(folder, () =>
    Deno.mkdir(folder).catch((error) => {
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }));
  const spillPath = join(folder, "tokens" + TEMPORARY);
  try {
    await Deno.remove(spillPath).catch(() => {});
    using spill = await storing(
      spillPath,
      () => Deno.open(spillPath, { read: true, write: true, createNew: true }),
    );
    const all = await storing(spillPath, () =>
      spillTokens(spill, sources, tokenizer, {
        textColumn,
        ...(identity.enough === undefined ? { enough: undefined, encoder } : { enough }),
        onProgress,
        onLoss,
      }));
    const { ranges, rule } = splitDocuments(all);
    const digests: Record<string, string> = {};
    for (const split of SPLITS) {
      const tokens = ranges[split].reduce((sum, { start, end }) => sum + end - start, 0);
      const metadata = {
        ...identity,
        split,
        split_rule: rule,
        tokens: String(tokens),
        documents: String(ranges[split].length),
        all_documents: String(all.documents.length),
        all_tokens: String(all.length),
        ...(all.lost ? { lost_characters: String(all.lost) } : {}),
        ...(all.exampleTokens ? { example_tokens: String(all.exampleTokens) } : {}),
        ...(all.filesRead === undefined ? {} : { files_read: String(all.filesRead) }),
      };
      const columns = { wide: all.wide, counted: all.exampleTokens !== undefined };
      const path = join(folder, fileOf(split));
      digests[split] = await writeTokenFile(path, columns, metadata, readRanges(spill, ranges[split], all));
    }
    await writeSealedJson(join(folder, DIGESTS), { ...identity, digests });
  } finally {
    await Deno.remove(spillPath).catch(() => {});
  }
  return await openFiles(folder, further);
}

const fileOf = (split: Split): string => `${split}.arrow`;

/** What an earlier call left, if it is whole and was made of the same. */
async function openSplits(
  folder: string,
  identity: Record<string, string>,
  onDamage: ((message: string) => void) | undefined,
  further: Further | undefined,
): Promise<Tokens | undefined> {
  const path = join(folder, DIGESTS);
  if (!await exists(path)) return undefined;
  try {
    const { digests, ...made } = await readSealedJson(path);
    if (JSON.stringify(made) !== JSON.stringify(identity) || !isObject(digests)) {
      if (identity.sources !== STANDARD_INPUT || made.sources !== STANDARD_INPUT) return undefined;
      throw inputError(`${folder} was tokenised in another way, as by an earlier version`);
    }
    for (const split of SPLITS) {
      const file = join(folder, fileOf(split));
      if (await hashFile(file) !== digests[split]) {
        throw inputError(`${file} is damaged: it has another SHA-256`);
      }
    }
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    if (identity.sources === STANDARD_INPUT) {
      throw inputError(
        `Cannot go on as ${error.message}; standard input is not there again: give the same text with --data`,
      );
    }
    onDamage?.(`${error.message}; the data is tokenised anew`);
    return undefined;
  }
  return await openFiles(folder, further);
}

async function openFiles(folder: string, further: Further | undefined): Promise<Tokens> {
  const [train, validation, test] = await Promise.all(
    SPLITS.map((split) => openTokenFile(join(folder, fileOf(split)))),
  );
  const filesRead = train.metadata.get("files_read");
  const goesOn = further !== undefined && filesRead !== undefined;
  return { train: goesOn ? withNext(train, further, Number(filesRead)) : train, validation, test };
}

/** What the further parts of the training tokens are made of. */
interface Further {
  sequence: FileSequence;
  textColumn: string;
  folder: string;
  identity: Record<string, string>;
  tokenizer: Tokenizer;
  onLoss?: (message: string) => void;
}

/** A part of the training tokens that knows the one behind it, which is made of the file of an index. */
function withNext(part: TokenFile, further: Further, index: number): TokenFile {
  let following: Promise<TokenFile | undefined> | undefined;
  return {
    ...part,
    // Whoever asks again after a failure may find the net there again.
    next: () =>
      following ??= openPart(further, index).catch((error) => {
        following = undefined;
        throw error;
      }),
  };
}

/** The training tokens of one file of a sequence, made where they are not there; undefined behind the last file. */
async function openPart(further: Further, index: number): Promise<TokenFile | undefined> {
  const { sequence, folder, identity } = further;
  const name = `train-${index}`;
  const path = join(folder, `${name}.arrow`);
  const sealed = join(folder, `${name}.json`);
  const isWhole = async (): Promise<boolean> => {
    if (!await exists(sealed)) return false;
    const { digest, ...made } = await readSealedJson(sealed);
    return JSON.stringify(made) === JSON.stringify(identity) && await hashFile(path) === digest;
  };
  // What is damaged is made anew.
  if (!await isWhole().catch(() => false)) {
    const file = await sequence.file(index);
    if (file === undefined) return undefined;
    const spillPath = join(folder, name + TEMPORARY);
    try {
      await Deno.remove(spillPath).catch(() => {});
      using spill = await storing(
        spillPath,
        () => Deno.open(spillPath, { read: true, write: true, createNew: true }),
      );
      const all = await storing(spillPath, () => spillFile(spill, file, further));
      const metadata = { ...identity, split: "train", file: String(index), tokens: String(all.length) };
      const columns = { wide: all.wide, counted: false };
      const digest = await writeTokenFile(
        path,
        columns,
        metadata,
        readRanges(spill, [{ start: 0, end: all.length }], all),
      );
      await writeSealedJson(sealed, { ...identity, digest });
    } finally {
      await Deno.remove(spillPath).catch(() => {});
    }
  }
  return withNext(await openTokenFile(path), further, index + 1);
}

/** Writes the tokens of all documents of a file of running text, with a turn of the event loop now and then for whoever trains. */
async function spillFile(
  spill: Deno.FsFile,
  file: string,
  { tokenizer, textColumn, onLoss }: Pick<Further, "tokenizer" | "textColumn" | "onLoss">,
): Promise<Spilled> {
  const writer = new SpillWriter(spill, tokenizer, turn);
  for await (const document of readDocuments([file], { textColumn })) {
    if (document.kind !== "text") throw inputError(`Cannot use ${document.where} as it must be running text`);
    await writer.add(document);
  }
  return writer.end(file, onLoss);
}

const isWide = ({ vocabularySize }: Tokenizer): boolean => vocabularySize > 65536;

/** Bytes of the sources' files; undefined where standard input is among them, or what has to be fetched. */
async function bytesOf(sources: readonly Source[]): Promise<number | undefined> {
  const paths = sources.filter((source) => typeof source === "string");
  if (paths.length < sources.length) return undefined;
  const { files } = await findDataFiles(paths);
  if (files.includes(STANDARD_INPUT)) return undefined;
  let bytes = 0;
  for (const file of files) bytes += (await Deno.stat(file)).size;
  return bytes;
}

/** Tokens that were written one behind the other. */
interface Spilled {
  documents: Range[];
  /** How many there are. */
  length: number;
  wide: boolean;
  /** Tokens of each example; undefined for running text. */
  exampleTokens: number | undefined;
  /** Of an example, the tokens of the prompt, by example. */
  promptTokens: number[];
  /** Of an example of several turns, behind how many tokens each prompt and each completion ends. */
  turnEnds: Map<number, number[]>;
  /** Characters of running text without a token. */
  lost: number;
}

/** Writes documents' tokens one behind the other, and keeps where each begins and ends. */
class SpillWriter {
  /** What all documents are; undefined before the first. */
  kind: "text" | "example" | undefined;
  /** Called behind each document, with how many tokens it has. */
  onDocument: (index: number, tokens: number) => void = () => {};
  readonly #spill: Deno.FsFile;
  readonly #tokenizer: Tokenizer;
  readonly #onProgress: () => void | Promise<void>;
  readonly #spilled: Spilled;
  #start = 0;
  /** Whether the document has had a piece already. */
  #hasPieces = false;
  #characters = 0;
  #firstLost = "";

  /** @param onProgress called now and then */
  constructor(spill: Deno.FsFile, tokenizer: Tokenizer, onProgress: () => void | Promise<void>) {
    this.#spill = spill;
    this.#tokenizer = tokenizer;
    this.#onProgress = onProgress;
    const wide = isWide(tokenizer);
    this.#spilled = {
      documents: [],
      length: 0,
      wide,
      exampleTokens: undefined,
      promptTokens: [],
      turnEnds: new Map(),
      lost: 0,
    };
  }

  /**
   * Writes a document, or the next piece of one.
   *
   * @param ahead tokens of its texts that are known already
   * @throws {UserError} on an example with another number of tokens than the first, or with a character without a token
   */
  async add(document: TextPiece | Example, ahead: EncodedAhead["known"] = []): Promise<void> {
    const spilled = this.#spilled;
    this.kind ??= document.kind;
    if (document.kind === "text") {
      const continued = spilled.length > this.#start;
      // Ahead of the tokens a piece goes on with one before it, even where that has none.
      const known = encodePiece(document, continued, this.#tokenizer, {
        ahead: continued === this.#hasPieces ? ahead[0] : undefined,
      });
      this.#hasPieces = !document.last;
      if (known.lost > 0 && spilled.lost === 0) this.#firstLost = placeOf(document, known.firstLost!);
      spilled.lost += known.lost;
      this.#characters += document.text.length;
      await this.#write(known.tokens);
      if (!document.last) return;
    } else {
      const { prompt, tokens, ends } = encodeExample(document, this.#tokenizer, ahead);
      spilled.exampleTokens ??= tokens.length;
      if (tokens.length !== spilled.exampleTokens) {
        throw inputError(
          `Cannot use ${document.where} as every example must have as many tokens as the first, ` +
            `${spilled.exampleTokens}: ${tokens.length}`,
        );
      }
      if (ends.length > 2) spilled.turnEnds.set(spilled.promptTokens.length, ends);
      spilled.promptTokens.push(prompt);
      await this.#write(tokens);
    }
    const { documents, length } = spilled;
    this.onDocument(documents.length, length - this.#start);
    documents.push({ start: this.#start, end: length });
    this.#start = length;
  }

  async #write(tokens: ArrayLike<number>): Promise<void> {
    const stored = this.#spilled.wide ? Uint32Array.from(tokens) : Uint16Array.from(tokens);
    await writeAll(this.#spill, new Uint8Array(stored.buffer));
    this.#spilled.length += stored.length;
    if (this.#spilled.length % PROGRESS_TOKENS < stored.length) await this.#onProgress();
  }

  /**
   * What was written.
   *
   * @param names of what it is from, for messages
   * @throws {UserError} when too many characters have no token
   */
  end(names: string, onLoss: ((message: string) => void) | undefined): Spilled {
    const { lost } = this.#spilled;
    const loss = `the tokenizer has no token for ${lost} of ${this.#characters} characters ` +
      `(${percent(lost / this.#characters)}), of which the first, ${this.#firstLost}`;
    if (lost > MOST_LOST * this.#characters) {
      throw inputError(`Cannot use ${names} as ${loss}; at most ${percent(MOST_LOST)} may be left out`);
    }
    if (lost > 0) onLoss?.(`${loss}: they are left out`);
    return this.#spilled;
  }
}

/**
 * Writes every document's tokens one behind the other, and says where each begins and ends.
 *
 * @returns with `filesRead`: of a sequence, how many of its files were read; undefined where no more are wanted
 */
async function spillTokens(
  spill: Deno.FsFile,
  sources: readonly Source[],
  tokenizer: Tokenizer,
  { textColumn, enough, encoder, onProgress, onLoss }: {
    textColumn: string;
    enough: Enough | undefined;
    encoder?: SharedEncoder;
    onProgress: ((read: { done: number; of: number | undefined }) => void) | undefined;
    onLoss: ((message: string) => void) | undefined;
  },
): Promise<Spilled & { filesRead: number | undefined }> {
  const names = sources.map(sourceName).join(", ");
  const inParts = sources.length === 1 && typeof sources[0] !== "string";
  const have: Enough = { train: 0, validation: 0, test: 0 };
  const hasEnough = (split: Split): boolean => enough !== undefined && have[split] >= enough[split];
  const of = onProgress && await bytesOf(sources);
  let read = 0;
  const onBytes = (count: number): void => void (read += count);
  const progress = (): void => onProgress?.({ done: Math.min(read, of ?? Infinity), of });
  const writer = new SpillWriter(spill, tokenizer, progress);
  writer.onDocument = (index, tokens) => have[splitOf(index)] += tokens;
  progress();
  let filesRead = 0;
  /** The documents until there is enough; what is said of a file stands behind its last. */
  async function* wanted(): AsyncGenerator<TextPiece | Example> {
    for await (const file of filesOf(sources)) {
      filesRead++;
      for await (const document of readDocuments([file], { textColumn, onBytes })) {
        yield document;
        if (SPLITS.every(hasEnough)) return;
      }
      if (inParts && writer.kind === "text" && hasEnough("validation") && hasEnough("test")) return;
    }
  }
  async function* oneByOne(): AsyncGenerator<EncodedAhead> {
    for await (const document of wanted()) yield { document };
  }
  for await (const { document, known } of encoder ? encodeAhead(wanted(), encoder) : oneByOne()) {
    if (document.kind !== (writer.kind ?? document.kind)) {
      throw inputError(`Cannot use ${names} as running text and examples cannot be mixed`);
    }
    await writer.add(document, known);
  }
  const spilled = writer.end(names, onLoss);
  if (spilled.documents.length === 0) throw inputError(`Cannot use ${names} as there is no document`);
  if (spilled.exampleTokens !== undefined && spilled.documents.length < SPLITS.length) {
    throw inputError(`Cannot use ${names} as training, validation and test need an example each`);
  }
  const goesOn = inParts && writer.kind === "text" && !SPLITS.every(hasEnough);
  return { ...spilled, filesRead: goesOn ? filesRead : undefined };
}

const percent = (share: number): string => `${Number((100 * share).toPrecision(2))} %`;

/** A character of a piece of text, and where it stands. */
function placeOf({ text, where, line }: TextPiece, character: string): string {
  const inLine = line === undefined
    ? where
    : `${where}, line ${line + lineEnds(text.slice(0, text.indexOf(character)))}`;
  return `${shown(character)}, stands in ${inLine}`;
}

/** Tokens of a piece of a text, with those that begin and end a text where it does. */
function encodePiece(
  { text, last }: TextPiece,
  continued: boolean,
  tokenizer: Tokenizer,
  { ahead }: { ahead: KnownTokens | undefined },
): KnownTokens {
  const { startOfText, endOfText } = tokenizer;
  const known = ahead ?? tokenizer.encodeKnown(text, { continued });
  const before = continued || startOfText === undefined ? [] : [startOfText];
  return { ...known, tokens: [...before, ...known.tokens, ...(last ? [endOfText] : [])] };
}

/**
 * An example's tokens, those of its first prompt, and behind how many each prompt and each completion ends.
 *
 * @param ahead tokens of its texts that are known already
 * @throws {UserError} on a character without a token, or a text of none
 */
export function encodeExample(
  example: Example,
  tokenizer: Tokenizer,
  ahead: readonly (KnownTokens | undefined)[] = [],
): { prompt: number; tokens: number[]; ends: number[] } {
  const ends: number[] = [];
  let tokens: number[] = [];
  for (const [n, text] of textsOf(example).entries()) {
    const encoded = ahead[n] ?? tokenizer.encodeKnown(text, { continued: n > 0 });
    if (encoded.lost > 0) {
      throw inputError(
        `Cannot use ${example.where} as the tokenizer has no token for ${shown(encoded.firstLost)}`,
      );
    }
    if (encoded.tokens.length === 0) {
      throw inputError(
        `Cannot use ${example.where} as prompt and completion must have at least one token each`,
      );
    }
    tokens = n === 0 ? withStart(tokenizer, encoded.tokens) : [...tokens, ...encoded.tokens];
    ends.push(tokens.length);
  }
  return { prompt: ends[0], tokens, ends };
}

/** Documents to splits by their index; where that leaves a split empty, by position, which may cut a text and no example. */
function splitDocuments(
  { documents, exampleTokens }: Pick<Spilled, "documents" | "exampleTokens">,
): { ranges: Record<Split, Range[]>; rule: string } {
  const ranges: Record<Split, Range[]> = { train: [], validation: [], test: [] };
  documents.forEach((range, index) => ranges[splitOf(index)].push(range));
  if (SPLITS.every((split) => ranges[split].length > 0)) {
    return { ranges, rule: BY_DOCUMENT };
  }
  const end = documents.at(-1)!.end;
  let validation = Math.floor(end * (1 - HELD_OUT.validation - HELD_OUT.test));
  let test = Math.floor(end * (1 - HELD_OUT.test));
  if (exampleTokens !== undefined) {
    test = Math.floor(test / exampleTokens) * exampleTokens;
    validation = Math.min(Math.floor(validation / exampleTokens) * exampleTokens, test - exampleTokens);
  }
  return {
    ranges: {
      train: [{ start: 0, end: validation }],
      validation: [{ start: validation, end: test }],
      test: [{ start: test, end }],
    },
    rule: "by position, for want of documents: the first 90 % train, then 5 % validation, 5 % test",
  };
}

const READ_TOKENS = 1 << 18;

async function* readRanges(
  spill: Deno.FsFile,
  ranges: Range[],
  all: Pick<Spilled, "wide" | "exampleTokens" | "promptTokens" | "turnEnds">,
): AsyncGenerator<TokenChunk> {
  const bytesEach = all.wide ? 4 : 2;
  for (const { start, end } of ranges) {
    for (let at = start; at < end; at += READ_TOKENS) {
      const count = Math.min(READ_TOKENS, end - at);
      const bytes = (await readAt(spill, at * bytesEach, count * bytesEach))!;
      const tokens: TokenArray = all.wide ? new Uint32Array(bytes.buffer) : new Uint16Array(bytes.buffer);
      const { exampleTokens, promptTokens, turnEnds } = all;
      if (!exampleTokens) yield { tokens };
      else {
        const counted = Uint8Array.from(tokens, (_, n) => {
          const place = at + n;
          const [example, token] = [Math.floor(place / exampleTokens), place % exampleTokens];
          const ends = turnEnds.get(example);
          if (!ends) return token >= promptTokens[example] ? 1 : 0;
          // Behind an odd number of ends stands a completion.
          return ends.findIndex((end) => token < end) % 2 === 1 ? 1 : 0;
        });
        yield { tokens, counted };
      }
    }
  }
}
