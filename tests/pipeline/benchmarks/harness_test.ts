/** Every task against lm-evaluation-harness (tests/fixtures/benchmarks, make.py). */
import { assert, assertEquals } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { encodeItems, readItems, scoreItems } from "../../../pipeline/benchmarks/benchmark.ts";
import { findPrefix } from "../../../pipeline/benchmarks/requests.ts";
import { scoreOf } from "../../../pipeline/benchmarks/scores.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { destroyParameters, loadParameters } from "../../../pipeline/model/parameters.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";
import { ENGLISH, itemsOf, readExpected, readTask, writeLlama } from "../../support/benchmark_models.ts";
import { gpuTest } from "../../support/gpu.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

/** Of a log-likelihood, relative: sums of hundreds of float32, of which the harness's and ours differ in the last places. */
const TOLERANCE = 1e-4;

async function compare(gpu: Gpu, folder: string, name: "english" | "llama"): Promise<void> {
  const config = await readModelConfig(folder);
  const weights = await openWeights(folder, config);
  const tokenizer = await loadTokenizer(folder, config);
  const prefix = await findPrefix(tokenizer, config.startOfText);
  const parameters = await loadParameters(gpu, weights.parameters, (tensor) => weights.read(tensor));
  const expected = (await readExpected())[name];
  assertEquals(Object.keys(expected).length, 12);
  const parts = await Promise.all(
    Object.keys(expected).map(async (name) => {
      const task = readTask(name);
      const items = await readItems(task, [itemsOf(name)], Infinity);
      return {
        task,
        items,
        encoded: encodeItems(items, { tokenizer, prefix, contextLength: config.contextLength }),
      };
    }),
  );
  const all = await scoreItems(gpu, { config, parameters }, parts, { batchTokens: 1024 });
  for (const [n, [name, of]] of Object.entries(expected).entries()) {
    const [{ task, items }, scores] = [parts[n], all[n]];
    assertEquals(scores.length, of.items.length, name);
    scores.forEach(({ logLikelihoods, greedy }, item) => {
      assertEquals(logLikelihoods.length, of.items[item].length, `${name}, item ${item}`);
      logLikelihoods.forEach((found, choice) => {
        const wanted = of.items[item][choice];
        const [likelihood, isGreedy] = typeof wanted === "number" ? [wanted, undefined] : wanted;
        const where = `${name}, item ${item}, choice ${choice}: ${found} for ${likelihood}`;
        assert(Math.abs(found - likelihood) <= TOLERANCE * Math.max(1, Math.abs(likelihood)), where);
        if (isGreedy !== undefined) assertEquals(greedy[choice], isGreedy, where);
      });
    });
    const score = scoreOf(items, task.scoring, scores);
    const { items: _, ...metrics } = of;
    for (const [metric, wanted] of Object.entries(metrics)) {
      const found = score[metric as keyof typeof metrics];
      const isNear = typeof found === "number" &&
        Math.abs(found - wanted) <= TOLERANCE * Math.max(1, Math.abs(wanted));
      assert(isNear, `${metric} of ${name}: ${found} for ${wanted}`);
    }
    assertEquals(score.n, items.length);
  }
  destroyParameters(gpu, parameters);
}

gpuTest(
  "every task gives lm-evaluation-harness's log-likelihoods and metrics, on the English model",
  async (gpu) => {
    await compare(gpu, ENGLISH, "english");
  },
);

gpuTest(
  "and on a Llama with a token before every text, and key heads that query heads share",
  async (gpu) => {
    await using folder = await temporaryFolder();
    await writeLlama(folder.path);
    await compare(gpu, folder.path, "llama");
  },
);
