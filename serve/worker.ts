/**
 * The server as a worker beside training, for `--serve`: a thread of its own, which reads the run folder as it would
 * another process's, so that requests do not wait for steps nor steps for requests.
 *
 * Receives `{ runs, port, token, models, gpu }`, of which `models` (folders that models may be read from) and `gpu` (the
 * adapter that they are looked into on) may be left out, and answers `{ url }` or `{ error }`.
 *
 * @module
 */
import { surviveFaults } from "./fault_log.ts";
import { startServer } from "./server.ts";

// The compiler takes every module for one of the main thread.
const parent = self as unknown as Worker;

parent.addEventListener("message", async ({ data: { runs, port, token, models, gpu } }) => {
  try {
    const { url } = await startServer({ runs, host: "127.0.0.1", port, token, models, gpu });
    surviveFaults();
    parent.postMessage({ url });
  } catch (error) {
    parent.postMessage({ error: (error as Error).message });
  }
});
