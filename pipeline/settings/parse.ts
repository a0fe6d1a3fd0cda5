/**
 * A command's arguments, read by its table.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { parseArgs } from "@std/cli/parse-args";
import { usageError } from "../errors.ts";
import { shown } from "../files.ts";
import { flagName } from "../flags.ts";
import { hubModel, isHubData } from "../hub/names.ts";
import { nearest } from "../nearest.ts";
import { STANDARD_INPUT } from "../text/data_files.ts";
import type { Setting, SettingsOf, SettingsTable } from "./table.ts";

/** What was asked for on the command line. */
export interface ParsedCommand<Table extends SettingsTable> {
  /** `--help` was given. */
  help: boolean;
  /** `--version` was given. */
  version: boolean;
  /** `--memory` stands without a value: what is needed is to be told, and nothing run. */
  needs: boolean;
  /** Only what the flags say. */
  given: Partial<SettingsOf<Table>>;
  /** Value of `--config`. */
  config: string | undefined;
  /** Folder that relative paths are taken from, where it is another than the working folder. */
  folder?: string;
  /** Value of `--resume`. */
  resume: string | undefined;
}

/** Flags with a value that a command has beside its table. */
const specialFlags = (table: SettingsTable): string[] => hasRuns(table) ? ["config", "resume"] : ["config"];

/** Whether a command trains, so that a run of it can be stopped and resumed. */
export const hasRuns = (table: SettingsTable): boolean => "steps" in table;

/**
 * Parses a command's arguments against its table.
 *
 * @param folder that relative paths are taken from; left out: the working folder
 * @throws {UserError} on an unknown flag, a missing or bad value: one line, naming the flag
 */
export function parseCommand<const Table extends SettingsTable>(
  table: Table,
  args: string[],
  folder?: string,
): ParsedCommand<Table> {
  const flags = new Map(Object.keys(table).map((name) => [flagName(name), name]));
  const booleans = [...flags].filter(([, name]) => table[name].kind === "flag").map(([key]) => key);
  const lists = [...flags].filter(([, name]) => isList(table[name])).map(([key]) => key);
  const special = specialFlags(table);
  const strings = [...[...flags.keys()].filter((key) => !booleans.includes(key)), ...special];
  const known = [...flags.keys(), ...special, ...booleans.map((key) => `no-${key}`), "help", "version"];
  checkSwitches(args, [...booleans, "help", "version"]);
  const texts = [...flags].filter(([, name]) => table[name].kind === "text").map(([key]) => key);
  const parsed = parseArgs(joinDashed(args, strings, texts), {
    boolean: [...booleans, "help", "version"],
    string: strings,
    collect: lists,
    negatable: booleans,
    // What was not given must be told from what was given as false.
    default: Object.fromEntries([...flags.keys()].map((key) => [key, undefined])),
    alias: { h: "help" },
    unknown(arg, key) {
      if (key === undefined) throw usageError(`Unknown argument ${arg}`);
      throw usageError(`Unknown flag ${arg}${suggestion(arg.replace(/^-+|=.*/gs, ""), known, "--")}`);
    },
  });
  const given: Record<string, unknown> = {};
  let needs = false;
  for (const [key, name] of flags) {
    if (parsed[key] === undefined) continue;
    const setting = table[name];
    // A value that is there but empty is none.
    if (setting.kind === "numberOrAuto" && setting.alone && parsed[key] === "" && args.includes(`--${key}`)) {
      needs = true;
      continue;
    }
    given[name] = fromFolder(table[name], parseValue(`--${key}`, table[name], parsed[key]), folder);
  }
  for (const key of special) {
    if (parsed[key] === "") throw usageError(`Cannot use --${key} as it needs a value`);
  }
  const config = parsed.config as string | undefined;
  return {
    help: parsed.help === true,
    version: parsed.version === true,
    needs,
    given: given as Partial<SettingsOf<Table>>,
    config: config && folder !== undefined && !isAbsolute(config) ? join(folder, config) : config,
    folder,
    resume: parsed.resume as string | undefined,
  };
}

/** A flag that is on or off takes no value but true or false, its `--no-` form none at all, and only one of the two is given. */
function checkSwitches(args: string[], booleans: string[]): void {
  for (const arg of args) {
    const [, no = "", key, value] = /^--(no-)?([^=]+)=(.*)$/s.exec(arg) ?? [];
    if (key === undefined || !booleans.includes(key)) continue;
    if (no || (value !== "true" && value !== "false")) {
      const required = no ? "given without a value" : "true or false";
      throw usageError(`Cannot use --${no}${key} as it must be ${required}: ${value}`);
    }
  }
  const names = args.map((arg) => arg.split("=")[0]);
  const both = booleans.find((key) => names.includes(`--${key}`) && names.includes(`--no-${key}`));
  if (both !== undefined) throw usageError(`Cannot use --${both} with --no-${both}: give one of the two`);
}

/** `--slack -0.1` as `--slack=-0.1`: a value that begins with a dash would be taken for a flag. */
function joinDashed(args: string[], strings: string[], texts: string[]): string[] {
  const joined: string[] = [];
  for (const arg of args) {
    const last = joined.at(-1);
    const flag = last?.startsWith("--") ? last.slice(2) : "";
    const isValue = /^-[\d.]/.test(arg) || arg === STANDARD_INPUT;
    if ((strings.includes(flag) && isValue) || (texts.includes(flag) && /^-(?!-)/.test(arg))) {
      joined[joined.length - 1] += `=${arg}`;
    } else joined.push(arg);
  }
  return joined;
}

export function parseValue(label: string, setting: Setting, value: unknown): unknown {
  const isBlank = String(value).trim() === "";
  const isText = typeof value === "string" && !isBlank;
  const fail = (required: string): never => {
    // A list of one name, as files can have it, is not to look like the name.
    const found = typeof value === "string" ? value : shown(value);
    throw usageError(`Cannot use ${label} as it must be ${required}: ${isBlank ? "nothing given" : found}`);
  };
  switch (setting.kind) {
    case "flag":
      return typeof value === "boolean" ? value : fail("true or false");
    case "text":
      return typeof value === "string" && value !== "" ? value : fail("a text");
    case "path":
    case "name":
      return isText ? value : fail("a " + setting.kind);
    case "names":
    case "paths": {
      const list = Array.isArray(value) ? value : [value];
      if (list.filter((item) => item === STANDARD_INPUT).length > 1) {
        throw usageError(`Cannot use ${label} ${STANDARD_INPUT} twice as standard input can be read once`);
      }
      return list.length > 0 && list.every((item) => typeof item === "string" && item)
        ? list
        : fail(`a ${setting.kind.slice(0, -1)}`);
    }
    case "choice":
      return isText && setting.choices.includes(value) ? value : fail(`one of ${setting.choices.join(", ")}`);
    case "numberOrAuto":
    case "number": {
      const words = setting.kind === "numberOrAuto" ? ["auto", ...(setting.or ? [setting.or] : [])] : [];
      if (words.includes(value as string)) return value;
      const number = isText ? Number(value) : value;
      if (typeof number !== "number" || !Number.isFinite(number)) {
        return fail(["a number", ...words].join(" or "));
      }
      const { lowest, above } = setting;
      const highest = setting.kind === "number" ? setting.highest ?? Infinity : Infinity;
      if (setting.integer && !Number.isSafeInteger(number)) return fail("a whole number");
      if (above ? number <= lowest : number < lowest) {
        return fail(`${above ? "above" : "at least"} ${lowest}`);
      }
      return number <= highest ? number : fail(`at most ${highest}`);
    }
  }
}

/** What other programs call a setting of ours. */
const ALSO_CALLED: Readonly<Record<string, string>> = { "learning-rate": "lr", "output-dir": "runs" };

/** The nearest known name, as a question, where one is near: `vocab` for `vocabulary`, `batch` for `batch-size`. */
export function suggestion(name: string, known: string[], prefix = ""): string {
  const word = name.toLowerCase();
  const also = Object.hasOwn(ALSO_CALLED, word) ? ALSO_CALLED[word] : undefined;
  const parts = word.split(/[-_]/);
  const near = known.find((other) => other === also) ?? nearest(name, known) ??
    (word.length > 2 ? known.find((other) => other.startsWith(word)) : undefined) ??
    known.find((other) => parts.includes(other)) ??
    known.find((other) => word.length > 2 && other.split("-").includes(word));
  return near === undefined ? "" : ` (did you mean ${prefix}${near}?)`;
}

const isList = ({ kind }: Setting): boolean => kind === "paths" || kind === "names";

/** A value of a setting, its paths taken from a folder where they are relative. */
export function fromFolder(setting: Setting, value: unknown, folder: string | undefined): unknown {
  if (folder === undefined) return value;
  const below = (path: string): string =>
    isAbsolute(path) || path === STANDARD_INPUT ? path : join(folder, path);
  const inFolder = (path: string): string => {
    const hub = "hub" in setting && setting.hub;
    const onHub = hub && (setting.kind === "paths" ? isHubData(path) : hubModel(path) !== undefined);
    return onHub && (setting.kind === "paths" || !existsSync(below(path))) ? path : below(path);
  };
  if (setting.kind === "path") return inFolder(value as string);
  return setting.kind === "paths" ? (value as string[]).map(inFolder) : value;
}
