/** Circuits over ranks: what one process finds, to the bit, however the work is shared out. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { type Ablation, type CircuitEngine, createCircuitEngine } from "../../../pipeline/circuits/engine.ts";
import { measureOffPaths } from "../../../pipeline/circuits/off_paths.ts";
import { createExchange, type Exchange } from "../../../pipeline/parallel/exchange.ts";
import { randomModel, randomSet, TINY, type TwoSidedModel } from "../../support/circuit_models.ts";
import { gpuTest } from "../../support/gpu.ts";
import { ranksInProcess } from "../../support/ranks_in_process.ts";
import { seeded } from "../../support/seeded.ts";

const CONFIG = { ...TINY, gate: { bias: 0.4, temperature: 1 } };
const SET = randomSet(CONFIG, { pairs: 5, positions: 6 });

/** What each rank finds, each with an engine of its own; `size` 1: without others. */
async function overRanks<Found>(
  size: number,
  work: (exchange: Exchange | undefined) => Promise<Found>,
): Promise<Found[]> {
  if (size === 1) return [await work(undefined)];
  return await Promise.all(
    ranksInProcess(size).map((transport) => work(createExchange(transport, { limit: 1 }))),
  );
}

/** Every value that an engine has to give. */
async function everything(engine: CircuitEngine) {
  const random = seeded(8);
  const circuits = Array.from(
    { length: 19 },
    () => Uint8Array.from({ length: engine.graph.edges }, () => random.integer(2)),
  );
  return {
    baselines: await engine.baselines(),
    run: await engine.run(circuits[0]),
    zero: await engine.run(circuits[1], "zero"),
    each: await engine.runEach(circuits),
    scores: await engine.attribute({ name: "eap-ig", steps: 2 }),
    noising: await engine.patchNodes("noising"),
    denoising: await engine.patchNodes("denoising"),
    edges: await engine.patchEdges([3, 0, 7]),
  };
}

async function withEngine<Found>(
  gpu: Gpu,
  model: TwoSidedModel,
  options: { exchange: Exchange | undefined; ablation: Ablation; maxBytes?: number },
  body: (engine: CircuitEngine) => Promise<Found>,
): Promise<Found> {
  const engine = await createCircuitEngine(gpu, model, { set: SET, ...options });
  try {
    return await body(engine);
  } finally {
    engine.destroy();
  }
}

gpuTest("two and three ranks find each value of one process, in one batch and in several", async (gpu) => {
  const model = randomModel(gpu, CONFIG);
  const whole = await withEngine(
    gpu,
    model,
    { exchange: undefined, ablation: "mean" },
    ({ bytes, batch }) => Promise.resolve({ bytes, batch }),
  );
  assertEquals(whole.batch, 5);
  for (const ablation of ["resample", "mean"] as const) {
    for (const maxBytes of [undefined, Math.floor(whole.bytes / 2)]) {
      const foundBy = (size: number) =>
        overRanks(size, (exchange) => withEngine(gpu, model, { exchange, ablation, maxBytes }, everything));
      const [one] = await foundBy(1);
      assert(new Set(one.run).size > 1 && one.scores.some((scores) => scores.some((score) => score !== 0)));
      // One circuit at a time and many, where one begins as the one before.
      assertEquals(one.each[0], one.run);
      for (const size of [2, 3]) {
        for (const found of await foundBy(size)) assertEquals(found, one, `${ablation}, ${size} ranks`);
      }
    }
  }
});

gpuTest("each rank runs a share of the circuits and of the prompts", async (gpu) => {
  const model = randomModel(gpu, CONFIG);
  const circuitsOf = async (size: number): Promise<number[]> =>
    await overRanks(size, async (exchange) => {
      let runs = 0;
      // A tap on what is submitted: its label tells what it is.
      const counting = new Proxy(gpu, {
        get(target, name) {
          if (name === "submit") {
            return (label: string, record: Parameters<Gpu["submit"]>[1]) => {
              if (label === "patched run") runs++;
              target.submit(label, record);
            };
          }
          const value = Reflect.get(target, name, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
      await withEngine(counting, model, { exchange, ablation: "zero" }, (engine) => {
        const circuits = Array.from({ length: 12 }, () => new Uint8Array(engine.graph.edges));
        return engine.runEach(circuits);
      });
      return runs;
    });
  assertEquals(await circuitsOf(1), [12]);
  assertEquals(await circuitsOf(3), [4, 4, 4]);
});

gpuTest("edges off the paths are found by ranks that take prompts in turn, as by one", async (gpu) => {
  const model = randomModel(gpu, CONFIG);
  const told: number[][] = [];
  const foundBy = (size: number) =>
    overRanks(size, (exchange) => {
      const own: number[] = [];
      told.push(own);
      return measureOffPaths(gpu, model, SET, (done) => own.push(done), exchange);
    });
  const [one] = await foundBy(1);
  assertEquals(one.length, 5);
  assert(one.some(({ anew }) => anew!.logit > 0), "some edges are off the paths");
  for (const found of await foundBy(2)) assertEquals(found, one);
  assertEquals(told, [[0, 1, 2, 3, 4, 5], [0, 2, 4, 5], [1, 3, 5]]);
});

gpuTest("a rank that is asked to stop stops all", async (gpu) => {
  const model = randomModel(gpu, CONFIG);
  const wish = new AbortController();
  wish.abort();
  const stopped = ranksInProcess(2).map(async (transport) => {
    const exchange = createExchange(transport, {
      limit: 1,
      wish: transport.rank === 1 ? wish.signal : undefined,
    });
    const error = await assertRejects(() =>
      withEngine(gpu, model, { exchange, ablation: "zero" }, (engine) => engine.baselines())
    );
    assertEquals(error, exchange.signal.reason);
  });
  await Promise.all(stopped);
});
