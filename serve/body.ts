/**
 * The one place where a request's body is read: within a size and within a time, counted from the first wait for it.
 *
 * @module
 */
import { problem } from "./problem.ts";

/** What a body may take. */
export interface BodyLimits {
  bytes: number;
  milliseconds: number;
}

/**
 * What is left of the body is not waited for, so that the connection cannot serve another request. (Deno keeps the
 * connection, without a handler, until the client closes its side.)
 */
const CLOSE = { Connection: "close" };

/**
 * A request's whole body.
 *
 * @throws {HTTPException} 413 when it is too large, 408 when it takes too long, 400 when it breaks off
 */
export async function readBody(request: Request, { bytes, milliseconds }: BodyLimits): Promise<Uint8Array> {
  const tooLarge = () => problem(413, `The body is too large: at most ${bytes} bytes are taken`, CLOSE);
  if (Number(request.headers.get("Content-Length")) > bytes) throw tooLarge();
  const reader = request.body?.getReader();
  if (!reader) return new Uint8Array();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<"late">((resolve) => timer = setTimeout(() => resolve("late"), milliseconds));
  const pieces: Uint8Array[] = [];
  let length = 0;
  let whole = false;
  try {
    while (true) {
      const read = reader.read();
      // It may fail when nobody waits for it any more.
      read.catch(() => {});
      const piece = await Promise.race([read, late]).catch(() => {
        throw problem(400, "The body broke off", CLOSE);
      });
      if (piece === "late") throw problem(408, `The body took longer than ${milliseconds / 1000} s`, CLOSE);
      if (piece.done) break;
      length += piece.value.length;
      if (length > bytes) throw tooLarge();
      pieces.push(piece.value);
    }
    whole = true;
    const body = new Uint8Array(length);
    let at = 0;
    for (const piece of pieces) {
      body.set(piece, at);
      at += piece.length;
    }
    return body;
  } finally {
    clearTimeout(timer);
    if (!whole) reader.cancel().catch(() => {});
  }
}
