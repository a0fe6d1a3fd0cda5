/**
 * What the server's log says of errors that nobody expected.
 *
 * @module
 */
import { UserError } from "../pipeline/errors.ts";
import { reasonOf } from "../pipeline/files.ts";

/** The first place of ours in a stack: file, line and column. */
const PLACE = /\/((?:kernels|pipeline|serve)\/[\w/.-]+:\d+:\d+)/;

/**
 * Says on one line what failed, and where. A parser's message quotes the file that it was given, which may be anyone's:
 * only messages of ours and of the system are repeated.
 */
export function logFault(what: string, error: unknown): void {
  const fromSystem = error instanceof Error && /\(os error \d+\)/.test(error.message);
  if (error instanceof UserError || fromSystem) return console.error(`serve: ${what}: ${reasonOf(error)}`);
  const name = error instanceof Error ? error.name : typeof error;
  const [, place] = PLACE.exec(error instanceof Error ? error.stack ?? "" : "") ?? [];
  console.error(`serve: ${what}: ${name}${place ? ` at ${place}` : ""}`);
}

/** Keeps the process alive when something fails that no request waits for. */
export function surviveFaults(): void {
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    logFault("in the background", event.reason);
  });
}
