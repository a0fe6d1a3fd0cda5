/** Log-likelihoods by ranks that take batches in turn: those of one process, to the bit. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { measureLikelihoods } from "../../../pipeline/benchmarks/likelihood.ts";
import type { Sequence } from "../../../pipeline/benchmarks/requests.ts";
import { createExchange } from "../../../pipeline/parallel/exchange.ts";
import { randomModel, TINY } from "../../support/circuit_models.ts";
import { gpuTest } from "../../support/gpu.ts";
import { ranksInProcess } from "../../support/ranks_in_process.ts";
import { seeded } from "../../support/seeded.ts";

const CONFIG = { ...TINY, contextLength: 64, gate: { bias: 0.4, temperature: 1 } };

gpuTest(
  "each rank measures every so many batches, and each knows all in the order of the sequences",
  async (gpu) => {
    const model = randomModel(gpu, CONFIG);
    const random = seeded(4);
    const sequences = [9, 50, 3, 30, 60, 12, 2, 20, 49, 5, 31].map((length, n): Sequence => ({
      tokens: Array.from({ length }, () => random.integer(CONFIG.vocabularySize)),
      counted: n === 2 ? 0 : 1 + n % (length - 1),
    }));
    const options = { batchTokens: 70 };
    const one = await measureLikelihoods(gpu, model, sequences, options);
    assertEquals(new Set(one.map(({ logLikelihood }) => logLikelihood)).size, sequences.length);
    // Two rows of 32 or one of 64: seven batches, of which one rank has more than another.
    for (const size of [2, 3]) {
      const told: number[][] = [];
      const found = await Promise.all(
        ranksInProcess(size).map((transport) => {
          const exchange = createExchange(transport, { limit: 1 });
          const own: number[] = [];
          told.push(own);
          return measureLikelihoods(gpu, model, sequences, {
            ...options,
            exchange,
            onDone: (done) => own.push(done),
          });
        }),
      );
      for (const each of found) assertEquals(each, one);
      for (const own of told) assertEquals([own[0], own.at(-1)], [1, sequences.length]);
    }
  },
);

gpuTest("no rank does another's batches, and all stop where one is asked to", async (gpu) => {
  const model = randomModel(gpu, CONFIG);
  const sequences = Array.from({ length: 6 }, (): Sequence => ({ tokens: [1, 2, 3], counted: 1 }));
  const wish = new AbortController();
  wish.abort();
  const runs = [0, 0];
  const run = (isToStop: boolean) =>
    ranksInProcess(2).map((transport) => {
      const { rank } = transport;
      const wished = isToStop && rank === 1 ? wish.signal : undefined;
      const exchange = createExchange(transport, { limit: 1, wish: wished });
      const counting = new Proxy(gpu, {
        get(target, name) {
          const value = Reflect.get(target, name, target);
          if (name !== "submit") return typeof value === "function" ? value.bind(target) : value;
          return (label: string, record: Parameters<typeof gpu.submit>[1]) => {
            if (label === "likelihoods") runs[rank]++;
            target.submit(label, record);
          };
        },
      });
      return measureLikelihoods(counting, model, sequences, {
        batchTokens: 32,
        exchange,
        signal: exchange.signal,
      });
    });
  await Promise.all(run(false));
  assertEquals(runs, [3, 3]);
  await Promise.all(run(true).map((stopped) => assertRejects(() => stopped)));
  assert(runs.every((count) => count === 3), "none began");
});
