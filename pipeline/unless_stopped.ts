/** Preparations that a stop takes back. @module */

/**
 * What is prepared, unless it is stopped: then it is not begun, or what was begun is taken back.
 *
 * @throws the signal's reason where it is stopped, and what `prepare` fails with where it is not
 */
export async function unlessStopped<Prepared>(
  signal: AbortSignal,
  prepare: () => Promise<Prepared>,
  takeBack: () => Promise<void> | void,
): Promise<Prepared> {
  signal.throwIfAborted();
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const onStop = async (): Promise<void> => {
    await takeBack();
    reject(signal.reason);
  };
  signal.addEventListener("abort", onStop);
  try {
    // What ends or fails as it was taken back is neither prepared nor a failure.
    const unlessAborted = prepare().then(
      (prepared) => signal.aborted ? stopped : prepared,
      (error) => signal.aborted ? stopped : Promise.reject(error),
    );
    return await Promise.race([unlessAborted, stopped]);
  } finally {
    signal.removeEventListener("abort", onStop);
  }
}
