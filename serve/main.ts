/**
 * `deno task serve`: a folder of runs, live or finished, to be watched, questioned and steered from a browser or a
 * script. It reads what the runs wrote, so that it can start and stop without touching training.
 *
 * @module
 */
import { constants, setPriority } from "node:os";
import { adapterLabel, findAdapter } from "../kernels/core/gpu_adapters.ts";
import { prepareMesa, runCommand, stopSignal, userFolder } from "../pipeline/command_line.ts";
import { usageError } from "../pipeline/errors.ts";
import { kindOf, reasonOf } from "../pipeline/files.ts";
import { printedInstead } from "../pipeline/settings/help.ts";
import { parseCommand } from "../pipeline/settings/parse.ts";
import { resolveSettings } from "../pipeline/settings/resolve.ts";
import { surviveFaults } from "./fault_log.ts";
import { startServer } from "./server.ts";
import { SERVE } from "./settings.ts";
import { requireOneProcess } from "../pipeline/parallel/one_process.ts";

const PURPOSE = "Shows a folder of runs in the browser and over HTTP.";

/** Characters of a token that nobody can guess. */
const SHORTEST_TOKEN = 16;

async function isFolder(path: string): Promise<boolean> {
  return (await Deno.stat(path).catch(() => undefined))?.isDirectory ?? false;
}

/**
 * Whether the folder of runs is there; it may come later.
 *
 * @throws {UserError} where it cannot, as something else stands there or in the way
 */
async function findRuns(runs: string): Promise<boolean> {
  const fail = (reason: string): never => {
    throw usageError(`Cannot show the runs in ${runs} as it must be a folder: ${reason}`);
  };
  const info = await Deno.stat(runs).catch((error) =>
    error instanceof Deno.errors.NotFound ? undefined : fail(reasonOf(error))
  );
  if (info && !info.isDirectory) fail(`it is ${kindOf(info)}`);
  return info !== undefined;
}

async function serve(args: string[]): Promise<void> {
  await requireOneProcess("serve");
  const parsed = parseCommand(SERVE, args, userFolder());
  const printed = await printedInstead("serve", PURPOSE, SERVE, parsed);
  if (printed !== undefined) return console.log(printed);
  const { runs, host, port, allowHost, models, gpu } = await resolveSettings(SERVE, parsed);
  const token = Deno.env.get("SPARSE_ATTENTION_TOKEN") || undefined;
  if (token !== undefined && !/^[A-Za-z0-9._~-]+$/.test(token)) {
    throw usageError(
      "Cannot use SPARSE_ATTENTION_TOKEN as it must consist of letters, digits, dots, dashes, _ and ~",
    );
  }
  if (token !== undefined && token.length < SHORTEST_TOKEN) {
    throw usageError(
      `Cannot use SPARSE_ATTENTION_TOKEN as it must have at least ${SHORTEST_TOKEN} characters`,
    );
  }
  const awaited = await findRuns(runs) ? "" : ", a folder that does not exist yet";
  for (const folder of models) {
    if (!await isFolder(folder)) {
      throw usageError(`Cannot read models from ${folder} as there is no such folder`);
    }
  }
  if (gpu !== undefined) {
    const { description } = await findAdapter(gpu);
    console.error(`models are looked into on ${adapterLabel(description)}`);
  }
  // Whoever trains on this machine comes first.
  setPriority(constants.priority.PRIORITY_LOW);
  let server: Awaited<ReturnType<typeof startServer>>;
  try {
    server = await startServer({ runs, host, port, token, allowedHosts: allowHost, models, gpu });
  } catch (error) {
    throw usageError(`Cannot listen on ${host}, port ${port}: ${(error as Error).message}`, { cause: error });
  }
  console.error(`runs in ${runs}${awaited}: ${server.url}`);
  console.error(
    server.tokenToRead
      ? "beyond loopback: everything needs the token in this address; put TLS in front on a network you do not trust"
      : "reading is free on this machine; pausing, stopping and changing the slack need the token in this address",
  );
  surviveFaults();
  const stop = stopSignal(() => console.error("closing"));
  stop.addEventListener("abort", () => server.close());
  await server.finished;
}

if (import.meta.main) {
  prepareMesa();
  await runCommand(() => serve(Deno.args), { debug: Deno.args.includes("--debug") });
}
