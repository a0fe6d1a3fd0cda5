/**
 * Errors that a client is told of, as `{"error": …}` with a status.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { ErrorAnswer } from "./api.ts";

/** An error to throw from a handler. */
export function problem(
  status: ContentfulStatusCode,
  message: string,
  headers: Record<string, string> = {},
): HTTPException {
  const body: ErrorAnswer = { error: message };
  return new HTTPException(status, { message, res: Response.json(body, { status, headers }) });
}
