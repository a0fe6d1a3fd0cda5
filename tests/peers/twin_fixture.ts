/**
 * A run of five steps of a tiny Llama, and what the twin of the step in PyTorch (twin.py) measures in its place: as a
 * program, makes tests/fixtures/twin/expected.json, with which tests/pipeline/training/twin_test.ts compares the run.
 *
 *     deno run -A --no-check tests/peers/twin_fixture.ts
 *
 * @module
 */
import { ADDITION, runMain, writeTinyLlama } from "../support/tiny_model.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

/** What the twin measured of each step, by the names of metrics.arrows. */
export const EXPECTED = new URL("../fixtures/twin/expected.json", import.meta.url);
const TWIN = new URL("./twin.py", import.meta.url).pathname;

/** Runs the five steps; returns the run's folder. */
export async function runOfTwin(folder: string): Promise<string> {
  await writeTinyLlama(`${folder}/llama`);
  // Every setting that enters a step has a value of its own; gates are measured at three of the steps.
  // deno-fmt-ignore
  const { code, stderr } = await runMain(["sparsify", "--model", `${folder}/llama`, "--data", ADDITION.data, "--context", "8",
    "--batch", "16", "--accumulate", "2", "--steps", "5", "--lr", "2e-3", "--warmup", "2", "--decay", "0.6",
    "--embedding-rate", "0.5", "--attention-rate", "2", "--weight-decay", "0.1", "--clip", "0.3", "--seed", "7",
    "--gate-bias", "0.5", "--temperature", "0.9", "--slack=-0.01", "--constraint-scale", "0.5", "--constraint-every", "2",
    "--lambda-start", "0.7", "--lambda-rate", "0.2", "--lambda-gain", "1.5", "--saturation-weight", "0.05",
    "--saturation-bound", "0.4", "--distill", "0.3", "--eval-every", "3", "--no-control", "--validation-tokens", "256",
    "--eval-tokens", "256", "--runs", `${folder}/runs`, "--name", "run"]);
  if (code !== 0) throw new Error(stderr);
  return `${folder}/runs/run`;
}

if (import.meta.main) {
  await using folder = await temporaryFolder();
  const { success, stdout } = await new Deno.Command("python3", {
    args: [TWIN, await runOfTwin(folder.path)],
    stderr: "inherit",
  }).output();
  if (!success) Deno.exit(1);
  const rows = new TextDecoder().decode(stdout).trim().split("\n").slice(1).map((line) => {
    const { seconds: _, above_dense: __, ...row } = JSON.parse(line);
    return row;
  });
  await Deno.writeTextFile(EXPECTED, JSON.stringify(rows, undefined, 1) + "\n");
}
