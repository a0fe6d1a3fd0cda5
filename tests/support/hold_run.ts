/**
 * A process that is at a run until it is killed: `deno run hold_run.ts RUNS NAME` makes the run, says so and waits.
 *
 * @module
 */
import { fakeRun } from "./fake_run.ts";
import { metricRow } from "./metric_row.ts";

/** Starts such a process and waits until it is at the run. */
export async function holdRun(runs: string, name: string): Promise<{ kill(): Promise<void> }> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--allow-all", new URL(import.meta.url).pathname, runs, name],
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  const { done } = await reader.read();
  if (done) throw new Error("The process that was to hold the run ended");
  return {
    async kill() {
      child.kill("SIGKILL");
      await reader.cancel();
      await child.status;
    },
  };
}

if (import.meta.main) {
  const [runs, name] = Deno.args;
  await fakeRun(runs, name, { rows: [metricRow(1), metricRow(2)] });
  console.log("at it");
  setInterval(() => {}, 1 << 30);
}
