/**
 * The part of `@std/assert` that the tests use, over `node:assert/strict`, which Deno has built in. Where JSR can be
 * reached, map `@std/assert` to `jsr:@std/assert@1` in deno.json instead: the signatures are the same.
 *
 * @module
 */
import strict from "node:assert/strict";

/** Thrown by every failed assertion. */
export const AssertionError = strict.AssertionError;

/** Fails unless `expr` is truthy. */
export function assert(expr: unknown, msg = ""): asserts expr {
  strict.ok(expr, msg || undefined);
}

/** Fails unless the two are deeply and strictly equal. */
export function assertEquals<T>(actual: T, expected: T, msg?: string): void {
  strict.deepStrictEqual(actual, expected, msg);
}

/** Fails if the two are deeply and strictly equal. */
export function assertNotEquals<T>(actual: T, expected: T, msg?: string): void {
  strict.notDeepStrictEqual(actual, expected, msg);
}

/** Fails unless the two are the same value by `Object.is`. */
export function assertStrictEquals<T>(actual: unknown, expected: T, msg?: string): asserts actual is T {
  strict.equal(actual, expected, msg);
}

/** Fails unless `actual` lies within `tolerance` of `expected`. */
export function assertAlmostEquals(actual: number, expected: number, tolerance?: number, msg?: string): void {
  if (Object.is(actual, expected)) return;
  const within = tolerance ?? (Number.isFinite(expected) ? Math.abs(expected * 1e-7) : 1e-7);
  const delta = Math.abs(expected - actual);
  if (delta <= within) return;
  strict.fail(
    `${
      msg ? msg + ": " : ""
    }Expected actual: "${actual}" to be close to "${expected}": delta "${delta}" is greater than "${within}"`,
  );
}

/** Fails unless `actual` contains `expected`. */
export function assertStringIncludes(actual: string, expected: string, msg?: string): void {
  if (!actual.includes(expected)) {
    strict.fail(`${msg ? msg + ": " : ""}Expected actual: "${actual}" to contain: "${expected}"`);
  }
}

/** Fails unless `actual` matches `expected`. */
export function assertMatch(actual: string, expected: RegExp, msg?: string): void {
  strict.match(actual, expected, msg);
}

type ErrorClass<E extends Error> = abstract new (...args: never[]) => E;

function checkError<E extends Error>(
  error: unknown,
  errorClass: ErrorClass<E> | undefined,
  includes: string | undefined,
  msg: string,
): E {
  const suffix = msg ? `: ${msg}` : "";
  if (!(error instanceof Error)) strict.fail(`A non-Error object was thrown${suffix}`);
  if (errorClass && !(error instanceof errorClass)) {
    strict.fail(`Expected error to be instance of "${errorClass.name}", but was "${error.name}"${suffix}`);
  }
  if (includes !== undefined && !error.message.includes(includes)) {
    strict.fail(`Expected error message to include "${includes}", but got "${error.message}"${suffix}`);
  }
  return error as E;
}

/** Fails unless `fn` throws, and returns what it threw. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  errorClass?: ErrorClass<E>,
  msgIncludes?: string,
  msg = "",
): E {
  try {
    fn();
  } catch (error) {
    return checkError(error, errorClass, msgIncludes, msg);
  }
  strict.fail(`Expected function to throw${msg ? ": " + msg : "."}`);
}

/** Fails unless the promise that `fn` returns rejects, and resolves to what it rejected with. */
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  errorClass?: ErrorClass<E>,
  msgIncludes?: string,
  msg = "",
): Promise<E> {
  try {
    await fn();
  } catch (error) {
    return checkError(error, errorClass, msgIncludes, msg);
  }
  strict.fail(`Expected function to reject${msg ? ": " + msg : "."}`);
}
