/**
 * Which paths may be read: those that lie, links resolved, inside a folder that the server was told to serve. What a
 * run's config.json names is another's word, and may name any file of the system.
 *
 * @module
 */
import { sep } from "node:path";

/** The path without links; undefined when nothing can be found there. */
async function realPath(path: string): Promise<string | undefined> {
  try {
    return await Deno.realPath(path);
  } catch {
    return undefined;
  }
}

/** Whether something stands at `path`, and it lies inside one of the folders. */
export async function liesInside(path: string, roots: readonly string[]): Promise<boolean> {
  const real = await realPath(path);
  if (real === undefined) return false;
  for (const root of roots) {
    const folder = await realPath(root);
    if (folder === undefined) continue;
    if (real === folder || real.startsWith(folder.endsWith(sep) ? folder : folder + sep)) return true;
  }
  return false;
}
