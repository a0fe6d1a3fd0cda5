/**
 * A family of models: how its config.json reads and writes, and under which names its files hold the parameters. Data
 * alone; what is computed follows from the choices that it reads (trace.ts).
 *
 * @module
 */
import { inputError } from "../errors.ts";
import { shown } from "../files.ts";
import type { ModelConfig } from "./config.ts";

/** One parameter in a family's files: by itself, or several side by side in our columns. */
export interface StoredName {
  /** Ours, without `.weight` or `.bias`. */
  readonly name: string;
  /** Theirs, in the order of our columns; left out: ours. */
  readonly parts?: readonly string[];
}

/** Names of a family's parameters, without the prefix that all but the head may have. */
export interface ParameterNames {
  readonly token: string;
  readonly position?: string;
  readonly final: string;
  /** Where it is not tied to the token's. */
  readonly head: string;
  /** Before a layer's number. */
  readonly layers: string;
  /** Within a layer. */
  readonly attentionNorm: string;
  readonly queryNorm?: string;
  readonly keyNorm?: string;
  readonly qkv: StoredName;
  readonly attentionOut: string;
  readonly mlpNorm: string;
  readonly mlpIn: StoredName;
  readonly mlpOut: string;
}

/** A family. */
export interface Family {
  /** `model_type` of its config.json. */
  readonly type: string;
  /** `architectures` that a saved model names. */
  readonly architecture: string;
  /** Before every name in its files but the head's. */
  readonly prefix: string;
  readonly names: ParameterNames;
  /** Whether its files hold linear weights as [out, in], as torch.nn.Linear does. */
  readonly transposed: boolean;
  /** Whether queries, keys and values stand by head, [H, 3, D], rather than one behind the other. */
  readonly byHead?: boolean;
  /** What its files may hold that is no parameter. */
  readonly buffers?: RegExp;
  /** Reads the fields of a config.json. */
  parse(fields: Fields): ModelConfig;
  /** Writes them. */
  toJson(config: ModelConfig): Record<string, unknown>;
}

/** The fields of a config.json, each of which is what it must be, or refused by its name and value. */
export class Fields {
  constructor(readonly json: Readonly<Record<string, unknown>>, readonly path: string) {}

  /** @throws {UserError} that says what `field` must be, and what it is */
  fail(field: string, required: string): never {
    throw inputError(`Cannot load ${this.path} as ${field} must be ${required}: ${shown(this.json[field])}`);
  }

  /** A positive integer. */
  count(field: string, fallback?: number): number {
    const value = this.json[field] ?? fallback;
    if (!Number.isInteger(value) || (value as number) < 1) this.fail(field, "a positive integer");
    return value as number;
  }

  /** A positive number that float32 holds: JSON's 1e999 is none. */
  positive(field: string, fallback?: number): number {
    const value = this.json[field] ?? fallback;
    if (typeof value !== "number" || !Number.isFinite(Math.fround(value)) || value <= 0) {
      this.fail(field, "a positive number");
    }
    return value as number;
  }

  flag(field: string, fallback: boolean): boolean {
    const value = this.json[field] ?? fallback;
    if (typeof value !== "boolean") this.fail(field, "true or false");
    return value as boolean;
  }

  /** Fails unless the field is one of these; left out: the first. */
  oneOf(field: string, values: readonly unknown[]): void {
    if (values.includes(this.json[field] ?? values[0])) return;
    this.fail(field, values.map((value) => JSON.stringify(value)).join(" or "));
  }
}
