/**
 * GPT-2 124M's real shape with random weights: loads, trains three gated steps, evaluates and saves, through the same
 * command as any model. Takes some minutes on a CPU driver and 4 GB of memory and of disk.
 *
 *     deno task gpt2-shape [--batch 8 --context 1024 …]
 *
 * @module
 */
import { join } from "node:path";
import { initialWeights } from "../../pipeline/model/initial_weights.ts";
import { parametersOf } from "../../pipeline/model/trace.ts";
import { saveModel } from "../../pipeline/model/save_weights.ts";
import { GPT2 } from "../support/gpt2.ts";

const ROOT = new URL("../../", import.meta.url).pathname;
const config = GPT2;

if (import.meta.main) {
  const folder = await Deno.makeTempDir({ prefix: "gpt2-shape-" });
  try {
    const model = join(folder, "gpt2");
    await saveModel(model, {
      config,
      tensors: parametersOf(config).map((shape, index) => ({
        ...shape,
        read: () => Promise.resolve(initialWeights(shape, { seed: 1, index })),
      })),
      type: "F32",
      tokenizer: join(ROOT, "data/english/tokenizer.json"),
    });
    // deno-fmt-ignore
    const flags = ["--model", model, "--data", join(ROOT, "data/english/text.jsonl.gz"), "--runs", folder, "--name",
      "shape", "--steps", "3", "--warmup", "0", "--decay", "0", "--no-control", "--save-type", "F16",
      ...(Deno.args.includes("--batch") ? [] : ["--batch", "1", "--context", "128"]),
      "--eval-tokens", "1024", "--validation-tokens", "256", "--constraint-every", "2", "--json", ...Deno.args];
    const { code } = await new Deno.Command(Deno.execPath(), {
      args: [
        "run",
        "--no-check",
        "--allow-read",
        "--allow-write",
        "--allow-env",
        "pipeline/main.ts",
        "sparsify",
        ...flags,
      ],
      cwd: ROOT,
      stdout: "inherit",
      stderr: "inherit",
    }).output();
    if (code !== 0) Deno.exit(code);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
