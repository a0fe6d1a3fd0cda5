/**
 * Settings of `serve`.
 *
 * @module
 */
import type { SettingsTable } from "../pipeline/settings/table.ts";
import { SPARSIFY } from "../pipeline/settings.ts";

/** The table of `deno task serve`. */
export const SERVE = {
  runs: { ...SPARSIFY.runs, group: "Server" },
  host: {
    kind: "name",
    value: "127.0.0.1",
    placeholder: "HOST",
    help: "address to listen on; beyond loopback everything needs the token",
    group: "Server",
  },
  port: {
    kind: "number",
    value: 8000,
    lowest: 0,
    highest: 65535,
    integer: true,
    help: "0: any that is free",
    group: "Server",
  },
  allowHost: {
    kind: "names",
    value: [],
    placeholder: "NAME",
    help: "name that the server may be asked by, as behind a proxy; repeatable",
    group: "Server",
  },
  models: {
    kind: "paths",
    value: [],
    placeholder: "PATH",
    help: "folder that the dense models of runs may be read from, besides the runs' and data/; repeatable",
    group: "Server",
  },
  gpu: { ...SPARSIFY.gpu, group: "Server" },
  debug: SPARSIFY.debug,
} as const satisfies SettingsTable;
