/**
 * What a table of settings is: kinds of settings, and the values that they take.
 *
 * @module
 */

/** What a setting needs of another so as to have an effect. */
export interface Need {
  /** Name of the other. */
  setting: string;
  /** Whether it is so, by the values of both. */
  holds(other: unknown, own: unknown): boolean;
  /** Says behind "Cannot use --flag" why it cannot be used. */
  told(other: unknown, own: unknown): string;
}

interface Common {
  help: string;
  group: string;
  /** Refused where the user gives it and this does not hold; what a model recommends, or holds by default, may be idle. */
  needs?: Need | readonly Need[];
  /** False where a model's sparsify.json, which says how it is trained, has no say. */
  byModel?: false;
}

/** One setting: what kind of value it takes, its default and its line in `--help`. */
export type Setting =
  | (Common & {
    kind: "path" | "name" | "text";
    value: string | undefined;
    placeholder: string;
    /** Whether a model of the hub may be named where there is no such folder. */
    hub?: boolean;
  })
  | (Common & {
    kind: "paths" | "names";
    value: readonly string[];
    placeholder: string;
    /** Whether data of the hub may be named. */
    hub?: boolean;
  })
  | (Common & {
    kind: "number";
    value: number;
    lowest: number;
    highest?: number;
    above?: boolean;
    integer?: boolean;
    /** Name of another setting that it must not exceed. */
    atMost?: string;
  })
  | (Common & {
    kind: "numberOrAuto";
    value: number | "auto";
    lowest: number;
    above?: boolean;
    integer?: boolean;
    /** The flag may stand without a value: nothing is run then, see {@link ParsedCommand.needs}. */
    alone?: true;
    /** A word that it may be instead. */
    or?: string;
  })
  | (Common & { kind: "choice"; value: string; choices: readonly string[]; placeholder?: string })
  | (Common & { kind: "flag"; value: boolean });

/** The settings of one command by name (camelCase; the flag is the same in kebab-case). */
export type SettingsTable = Record<string, Setting>;

type ValueOf<S extends Setting> = S extends { kind: "path" | "name" | "text"; value: infer V }
  ? V extends string ? string
  : string | undefined
  : S extends { kind: "paths" | "names" } ? string[]
  : S extends { kind: "number" } ? number
  : S extends { kind: "numberOrAuto"; or: infer Word } ? number | "auto" | Word
  : S extends { kind: "numberOrAuto" } ? number | "auto"
  : S extends { kind: "choice"; choices: readonly (infer C)[] } ? C
  : boolean;

/** The values that a table describes. */
export type SettingsOf<Table extends SettingsTable> = {
  -readonly [Name in keyof Table]: ValueOf<Table[Name]>;
};
