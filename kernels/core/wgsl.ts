/**
 * Finding and changing how a WGSL source uses a storage variable, for what is decided when a kernel is compiled: storage
 * in half precision (half.ts), reading by texture (textures.ts).
 *
 * @module
 */

/**
 * The declaration of a storage variable, up to its semicolon, and the type of its elements.
 *
 * @throws {SyntaxError} when there is none
 */
export function storageElement(source: string, name: string): { declaration: string; element: string } {
  const found = new RegExp(`var<storage,[^>]*>\\s*${name}\\s*:\\s*array<(\\w+)>`).exec(source);
  if (!found) throw new SyntaxError(`Cannot find the storage array ${name}: it is not declared`);
  const [declaration, type] = found;
  const alias = new RegExp(`alias ${type} = (\\w+);`).exec(source);
  return { declaration, element: alias?.[1] ?? type };
}

/**
 * The source with every `name[index]` that is not assigned to replaced by what `read` makes of the index. An index may
 * itself read the variable.
 */
export function replaceReads(source: string, name: string, read: (index: string) => string): string {
  const use = new RegExp(`(?<![\\w.])${name}\\[`, "g");
  let result = "";
  let from = 0;
  for (let match = use.exec(source); match; match = use.exec(source)) {
    const start = match.index + match[0].length;
    const end = closing(source, start);
    const index = replaceReads(source.slice(start, end - 1), name, read);
    const assigned = /^\s*[-+*/&|^%]?=(?!=)/.test(source.slice(end));
    result += source.slice(from, match.index) + (assigned ? `${name}[${index}]` : read(index));
    use.lastIndex = from = end;
  }
  return result + source.slice(from);
}

/** One past the bracket that closes the one opened just before `at`. */
export function closing(source: string, at: number): number {
  for (let depth = 1; at < source.length; at++) {
    if (source[at] === "[") depth++;
    if (source[at] === "]" && --depth === 0) return at + 1;
  }
  throw new SyntaxError("Cannot find the end of an index: a bracket is not closed");
}

/** A binding that the source does not use. */
export function freeBinding(source: string): number {
  return 1 + Math.max(...[...source.matchAll(/@binding\((\d+)\)/g)].map(([, binding]) => Number(binding)));
}
