/**
 * A server of its own process over a folder of runs, for what may bring it down.
 *
 * @module
 */
import { join } from "node:path";
import { writeJson } from "../../pipeline/files.ts";
import { saveCheckpoint } from "../../pipeline/runs/checkpoint.ts";
import { fakeRun } from "../support/fake_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Stands in a file beside the runs, and must stand in no answer. */
export const CANARY = "the-canary-sings";
/** What steers. */
export const TOKEN = "a-token-for-hostile-tests";

/** A server that is up. */
export interface Site {
  base: string;
  port: number;
  /** The folder of runs. */
  runs: string;
  /** A file beside it that is not served. */
  secret: string;
  /** What the server has said on standard error so far. */
  said(): string;
  /** Whether the process is still there. */
  isUp(): boolean;
}

/** What a check found. */
export interface Findings {
  passed: number;
  /** One line each. */
  failures: string[];
  /** Milliseconds of the slowest answer, and whose it was. */
  slowest: { milliseconds: number; what: string };
  /** What else is to be told, instead of the slowest. */
  note?: string;
}

/** Nothing checked yet. */
export function noFindings(): Findings {
  return { passed: 0, failures: [], slowest: { milliseconds: 0, what: "nothing" } };
}

/** What makes an answer one that must not be given; undefined for a good one. */
export function faultOf(status: number, text: string): string | undefined {
  if (status >= 500 && status !== 503) return `answered ${status}`;
  if (/root:x:0|the-canary-sings/.test(text)) return "quotes a file that is not served";
  if (/\bthis is a bug\b|\n {4}at \S+/.test(text)) return "speaks of a bug";
  return undefined;
}

/** A finished run with all that a run may have. */
export async function makeRun(runs: string, name: string): Promise<string> {
  const rows = [1, 2, 3].map((step) =>
    metricRow(step, { expected_open_by_head: [0.5, 0.5, 0.5, 0.5], validation_ce: 1.5, open_fraction: 0.5 })
  );
  const run = await fakeRun(runs, name, { live: false, rows });
  await run.state({ state: "finished" });
  const result = { ce: 1, perplexity: 2.7, accuracy: 0.5, exact_rows: 0.5 };
  await writeJson(join(run.path, "summary.json"), {
    dense: result,
    control: null,
    sparse: { ...result, open_fraction: 0.5, feasible: true },
    test_tokens: 7,
  });
  await Deno.writeTextFile(join(run.path, "report.html"), "<style>p { color: red }</style><p>A report</p>");
  const read = () => Promise.resolve(new Float32Array(4));
  await saveCheckpoint(join(run.path, "checkpoints"), { phase: "sparse", step: 1, state: {} }, [
    { name: "weight.a", shape: [4], read },
  ]);
  return run.path;
}

/** Starts the server over a folder with one healthy run, and ends it afterwards. */
export async function withSite(body: (site: Site) => Promise<void>): Promise<void> {
  await using folder = await temporaryFolder();
  const runs = join(folder.path, "runs");
  const secret = join(folder.path, "secret.html");
  await Deno.writeTextFile(secret, CANARY);
  await makeRun(runs, "healthy");
  // deno-fmt-ignore
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--allow-read", "--allow-write", "--allow-env", "--allow-net",
      "--allow-sys=setPriority", `${ROOT}serve/main.ts`, "--runs", runs, "--port", "0"],
    cwd: ROOT,
    env: { NO_COLOR: "1", SPARSE_ATTENTION_TOKEN: TOKEN },
    stdout: "null",
    stderr: "piped",
  }).spawn();
  let said = "";
  let up = true;
  const ended = child.status.then(() => up = false);
  const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  const address = /http:\/\/127\.0\.0\.1:(\d+)/;
  while (!address.test(said)) {
    const { value, done } = await reader.read();
    if (done) throw new Error(`The server did not start: ${said}`);
    said += value;
  }
  const rest = (async () => {
    for (let { value, done } = await reader.read(); !done; { value, done } = await reader.read()) {
      said += value;
    }
  })();
  const port = Number(address.exec(said)![1]);
  try {
    await body({ base: `http://127.0.0.1:${port}`, port, runs, secret, said: () => said, isUp: () => up });
  } finally {
    if (up) child.kill("SIGKILL");
    await Promise.all([ended, rest]);
  }
}

/** Does something to each, so many at once. */
export async function inTurn<Item>(
  items: readonly Item[],
  count: number,
  act: (item: Item) => Promise<void>,
): Promise<void> {
  const rest = items.values();
  await Promise.all(Array.from({ length: count }, async () => {
    for (const item of rest) await act(item);
  }));
}
