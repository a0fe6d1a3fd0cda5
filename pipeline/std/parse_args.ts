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
  /** Values of flags that are not given; without one a boolean is false and a collected string an empty list. */
  default?: Readonly<Record<string, unknown>>;
  /** Short names; the value stands under the long one. */
  alias?: Readonly<Record<string, string>>;
  /** Called with the argument for what is not declared, which is left out of the result when it returns false. */
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
 * // { control: false, _: [], steps: "10" }
 * ```
 */
export function parseArgs(args: string[], options: ParseOptions = {}): ParsedArgs {
  const { boolean = [], string = [], collect = [], negatable = [], alias = {}, unknown } = options;
  const { tokens } = nodeParseArgs({
    args: endFlagsWithoutValue(args, string),
    strict: false,
    tokens: true,
    allowPositionals: true,
    options: Object.fromEntries(string.map((name) => [name, { type: "string" as const }])),
  });
  const absent = {
    ...Object.fromEntries(boolean.map((name) => [name, false])),
    ...Object.fromEntries(collect.map((name) => [name, []])),
    ...options.default,
  };
  const result: ParsedArgs = { _: [] };
  for (const token of tokens) {
    if (token.kind === "positional") {
      if (unknown?.(token.value) !== false) result._.push(token.value);
      continue;
    }
    if (token.kind !== "option") continue;
    const name = Object.hasOwn(alias, token.name) ? alias[token.name] : token.name;
    const positive = name.replace(/^no-/, "");
    if (string.includes(name)) {
      const value = token.value ?? "";
      if (collect.includes(name)) result[name] = [...(result[name] as string[] ?? []), value];
      else result[name] = value;
    } else if (boolean.includes(name)) result[name] = token.value === undefined || token.value !== "false";
    else if (name !== positive && negatable.includes(positive)) result[positive] = false;
    else if (unknown?.(args[token.index], name, token.value) !== false) result[name] = token.value ?? true;
  }
  return { ...absent, ...result };
}

/**
 * `--steps --json` as `--steps= --json`: node:util takes whatever follows a string flag for its value, std only what
 * does not begin with a dash, and gives the empty string where nothing is left.
 */
function endFlagsWithoutValue(args: string[], string: readonly string[]): string[] {
  const end = args.includes("--") ? args.indexOf("--") : args.length;
  return args.map((arg, index) => {
    const takesValue = index < end && arg.startsWith("--") && string.includes(arg.slice(2));
    return takesValue && (args[index + 1] ?? "-").startsWith("-") ? `${arg}=` : arg;
  });
}
