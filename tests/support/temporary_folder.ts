/**
 * Makes an empty folder that is deleted, with all that is in it, when its scope ends.
 *
 * @example
 * ```ts
 * await using folder = await temporaryFolder();
 * await Deno.writeTextFile(`${folder.path}/note.txt`, "gone soon");
 * ```
 */
export async function temporaryFolder(): Promise<AsyncDisposable & { path: string }> {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
