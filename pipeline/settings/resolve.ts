/**
 * The settings that are in force: flags before a file of settings before what the model recommends before the table.
 *
 * @module
 */
import { dirname, join, resolve } from "node:path";
import { usageError } from "../errors.ts";
import { exists, isObject, readJson } from "../files.ts";
import { flagName } from "../flags.ts";
import { readModelConfig } from "../model/config_file.ts";
import { SPARSIFY } from "../settings.ts";
import { checkNeeds, checkOrder } from "./checks.ts";
import { fromFolder, type ParsedCommand, parseValue, suggestion } from "./parse.ts";
import type { SettingsOf, SettingsTable } from "./table.ts";

/**
 * Reads settings from a JSON file, with the names of the table as keys.
 *
 * @param relativeTo folder that relative paths in the file are taken from; left out: the working folder
 * @throws {UserError} on a file that is no JSON object, an unknown key or a bad value
 */
export async function readSettingsFile<const Table extends SettingsTable>(
  table: Table,
  path: string,
  relativeTo?: string,
): Promise<Partial<SettingsOf<Table>>> {
  const json = await readJson(path).catch((error) => {
    throw usageError(`Cannot read settings from ${path}: ${(error as Error).message}`, { cause: error });
  });
  if (!isObject(json)) throw usageError(`Cannot read settings from ${path} as it must be a JSON object`);
  return checkedSettings(table, json, path, relativeTo);
}

/**
 * Settings with the names of the table as keys, each value checked.
 *
 * @param label what error messages call where they are from
 * @throws {UserError} on an unknown key or a bad value
 */
export function checkedSettings<const Table extends SettingsTable>(
  table: Table,
  values: Readonly<Record<string, unknown>>,
  label: string,
  relativeTo?: string,
): Partial<SettingsOf<Table>> {
  const settings: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(values)) {
    if (!Object.hasOwn(table, name)) {
      throw usageError(`Cannot use ${label}: unknown key ${name}${suggestion(name, Object.keys(table))}`);
    }
    const checked = parseValue(`${name} in ${label}`, table[name], value);
    settings[name] = fromFolder(table[name], checked, relativeTo);
  }
  return settings as Partial<SettingsOf<Table>>;
}

/** Where a model lies. */
export interface Located {
  /** Its folder. */
  folder: string;
  /** What it is called: the folder, or its name on the hub with the commit. */
  name: string;
}

/** Finds a model, which may have to be fetched. */
export type Locate = (model: string) => Promise<Located>;

const inItsFolder: Locate = (model) => Promise.resolve({ folder: model, name: model });

/** Settings, and what of them a model decided. */
export interface Resolved<Table extends SettingsTable> {
  settings: SettingsOf<Table>;
  /** The model's folder, where there is a model. */
  modelFolder: string | undefined;
  /** What stands in force because the model folder's sparsify.json says so. */
  recommended: Partial<SettingsOf<Table>>;
  /** What is lower than the table says as the model has fewer positions. */
  fitted: Partial<SettingsOf<Table>>;
}

/**
 * All settings of a command, in the order of precedence.
 *
 * @throws {UserError} as {@link readSettingsFile}, and on a setting that exceeds another that bounds it
 */
export async function resolveSettings<const Table extends SettingsTable>(
  table: Table,
  parsed: Pick<ParsedCommand<Table>, "given" | "config" | "folder">,
): Promise<SettingsOf<Table>> {
  return (await resolveFully(table, parsed)).settings;
}

/**
 * All settings of a command, and which of them come from the model.
 *
 * @param locate finds the model's folder; left out: the model is one
 * @throws {UserError} as {@link resolveSettings}, and whatever `locate` throws
 */
export async function resolveFully<const Table extends SettingsTable>(
  table: Table,
  { given, config, folder }: Pick<ParsedCommand<Table>, "given" | "config" | "folder">,
  locate: Locate = inItsFolder,
): Promise<Resolved<Table>> {
  const defaults = defaultsIn(table, folder);
  const file: Record<string, unknown> = config ? await readSettingsFile(table, config, folder) : {};
  const chosen: Record<string, unknown> = { ...file, ...given };
  const { model } = { ...defaults, ...chosen } as { model?: string };
  const located = model === undefined ? undefined : await locate(model);
  const inFile = await recommended(table, located);
  const fitted = await fittedTo(located?.folder, defaults, { ...inFile, ...chosen });
  const without = { ...defaults, ...fitted, ...inFile } as Record<string, unknown>;
  const settings = {
    ...without,
    ...chosen,
    ...(located ? { model: located.name } : {}),
  };
  checkOrder(table, settings);
  // A file may hold all of a run's settings, also those that were idle there.
  const inForceAnyway = (name: string) => JSON.stringify(file[name]) === JSON.stringify(without[name]);
  const fromFile = Object.entries(file).filter(([name]) => !inForceAnyway(name));
  checkNeeds(table, { ...Object.fromEntries(fromFile), ...given }, settings);
  return {
    settings: settings as SettingsOf<Table>,
    modelFolder: located?.folder,
    recommended: Object.fromEntries(
      Object.entries(inFile).filter(([name]) => !Object.hasOwn(chosen, name)),
    ) as Partial<SettingsOf<Table>>,
    fitted: fitted as Partial<SettingsOf<Table>>,
  };
}

/**
 * The default context where the model has fewer positions, and a default batch of about as many tokens.
 *
 * @param chosen what the user or the model's recommendation says
 */
async function fittedTo(
  model: string | undefined,
  { context, batch }: Record<string, unknown>,
  chosen: Record<string, unknown>,
): Promise<Record<string, unknown>> {
  if (model === undefined || typeof context !== "number" || "context" in chosen) return {};
  // What is wrong with the model is said when it is opened.
  const config = await readModelConfig(model).catch(() => undefined);
  if (!config || config.contextLength >= context) return {};
  const { contextLength } = config;
  const keepsTokens = typeof batch === "number" && !("batch" in chosen);
  return {
    context: contextLength,
    ...(keepsTokens ? { batch: Math.floor(batch * context / contextLength) } : {}),
  };
}

/** One line on the settings that come from the model; undefined where none do. */
export function fromModelLine<Table extends SettingsTable>(
  { settings, recommended, fitted }: Resolved<Table>,
): string | undefined {
  const { model } = settings as { model?: string };
  const list = (values: object): string =>
    Object.entries(values).map(([name, value]) => `${flagName(name)} ${value}`).join(", ");
  const lines = [
    [recommended, `from ${join(model ?? "", "sparsify.json")}`],
    [fitted, `as the positions of ${model} end there`],
  ] as const;
  const said = lines.filter(([values]) => Object.keys(values).length > 0)
    .map(([values, where]) => `${list(values)} (${where})`);
  return said.length > 0 ? `settings from the model: ${said.join("; ")}` : undefined;
}

/** The table's own values; paths are such that they hold where the user stands. */
export function defaultsIn(table: SettingsTable, folder: string | undefined): Record<string, unknown> {
  const defaults = defaultsOf(table);
  if (folder === undefined) return defaults;
  return Object.fromEntries(
    Object.entries(defaults).map(([name, value]) => [
      name,
      table[name].kind === "path" && typeof value === "string" ? resolve(value) : value,
    ]),
  );
}

/** The table's own values. */
export function defaultsOf(table: SettingsTable): Record<string, unknown> {
  return Object.fromEntries(Object.entries(table).map(([name, { value }]) => [name, value]));
}

/** What a stranger's model may recommend: how it is trained, and neither what is read nor where anything is written. */
const OF_A_STRANGER = ["Training", "Gates"];

/** What a model's sparsify.json recommends, as far as the command has such settings. */
async function recommended(
  table: SettingsTable,
  model: Located | undefined,
): Promise<Record<string, unknown>> {
  if (model === undefined) return {};
  const path = join(model.folder, "sparsify.json");
  if (!await exists(path)) return {};
  const settings = await readSettingsFile(SPARSIFY, path, dirname(path));
  const isFromHub = model.name !== model.folder;
  return Object.fromEntries(
    Object.entries(settings).filter(([name]) =>
      name in table && table[name].byModel !== false &&
      (!isFromHub || OF_A_STRANGER.includes(table[name].group))
    ),
  );
}
