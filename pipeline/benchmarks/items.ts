/**
 * What a benchmark asks of a model: texts, and how likely each is to go on as given.
 *
 * @module
 */
import { inputError } from "../errors.ts";
import { isObject, shown } from "../files.ts";
import type { DataRecord } from "../text/documents.ts";

/** How likely is the continuation behind the context? */
export interface Request {
  /** May be empty. */
  context: string;
  /** With the space that stands before it. */
  continuation: string;
}

/** Several continuations, of which one is right, or several are. */
export interface ChoiceItem {
  kind: "choices";
  /** One for each choice. */
  requests: readonly Request[];
  /** Characters of each choice, without the space before it. */
  lengths: readonly number[];
  /** Which are right. */
  right: readonly boolean[];
  /** Of a benchmark that is made of several sets, which one. */
  set?: string;
}

/** Where what is asked for stands in a text. */
export interface Needle {
  /** Tokens that the text was to fill. */
  length: number;
  /** Share of the filler that stands before it, %. */
  depth: number;
  /** Tokens between its end and the first that is asked for. */
  distance: number;
}

/** A text whose last word is to be found. */
export interface WordItem {
  kind: "word";
  requests: readonly [Request];
  /** Where the text has the word already, when it was made so. */
  needle?: Needle;
}

/** A document, all of whose tokens count. */
export interface RollingItem {
  kind: "rolling";
  /** What the model reads. */
  text: string;
  /** Of the document as it was written, by which its log-likelihood is divided. */
  words: number;
  bytes: number;
}

/** One item of a benchmark. */
export type Item = ChoiceItem | WordItem | RollingItem;

/** An item, and the file and line that it is from, as errors name them. */
export type PlacedItem = Item & { where: string };

/** What items are made for that no data holds. */
export interface Making {
  /** Tokens that the model reads of an item, at most; the shortest first, none twice. */
  lengths: readonly number[];
  /** Items, at most. */
  limit: number;
  /** Keys all that is drawn. */
  seed: number;
  /** A request as the model's tokens, however many, of which the last count. */
  encode(request: Request): { tokens: readonly number[]; counted: number };
}

/** A row of a benchmark's data, whose fields are what they must be or are refused by name and value. */
export class Row {
  readonly #fields: Readonly<Record<string, unknown>>;

  /** @param record `where` it is from is named in errors */
  constructor(readonly record: DataRecord, fields?: unknown) {
    const value = fields ?? record.value;
    if (!isObject(value)) {
      throw inputError(`Cannot use ${record.where} as it must be an object: ${shown(value)}`);
    }
    this.#fields = value;
  }

  /** @throws {UserError} that says what `field` must be, and what it is */
  fail(field: string, required: string): never {
    throw inputError(
      `Cannot use ${this.record.where} as ${field} must be ${required}: ${shown(this.#fields[field])}`,
    );
  }

  /** Whether there is such a field. */
  has(field: string): boolean {
    return (this.#fields[field] ?? undefined) !== undefined;
  }

  /** A text. */
  text(field: string): string {
    const value = this.#fields[field];
    return typeof value === "string" ? value : this.fail(field, "a text");
  }

  /** A list of texts, at least `least`. */
  texts(field: string, least = 1): string[] {
    const value = this.#fields[field];
    const isList = Array.isArray(value) && value.length >= least &&
      value.every((each) => typeof each === "string");
    return isList ? value : this.fail(field, `a list of ${least} texts or more`);
  }

  /** A list of whole numbers. */
  numbers(field: string): number[] {
    const value = this.#fields[field];
    // Parquet has 64 bits, and columns of numbers as typed arrays.
    const list = Array.isArray(value) || ArrayBuffer.isView(value)
      ? Array.from(value as ArrayLike<unknown>, wholeNumber)
      : [undefined];
    return list.every((each) => each !== undefined) ? list : this.fail(field, "a list of whole numbers");
  }

  /** The place of the right one of `count` choices, as a number or a text of one, counted from `first`. */
  choice(field: string, count: number, first = 0): number {
    const value = this.#fields[field];
    const number = typeof value === "string" && /^\s*\d+\s*$/.test(value)
      ? Number(value)
      : wholeNumber(value);
    const index = number === undefined ? -1 : number - first;
    return index >= 0 && index < count
      ? index
      : this.fail(field, `a number from ${first} to ${first + count - 1}`);
  }

  /** An object within it. */
  inside(field: string): Row {
    const value = this.#fields[field];
    return isObject(value) ? new Row(this.record, value) : this.fail(field, "an object");
  }

  /** A list of objects within it. */
  all(field: string): Row[] {
    const value = this.#fields[field];
    return Array.isArray(value) && value.length > 0 && value.every(isObject)
      ? value.map((each) => new Row(this.record, each))
      : this.fail(field, "a list of objects");
  }

  /** The names of its fields, with their values. */
  entries(): [string, unknown][] {
    return Object.entries(this.#fields);
  }
}

function wholeNumber(value: unknown): number | undefined {
  if (typeof value === "bigint") return Number(value);
  return typeof value === "number" && Number.isInteger(value) ? value : undefined;
}

/** Characters of a text: Unicode's, of which some take two of JavaScript's. */
export const charactersOf = (text: string): number => [...text].length;
