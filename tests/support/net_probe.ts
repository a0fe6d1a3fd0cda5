/**
 * Preloaded into a command, whose threads then say on standard error whether they may reach the net: the command's when it
 * looks for a device, and the main thread at its end.
 *
 * @module
 */
const HOSTS = ["huggingface.co", "cas-bridge.xethub.hf.co", "127.0.0.1"];

/** Says of each host whether this thread may reach it. */
export function sayReach(thread: string): void {
  const states = HOSTS.map((host) => Deno.permissions.querySync({ name: "net", host }).state);
  Deno.stderr.writeSync(new TextEncoder().encode(`${thread} reaches: ${states.join(" ")}\n`));
}

if (!("DedicatedWorkerGlobalScope" in globalThis)) {
  const { Worker } = globalThis;
  globalThis.Worker = class extends Worker {
    constructor(module: string | URL, options?: WorkerOptions) {
      super(new URL("net_probe_thread.ts", import.meta.url), options);
      this.postMessage({ module: String(module) });
    }
  };
  const { exit } = Deno;
  Deno.exit = (code) => {
    sayReach("the main thread");
    return exit(code);
  };
}
