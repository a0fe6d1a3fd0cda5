/**
 * What somebody may have meant by a name that there is not.
 *
 * @module
 */

/** The known name that takes the fewest changes of a letter to get to, if it takes few beside the name's length. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined;
  let least = Math.min(name.length - 1, Math.max(2, name.length / 3));
  for (const other of known) {
    const distance = editDistance(name, other);
    // Of equals the first.
    if (distance < least || (distance === least && best === undefined)) [best, least] = [other, distance];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, n) => n);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}
