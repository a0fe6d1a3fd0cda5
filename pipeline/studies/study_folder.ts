/**
 * The folder of a study: made by it, and remembering the project that it was made from. Runs are told by their settings,
 * and of these the paths of embedded models and data are whole ones: from another checkout none would be found.
 *
 * @module
 */
import { join } from "node:path";
import { exists, isObject, PROJECT, readJson, writeJson } from "../files.ts";
import { openSweepFolder, STUDY_MARK } from "../sweep/sweep_folder.ts";

/** What stands behind a project's folder in the paths of its embedded models and data. */
const EMBEDDED = /^(.+)[/\\]data[/\\](?:addition|english)(?:[/\\]|$)/;

/**
 * Opens the folder of a study, or makes it.
 *
 * @param mark what the study is called there
 * @param options `make`: whether it may be new; what was made before is then marked with its project, too
 * @returns folder of the project that it was made from, which may be there no longer
 * @throws {UserError} as {@link openSweepFolder}
 */
export async function openStudyFolder(
  folder: string,
  mark: string,
  { make }: { make: boolean },
): Promise<string> {
  await openSweepFolder(folder, mark, { make, kind: "study" });
  const path = join(folder, STUDY_MARK);
  const json = await readJson(path);
  if (isObject(json) && typeof json.project === "string") return json.project;
  const project = await projectOfRuns(folder) ?? PROJECT;
  if (make) await writeJson(path, { file: mark, project });
  return project;
}

/** The project whose embedded models or data the runs of a folder have, by the settings of the first that has any. */
async function projectOfRuns(folder: string): Promise<string | undefined> {
  for (const stage of await foldersIn(folder)) {
    for (const run of await foldersIn(stage)) {
      const config = join(run, "config.json");
      const json = await exists(config) ? await readJson(config).catch(() => undefined) : undefined;
      if (!isObject(json) || !isObject(json.settings)) continue;
      for (const value of Object.values(json.settings).flat()) {
        const [, project] = typeof value === "string" ? EMBEDDED.exec(value) ?? [] : [];
        if (project !== undefined) return project;
      }
    }
  }
  return undefined;
}

/** Whole paths of the folders in a folder, by name. */
async function foldersIn(folder: string): Promise<string[]> {
  const entries = await Array.fromAsync(Deno.readDir(folder));
  return entries.filter(({ isDirectory }) => isDirectory).map(({ name }) => join(folder, name)).sort();
}
