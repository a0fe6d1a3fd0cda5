/**
 * Conditional requests (RFC 9110, 13.1.2).
 *
 * @module
 */

/** One element of a list of entity tags, which may be empty, and the comma behind it. */
const ELEMENT = /(?:(?:W\/)?("[!#-~\x80-\xff]*"))?[ \t]*(?:,[ \t]*|$)/y;

/**
 * Whether an If-None-Match names a tag, by weak comparison. One that is malformed names none.
 *
 * @param etag of what would be sent, without `W/`
 */
export function namesTag(ifNoneMatch: string | undefined, etag: string): boolean {
  const list = ifNoneMatch?.trim() ?? "";
  if (list === "*") return true;
  let named = false;
  for (ELEMENT.lastIndex = 0; ELEMENT.lastIndex < list.length;) {
    const element = ELEMENT.exec(list);
    if (!element) return false;
    named ||= element[1] === etag;
  }
  return named;
}
