/**
 * A turn of the event loop.
 *
 * @module
 */

/**
 * Waits until what is due has happened: signals, messages and timers wait for a turn, and a loop whose every wait is over
 * already gives them none. On a CPU driver a submission lasts until the one before it is done, so that such a loop would
 * not look up for many steps.
 */
export function turn(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}
