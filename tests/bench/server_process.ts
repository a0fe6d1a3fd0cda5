/**
 * The server as a process of its own, and what it costs (/proc, so on Linux only).
 *
 * @module
 */

const ROOT = new URL("../../", import.meta.url).pathname;

/** A server that was started for a measurement. */
export interface ServerProcess {
  /** Its address, without a slash at the end. */
  base: string;
  /** Resident bytes and processor seconds of the server so far. */
  cost(): Promise<{ rss: number; cpu: number }>;
  stop(): Promise<void>;
}

/** Starts `deno task serve` on a folder of runs. */
export async function startServerProcess(runs: string): Promise<ServerProcess> {
  const server = new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "--allow-net",
      "--allow-sys=setPriority",
      `${ROOT}serve/main.ts`,
      "--runs",
      runs,
      "--port",
      "0",
    ],
    stdout: "null",
    stderr: "piped",
  }).spawn();
  return {
    base: await address(server.stderr),

    async cost() {
      // By cat: Deno itself reads /proc with every permission only.
      const files = ["status", "stat"].map((name) => `/proc/${server.pid}/${name}`);
      const { stdout } = await new Deno.Command("cat", { args: files }).output();
      const status = new TextDecoder().decode(stdout);
      const stat = status.slice(status.lastIndexOf(") ") + 2).split(" ");
      return {
        rss: 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)![1]),
        cpu: (Number(stat[11]) + Number(stat[12])) / 100,
      };
    },

    async stop() {
      server.kill("SIGTERM");
      await server.status;
    },
  };
}

/** The address that the server prints. */
async function address(stderr: ReadableStream<Uint8Array>): Promise<string> {
  let text = "";
  const reader = stderr.getReader();
  while (!/http:\/\/[^/]+/.test(text)) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`the server did not start: ${text}`);
    text += new TextDecoder().decode(value);
  }
  (async () => {
    while (!(await reader.read()).done);
  })();
  return /http:\/\/[^/]+/.exec(text)![0];
}
