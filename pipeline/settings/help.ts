/**
 * What `--help` and `--version` print.
 *
 * @module
 */
import { flagName } from "../flags.ts";
import project from "../../deno.json" with { type: "json" };
import { hasRuns, type ParsedCommand } from "./parse.ts";
import { defaultsOf, type Locate, type Resolved, resolveFully } from "./resolve.ts";
import type { SettingsTable } from "./table.ts";

/** Columns of a terminal that a help text fits. */
const HELP_COLUMNS = 118;

/** What `--version` prints. */
export function versionText(): string {
  return `sparse-attention ${project.version}, Deno ${Deno.version.deno}`;
}

/**
 * The `--help` text of a command.
 *
 * @param options `resolved`: what would be in force with the other arguments; left out: the table's values
 */
export function helpText<const Table extends SettingsTable>(
  command: string,
  purpose: string,
  table: Table,
  { resolved }: { resolved?: Resolved<Table> } = {},
): string {
  const groups = new Map<string, HelpLine[]>();
  const line = (group: string, left: string, right: string, value = ""): void => {
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group)!.push({ left, right, value });
  };
  const values: Record<string, unknown> = resolved?.settings ?? defaultsOf(table);
  for (const [name, setting] of Object.entries(table)) {
    const key = flagName(name);
    const value = values[name];
    if (setting.kind === "flag") {
      const left = value ? `--[no-]${key}` : `--${key}`;
      line(setting.group, left, setting.help + (value ? " (on)" : ""));
      continue;
    }
    const placeholder = "placeholder" in setting
      ? setting.placeholder
      : setting.kind === "choice"
      ? setting.choices.join("|")
      : "N";
    const shown = Array.isArray(value) ? value.join(" ") : value;
    const isShown = shown !== undefined && shown !== "";
    const left = "alone" in setting ? `[${placeholder}]` : placeholder;
    line(setting.group, `--${key} ${left}`, setting.help, isShown ? `(${shown})` : "");
  }
  line("Settings", "--config FILE", "the same settings as JSON, names in camelCase; a flag wins");
  if (hasRuns(table)) line("Settings", "--resume NAME", "go on with a stopped run");
  line("Settings", "--help", `this text${"model" in table ? "; with --model, what would hold for it" : ""}`);
  line("Settings", "--version", "the version of this program, and of Deno");
  const width = Math.max(...[...groups.values()].flat().map(({ left }) => left.length));
  const body = [...groups].map(([group, lines]) =>
    `${group}:\n${lines.map((each) => helpLine(each, width)).join("\n")}`
  );
  const origin = resolved && originOfDefaults(resolved);
  const usage = `Usage: deno task ${command} [flags]${origin ? `\n\n${origin}` : ""}`;
  return `${purpose}\n\n${usage}\n\n${body.join("\n\n")}\n`;
}

interface HelpLine {
  left: string;
  right: string;
  /** What holds without the flag, in brackets. */
  value: string;
}

/** One setting in a help text; a long value stands on a line of its own. */
function helpLine({ left, right, value }: HelpLine, width: number): string {
  const line = `  ${left.padEnd(width)}  ${right}`;
  if (!value) return line;
  const isLong = line.length + 1 + value.length > HELP_COLUMNS;
  return line + (isLong ? `\n${" ".repeat(width + 4)}` : " ") + value;
}

/** Whose defaults a help text shows, where a model has a say in them. */
function originOfDefaults<Table extends SettingsTable>(
  { settings, recommended, fitted }: Resolved<Table>,
): string | undefined {
  const { model } = settings as { model?: string };
  const names = [...Object.keys(recommended), ...Object.keys(fitted)].map((name) => `--${flagName(name)}`);
  if (names.length === 0) return undefined;
  return `In brackets: what holds with --model ${model}, which itself decides\n${listed(names)}.`;
}

/** Words with commas between them, in lines of a help text. */
function listed(words: readonly string[]): string {
  let text = "";
  let column = 0;
  words.forEach((word, n) => {
    const next = n < words.length - 1 ? `${word},` : word;
    // The last is followed by a full stop.
    const fits = column + 1 + next.length < HELP_COLUMNS;
    text += n === 0 ? next : (fits ? " " : "\n") + next;
    column = n > 0 && fits ? column + 1 + next.length : next.length;
  });
  return text;
}

/** What a command prints in place of doing anything, where that was asked for: its help, or the version. */
export async function printedInstead<const Table extends SettingsTable>(
  command: string,
  purpose: string,
  table: Table,
  parsed: ParsedCommand<Table>,
  locate?: Locate,
): Promise<string | undefined> {
  if (parsed.version) return versionText();
  if (!parsed.help) return undefined;
  const resolved = await resolveFully(table, parsed, locate);
  return helpText(command, purpose, table, { resolved });
}
