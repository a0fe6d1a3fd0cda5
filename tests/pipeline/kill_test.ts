/**
 * A run killed at random moments, again and again, ends with the bits of one that was never killed. Three kills here;
 * `KILLS=100 deno task test --filter killed` for more.
 */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { hashFile } from "../../pipeline/files.ts";
import { readMetrics } from "../../pipeline/metrics.ts";
import { seeded } from "../support/seeded.ts";
import { ADDITION, runMain, writeTinyModel } from "../support/tiny_model.ts";

const KILLS = Number(Deno.env.get("KILLS") ?? 3);

/** Everything a run leaves that must not depend on its having been killed. */
async function outcome(run: string) {
  const rows = (await readMetrics(join(run, "metrics.arrows"))).map(({ seconds: _, ...row }) => row);
  const { seconds: _, ...summary } = JSON.parse(await Deno.readTextFile(join(run, "summary.json")));
  return { model: await hashFile(join(run, "model", "model.safetensors")), rows, summary };
}

Deno.test(`a run killed ${KILLS} times at random moments ends with the same bits`, async () => {
  const folder = await Deno.makeTempDir();
  try {
    const model = join(folder, "tiny");
    await writeTinyModel(model);
    // deno-fmt-ignore
    const settings = ["--model", model, "--data", ADDITION.data, "--context", "8", "--batch", "16", "--accumulate", "2",
      "--steps", "60", "--warmup", "5", "--lr", "0.01", "--distill", "0.1", "--eval-every", "7", "--checkpoint-every", "5",
      "--validation-tokens", "512", "--eval-tokens", "512", "--constraint-every", "3", "--slack", "0.5",
      "--lambda-min", "0.05", "--runs", folder];
    const whole = await runMain(["sparsify", ...settings, "--name", "whole"]);
    assertEquals(whole.code, 0, whole.stderr);
    const random = seeded(7);
    let kills = 0;
    for (let process = 0;; process++) {
      const begun = await Deno.stat(join(folder, "killed", "config.json")).then(() => true, () => false);
      const args = begun ? ["--resume", "killed", "--runs", folder] : [...settings, "--name", "killed"];
      const killAfter = kills < KILLS ? 400 + random.integer(3000) : undefined;
      const { code, stderr } = await runMain(["sparsify", ...args], { killAfter });
      if (code === 0) {
        if (kills >= KILLS) break;
        // It finished before the remaining kills: begin again, so that every kill falls into a run.
        assertEquals(await outcome(join(folder, "killed")), await outcome(join(folder, "whole")));
        await Deno.remove(join(folder, "killed"), { recursive: true });
        continue;
      }
      assertEquals(code, 137, `killed, not failed by itself: ${stderr}`);
      kills++;
      assert(process < 10 * KILLS + 10);
    }
    assertEquals(await outcome(join(folder, "killed")), await outcome(join(folder, "whole")));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
