/**
 * Stands before a command's own module in its thread, where the command is held at chosen moments: see holding.ts.
 *
 * @module
 */
import { holdCommandThread, holdingTold } from "./holding.ts";

self.addEventListener("message", async (event) => {
  const { module, paused } = (event as MessageEvent<{ module: string; paused: Int32Array }>).data;
  holdCommandThread(holdingTold()!, paused);
  await import(module);
}, { once: true });
