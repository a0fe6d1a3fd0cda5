/**
 * Opens the port.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { createApp } from "./app.ts";
import { readAssets } from "./assets.ts";
import { logFault } from "./fault_log.ts";
import { createExplorerThread } from "./explorer_thread.ts";
import { openRuns } from "./runs.ts";

/** Where and how to listen. */
export interface ServerOptions {
  /** Folder of runs. */
  runs: string;
  host: string;
  /** 0: any that is free. */
  port: number;
  /** Left out: a new one. */
  token?: string;
  /** Names that the server may be asked by, besides its host, localhost and addresses. */
  allowedHosts?: readonly string[];
  /** Folders that models may be read from, besides the runs and the project's own data. */
  models?: readonly string[];
  /** Adapter that models are looked into on: a part of its name, or its number; the fastest where left out. */
  gpu?: string;
  /** As in {@link AppOptions}. */
  bodyMilliseconds?: number;
  /** For one answer of the attention explorer. */
  explorerMilliseconds?: number;
}

/** A server that listens. */
export interface RunningServer {
  /** Where to open the page, with the token behind `#`. */
  url: string;
  token: string;
  /** Whether reading needs the token. */
  tokenToRead: boolean;
  finished: Promise<void>;
  close(): Promise<void>;
}

/** The embedded models. */
const DATA = fileURLToPath(new URL("../data/", import.meta.url));
const LOOPBACK = /^(localhost|127(\.\d{1,3}){3}|::1|\[::1\])$/;

/**
 * Starts the server.
 *
 * @throws {Deno.errors.AddrInUse} when the port is taken
 */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const { runs, host, port } = options;
  const token = options.token ??
    crypto.getRandomValues(new Uint8Array(24)).toBase64({ alphabet: "base64url" });
  const tokenToRead = !LOOPBACK.test(host);
  const stopping = new AbortController();
  const explorer = createExplorerThread([runs, DATA, ...options.models ?? []], {
    patience: options.explorerMilliseconds,
    gpu: options.gpu,
  });
  const app = createApp({
    runs: openRuns(runs),
    explorer,
    assets: await readAssets(),
    token,
    tokenToRead,
    allowedHosts: [host, ...options.allowedHosts ?? []],
    signal: stopping.signal,
    bodyMilliseconds: options.bodyMilliseconds,
  });
  const onError = (error: unknown): Response => {
    logFault("answering", error);
    return Response.json({ error: "The server failed at this; its log says why" }, { status: 500 });
  };
  const server = Deno.serve({ hostname: host, port, onListen: () => {}, onError }, app.fetch);
  const { port: opened } = server.addr as Deno.NetAddr;
  const shown = host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host.includes(":") ? `[${host}]` : host;
  return {
    url: `http://${shown}:${opened}/#token=${token}`,
    token,
    tokenToRead,
    finished: server.finished,
    async close() {
      stopping.abort();
      explorer.close();
      await server.shutdown();
    },
  };
}
