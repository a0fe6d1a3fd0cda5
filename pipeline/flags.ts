/**
 * Settings as the flags of a command, and words as a shell reads them.
 *
 * @module
 */

/** A setting's flag without its dashes: `lambdaStart` is `lambda-start`. */
export const flagName = (setting: string): string =>
  setting.replace(/[A-Z]/g, (letter) => "-" + letter.toLowerCase());

/** Settings as flags, those without a value left out: `--no-control`, and a list as so many flags. */
export function flagsOf(settings: Readonly<Record<string, unknown>>): string[] {
  return Object.entries(settings).flatMap(([name, value]) => {
    if (value === undefined || value === null) return [];
    const flag = flagName(name);
    if (typeof value === "boolean") return [value ? `--${flag}` : `--no-${flag}`];
    return [value].flat().map((each) => `--${flag}=${each}`);
  });
}

/** A word as a shell reads it. */
export function shellWord(word: string): string {
  return /^[\w./:=,@%+-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
