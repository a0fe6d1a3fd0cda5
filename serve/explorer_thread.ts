/**
 * An explorer that works in a thread of its own, so that nothing that lies in a run's folder can keep the server from
 * answering others: a tokenizer's pattern that never ends, or a model that takes minutes to compile.
 *
 * @module
 */
import type { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { ExploredRun, Explorer } from "./explorer.ts";
import { problem } from "./problem.ts";

/** Milliseconds for one answer: compiling a model's kernels takes minutes on some CPU drivers. */
const PATIENCE = 600_000;

interface Waiting {
  /** With an answer of the kind that was asked for. */
  resolve(answer: unknown): void;
  reject(error: HTTPException): void;
  timer: ReturnType<typeof setTimeout>;
}

interface Reply {
  id: number;
  answer?: unknown;
  status?: ContentfulStatusCode;
  error?: string;
}

/**
 * Creates an explorer in a thread; the thread begins with the first question.
 *
 * @param roots folders that models and tokenizers are read from
 * @param options `patience`: milliseconds after which a question is given up, and the thread with it; `gpu`: which adapter,
 * the fastest where left out
 */
export function createExplorerThread(
  roots: readonly string[],
  { patience = PATIENCE, gpu }: { patience?: number; gpu?: string } = {},
): Explorer {
  let worker: Worker | undefined;
  let asked = 0;
  const waiting = new Map<number, Waiting>();

  /** Ends the thread; the next question begins another. */
  function end(why: string): void {
    worker?.terminate();
    worker = undefined;
    for (const { reject, timer } of waiting.values()) {
      clearTimeout(timer);
      reject(problem(503, why));
    }
    waiting.clear();
  }

  function begin(): Worker {
    const begun = new Worker(new URL("./explorer_worker.ts", import.meta.url), { type: "module" });
    begun.onmessage = ({ data }: MessageEvent<Reply>) => {
      const question = waiting.get(data.id);
      if (!question) return;
      waiting.delete(data.id);
      clearTimeout(question.timer);
      if (data.answer) question.resolve(data.answer);
      else question.reject(problem(data.status ?? 500, data.error ?? ""));
    };
    begun.onerror = (event) => {
      event.preventDefault();
      end("The explorer failed: ask again");
    };
    begun.postMessage({ roots, gpu });
    return begun;
  }

  /** @param what the explorer's method that answers */
  function question(what: "ask" | "goOn", { name, path, config }: ExploredRun, request: unknown) {
    worker ??= begin();
    const id = asked++;
    return new Promise<unknown>((resolve, reject) => {
      const timer = setTimeout(() => end(`The model of ${name} takes too long to look into`), patience);
      waiting.set(id, { resolve, reject, timer });
      worker!.postMessage({ id, what, run: { name, path, config }, request });
    });
  }

  return {
    ask: (run, request) => question("ask", run, request) as ReturnType<Explorer["ask"]>,
    goOn: (run, request) => question("goOn", run, request) as ReturnType<Explorer["goOn"]>,
    close: () => end("The server is closing"),
  };
}
