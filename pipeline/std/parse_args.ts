/**
 * The part of `@std/cli/parse-args` that the commands use, over `node:util`, which Deno has built in. Where JSR can be
 * reached, map `@std/cli/parse-args` to `jsr:@std/cli@1/parse-args` in deno.json instead: the signature is the same.
 *
 * @module
 */
import { parseArgs as nodeParseArgs } from "node:util";

/** Which flags there are, as std's options of the same names. */
export interface ParseOptions {
  boolean?: readonly string[];
  string?: readonly string[];
  /** Strings that may be given several times. */
  collect?: readonly string[];
  /** Booleans that `--no-` turns off. */
  negatable?: readonly string[];
  alias?: Readonly<Record<string, string>>;
  /** Called for what is not declared; a flag is left out of the result when it returns false. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

/** Values by flag, and what is no flag under `_`. */
export type ParsedArgs = { _: string[] } & Record<string, unknown>;

/**
 * Parses command-line arguments.
 *
 * @example
 * ```ts
 * import { parseArgs } from "@std/cli/parse-args";
 *
 * parseArgs(["--steps", "10", "--no-control"], { string: ["steps"], boolean: ["control"], negatable: ["control"] });
 * // { _: [], steps: "10", control: false }
 * ```
 */
export function parseArgs(args: string[], options: ParseOptions = {}): ParsedArgs {
  const { boolean = [], string = [], collect = [], negatable = [], alias = {}, unknown } = options;
  const { tokens } = nodeParseArgs({
    args,
    strict: false,
    tokens: true,
    allowPositionals: true,
    options: Object.fromEntries(string.map((name) => [name, { type: "string" as const }])),
  });
  const result: ParsedArgs = { _: [] };
  for (const token of tokens) {
    if (token.kind === "positional") {
      if (unknown?.(token.value) !== false) result._.push(token.value);
      continue;
    }
    if (token.kind !== "option") continue;
    const name = alias[token.name] ?? token.name;
    const positive = name.replace(/^no-/, "");
    if (string.includes(name)) {
      // A flag at the end of the line has no value; std gives the empty string.
      const value = token.value ?? "";
      if (collect.includes(name)) result[name] = [...(result[name] as string[] ?? []), value];
      else result[name] = value;
    } else if (boolean.includes(name)) result[name] = token.value === undefined || token.value !== "false";
    else if (name !== positive && negatable.includes(positive)) result[positive] = false;
    else if (unknown?.(token.rawName, name, token.value) !== false) result[name] = token.value ?? true;
  }
  return result;
}
