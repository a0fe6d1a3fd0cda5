/**
 * Work that must not overlap.
 *
 * @module
 */

/** Does pieces of work one behind the other, in the order in which they are given, whatever became of those before. */
export function oneAtATime(): <Result>(work: () => Promise<Result>) => Promise<Result> {
  let last: Promise<unknown> = Promise.resolve();
  return (work) => {
    const result = last.then(work);
    last = result.catch(() => {});
    return result;
  };
}
