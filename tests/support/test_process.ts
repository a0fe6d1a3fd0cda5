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
  passed: number;
  failed: number;
  ignored: number;
  /** All that it printed, without colours. */
  output: string;
}

/** Runs `deno test --no-check` with these arguments. */
export async function testProcess(
  args: readonly string[],
  { cwd, signal }: { cwd?: string; signal?: AbortSignal } = {},
): Promise<TestOutcome> {
  const ended = await new Deno.Command(Deno.execPath(), {
    args: ["test", "--no-check", ...args],
    cwd,
    stdin: "null",
    env: { NO_COLOR: "1" },
    signal,
  }).output();
  const output = [ended.stdout, ended.stderr].map((bytes) => new TextDecoder().decode(bytes)).join("\n");
  // What tests print themselves may look the same: the last line of the kind is the process's own.
  const counts = output.match(/^.*\d+ passed.* \| \d+ failed.*$/gm)?.at(-1) ?? "";
  const count = (what: string) => Number(new RegExp(`(\\d+) ${what}`).exec(counts)?.[1] ?? 0);
  return {
    code: ended.code,
    signal: ended.signal,
    passed: count("passed"),
    failed: count("failed"),
    ignored: count("ignored"),
    output,
  };
}
