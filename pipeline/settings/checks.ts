/**
 * What settings must be beside each other, and beside the model.
 *
 * @module
 */
import { inputError, usageError } from "../errors.ts";
import { flagName } from "../flags.ts";
import type { SettingsTable } from "./table.ts";

/** @throws {UserError} on a setting that exceeds another that bounds it */
export function checkOrder(table: SettingsTable, settings: Record<string, unknown>): void {
  for (const [name, setting] of Object.entries(table)) {
    if (setting.kind !== "number" || setting.atMost === undefined) continue;
    const [value, bound] = [settings[name] as number, settings[setting.atMost] as number];
    if (value > bound) {
      throw usageError(
        `Cannot use --${flagName(name)} as it must be at most --${
          flagName(setting.atMost)
        } ${bound}: ${value}`,
      );
    }
  }
}

/** Why a setting has no effect beside the others, or contradicts them; undefined where it does neither. */
export function faultOfNeed(
  table: SettingsTable,
  name: string,
  settings: Readonly<Record<string, unknown>>,
): string | undefined {
  const { needs = [] } = table[name];
  for (const { setting, holds, told } of [needs].flat()) {
    const [other, own] = [settings[setting], settings[name]];
    if (!holds(other, own)) return told(other, own);
  }
  return undefined;
}

/**
 * @param given what the user says, of all settings
 * @throws {UserError} on a setting that is given and cannot have an effect, or contradicts another
 */
export function checkNeeds(
  table: SettingsTable,
  given: Readonly<Record<string, unknown>>,
  settings: Readonly<Record<string, unknown>>,
): void {
  for (const name of Object.keys(given)) {
    const fault = faultOfNeed(table, name, settings);
    if (fault !== undefined) throw usageError(`Cannot use --${flagName(name)} ${fault}`);
  }
}

/** The data a command needs, or the error that none was given. */
export function requireData(data: readonly string[]): void {
  if (data.length === 0) throw usageError("Cannot go on without text: give --data PATH");
}

/** A context or the error that the model is shorter. */
export function checkContext(context: number, contextLength: number, model: string): void {
  if (context > contextLength) {
    throw inputError(
      `Cannot use a context of ${context} as the positions of ${model} end at ${contextLength}`,
    );
  }
}
