/**
 * The explorer in a thread of its own.
 *
 * Receives first `{ roots, gpu }`, then questions `{ id, what, run, request }`, `what` being the explorer's method that
 * answers, and answers each with `{ id, answer }`, or with `{ id, status, error }` where it cannot be answered.
 *
 * @module
 */
import { HTTPException } from "hono/http-exception";
import { createExplorer, type Explorer } from "./explorer.ts";
import { logFault } from "./fault_log.ts";

// The compiler takes every module for one of the main thread.
const parent = self as unknown as Worker;
let explorer: Explorer | undefined;

parent.addEventListener("message", async ({ data }) => {
  if (data.roots) {
    explorer = createExplorer(data.roots, data.gpu);
    return;
  }
  const { id, run, request } = data;
  const what: "ask" | "goOn" = data.what;
  try {
    parent.postMessage({ id, answer: await explorer![what](run, request) });
  } catch (error) {
    const known = error instanceof HTTPException;
    if (!known) logFault(`looking into ${run.name}`, error);
    parent.postMessage({
      id,
      status: known ? error.status : 500,
      error: known ? error.message : "The server failed at this; its log says why",
    });
  }
});
