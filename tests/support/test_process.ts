/**
 * `deno test` in a process of its own.
 *
 * @module
 */

/** What a test may do. */
export const TEST_PERMISSIONS: readonly string[] = [
  "--allow-read",
  "--allow-write",
  "--allow-env",
  "--allow-run",
  "--allow-sys=statfs",
  "--allow-net=127.0.0.1,0.0.0.0",
];

/** How such a process ended. */
export interface TestOutcome {
  code: number;
  /** What ended it, where it did not end by itself. */
  signal: Deno.Signal | null;
  /** Whether it was ended as it took too long. */
  late: boolean;
  passed: number;
  failed: number;
  ignored: number;
  /** All that it printed, without colours. */
  output: string;
}

/** How such a process is run. */
export interface TestProcessOptions {
  cwd?: string;
  /** Milliseconds after which it is ended, for a test that waits for what never comes; left out: as long as it takes. */
  limit?: number;
}

/** Processes that are running, each the first of a group: what it begins ends with it. */
const running = new Set<number>();
let listens = false;

function end(pid: number): void {
  try {
    Deno.kill(-pid, "SIGKILL");
  } catch {
    // It ended by itself in the meantime.
  }
}

/** A terminal's Ctrl-C does not come to groups of their own. */
function endAllWithThisProcess(): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => {
      running.forEach(end);
      Deno.exit(130);
    });
  }
}

/** Runs `deno test --no-check` with these arguments. */
export async function testProcess(
  args: readonly string[],
  { cwd, limit }: TestProcessOptions = {},
): Promise<TestOutcome> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["test", "--no-check", ...args],
    cwd,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: { NO_COLOR: "1" },
    detached: true,
  }).spawn();
  if (!listens) endAllWithThisProcess();
  listens = true;
  running.add(child.pid);
  let late = false;
  const timer = limit === undefined ? undefined : setTimeout(() => {
    late = true;
    end(child.pid);
  }, limit);
  const { code, signal, stdout, stderr } = await child.output();
  clearTimeout(timer);
  running.delete(child.pid);
  const output = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("\n");
  // What tests print themselves may look the same: the last line of the kind is the process's own.
  const counts = output.match(/^.*\d+ passed.* \| \d+ failed.*$/gm)?.at(-1) ?? "";
  const count = (what: string) => Number(new RegExp(`(\\d+) ${what}`).exec(counts)?.[1] ?? 0);
  return {
    code,
    signal,
    late,
    passed: count("passed"),
    failed: count("failed"),
    ignored: count("ignored"),
    output,
  };
}
