/** Whole runs whose layers are divided among ranks, in one process: the bits of a run whose layers are not. */
import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { openDeviceLink } from "../../../pipeline/parallel/device_link.ts";
import { createExchange } from "../../../pipeline/parallel/exchange.ts";
import type { SparsifySettings } from "../../../pipeline/settings.ts";
import { gpuTest } from "../../support/gpu.ts";
import { bitsOf, type Left, play } from "../../support/played_ranks.ts";
import { ranksInProcess, untilTaken } from "../../support/ranks_in_process.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const SETTINGS = { steps: 20 };

/** Everything that a run leaves but the time. */
function leftBy(left: Left) {
  const { seconds: _, ...summary } = left.summary!;
  return { rows: bitsOf(left), weights: left.weights, summary };
}

/** A run by so many ranks, with nothing else new but what is given. */
async function left(gpu: Gpu, ranks: number, settings: Partial<SparsifySettings>, runs: string) {
  const played = await play(gpu, ranks, { runs, settings: { ...SETTINGS, ...settings } });
  assertEquals(played.finished, Array.from({ length: ranks }, () => true));
  return leftBy(played);
}

for (
  const [what, others] of [
    ["a run", {}],
    ["one that computes activations anew", { recompute: true, distill: 0 }],
    ["one with a control as yardstick and teacher", {
      control: true,
      targetLoss: "control",
      teacher: "control",
    }],
    ["one with a front of targets", { front: true, frontSlack: 0.1 }],
  ] as const
) {
  gpuTest(`${what} in two stages has the bits of one rank, in two pipelines those of two`, async (gpu) => {
    await using folder = await temporaryFolder();
    const one = await left(gpu, 1, others, `${folder.path}/one`);
    assertEquals(one.rows.length, SETTINGS.steps * ("control" in others ? 2 : 1));
    assertEquals(await left(gpu, 2, { ...others, stages: 2 }, `${folder.path}/staged`), one);
    const two = await left(gpu, 2, others, `${folder.path}/two`);
    assertEquals(await left(gpu, 4, { ...others, stages: 2 }, `${folder.path}/both`), two);
  });
}

gpuTest("a run that is stopped goes on with other stages, or none, to the same bits", async (gpu) => {
  await using folder = await temporaryFolder();
  const whole = leftBy(await play(gpu, 1, { runs: `${folder.path}/whole`, settings: SETTINGS }));
  for (const [first, then] of [[1, 2], [2, 1]]) {
    const runs = `${folder.path}/${first}`;
    const stopped = await play(gpu, first, {
      runs,
      settings: { ...SETTINGS, stages: first },
      step: 9,
      stopAfter: { rank: first - 1, step: 9 },
    });
    assertEquals(stopped.finished, Array.from({ length: first }, () => false));
    const settings = { ...SETTINGS, stages: then };
    assertEquals(leftBy(await play(gpu, then, { runs, settings, goesOnIn: stopped.folder })), whole);
  }
});

gpuTest(
  "pipelines whose ranks keep the moments of their share alone have the same bits, also where they went on",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const two = await left(gpu, 2, {}, `${folder.path}/two`);
    const divided = { ...SETTINGS, stages: 2, shardOptimizer: true };
    assertEquals(await left(gpu, 4, divided, `${folder.path}/divided`), two);
    const runs = `${folder.path}/stopped`;
    const stopAfter = { rank: 3, step: 9 };
    const stopped = await play(gpu, 4, { runs, settings: divided, step: 9, stopAfter });
    const gone = await play(gpu, 4, { runs, settings: divided, goesOnIn: stopped.folder });
    assertEquals(leftBy(gone), two);
  },
);

Deno.test("ranks in a row are a pipeline, which hands on in order, and the same stages of all meet", async () => {
  const ended = await Promise.all(
    ranksInProcess(6).map(async (transport) => {
      const exchange = createExchange(transport, { limit: 1 }).divide(3);
      const { index, count, pipeline, pipelines, peers, send, receive, toFirst } = exchange.stages!;
      assertEquals([pipeline * count + index, pipelines], [transport.rank, 2]);
      // Twice around, with something between.
      const first = Float32Array.of(transport.rank, -0, 1.5);
      const second = Float32Array.of(10 + transport.rank);
      const sent = [send((index + 1) % 3, first, "a test"), send((index + 1) % 3, second, "a test")];
      const received = [new Float32Array(3), new Float32Array(1)];
      for (const values of received) await receive((index + 2) % 3, values, "a test");
      await Promise.all(sent);
      const before = 3 * pipeline + (index + 2) % 3;
      assertEquals(received, [Float32Array.of(before, -0, 1.5), Float32Array.of(10 + before)]);
      const sums = Float32Array.of(transport.rank, 1);
      await peers!.sum(sums, "a test");
      assertEquals(sums, Float32Array.of(2 * index + 3, 2));
      const gathered = await peers!.gather(transport.rank, "a test");
      assertEquals(gathered, [index, 3 + index]);
      const told: number[][] = [];
      for (const stage of [0, 1, 2]) {
        const values = await toFirst(
          stage,
          () => Promise.resolve(Float32Array.of(transport.rank)),
          1,
          "a test",
        );
        told.push([...values]);
      }
      const all = Float32Array.from({ length: 6 }, () => transport.rank);
      await exchange.sum(all, "a test");
      assertEquals(all, Float32Array.from({ length: 6 }, () => 15));
      return told;
    }),
  );
  assertEquals(ended[0], [[0], [1], [2]]);
  assertThrows(
    () => createExchange(ranksInProcess(6)[0], { limit: 1 }).divide(4),
    RangeError,
    "6 ranks into pipelines of 4",
  );
});

Deno.test("of stages that wait for each other the one beside the missing tells first, by its rank", async () => {
  let time = 0;
  const transports = ranksInProcess(4).slice(0, 3);
  // Who looks most often does not matter: time goes by for all.
  const now = () => time += 1000;
  const errors: string[] = [];
  await Promise.all(transports.map(async (transport) => {
    const { index, receive } = createExchange(transport, { limit: 1, now }).divide(4).stages!;
    await assertRejects(
      () =>
        receive(index + 1, new Float32Array(1), "a test").catch((error) => {
          errors.push(error.message);
          throw error;
        }),
      UserError,
    );
  }));
  assertEquals(errors.length, 3);
  assertStringIncludes(errors[0], "Cannot go on as rank 3 did not come to a test within 1 minutes");
});

gpuTest(
  "stages that send before they receive wait for nobody, and tensors come whole and in order",
  async (gpu) => {
    const length = 1000;
    const valuesOf = (rank: number, n: number) =>
      Float32Array.from({ length }, (_, at) => 1e4 * rank + 2000 * n + at);
    await Promise.all(
      untilTaken(ranksInProcess(2)).map(async (transport) => {
        const { stages } = createExchange(transport, { limit: 1 }).divide(2);
        const other = 1 - transport.rank;
        const link = openDeviceLink(gpu, stages!, {
          what: "a test",
          largest: length,
          piece: 64,
          onTheWay: 256,
        });
        const tensor = gpu.tensor("what is sent", [length]);
        const received = gpu.tensor("what is received", [length]);
        for (const n of [0, 1, 2]) {
          gpu.write(tensor, valuesOf(transport.rank, n));
          await link.send(other, tensor);
          await link.receive(other, received);
          assertEquals(await gpu.read(received), valuesOf(other, n));
        }
        const pieces: [number, number][] = [];
        await link.send(other, tensor);
        await link.receivePieces(other, length, (values, start) => {
          pieces.push([start, values.length]);
          assertEquals(values, valuesOf(other, 2).subarray(start, start + values.length));
        });
        assertEquals([pieces.length, pieces.at(-1)], [16, [960, 40]]);
        await link.end();
        link.destroy();
        for (const each of [tensor, received]) destroyTensor(gpu, each);
      }),
    );
  },
);

Deno.test("a stage that is asked to stop waits for the one beside it as long as that has taken before", async () => {
  let [time, awaited, late] = [0, Infinity, () => {}];
  /** Goes on with every look of the one that waits, and tells when it has waited for so long. */
  const now = () => {
    time += 1000;
    if (time >= awaited) late();
    return time;
  };
  const wish = new AbortController();
  const [transport, other] = ranksInProcess(2);
  const { receive } = createExchange(transport, { limit: 10, now, wish: wish.signal }).divide(2).stages!;
  const { send } = createExchange(other, { limit: 10 }).divide(2).stages!;
  for (const stops of [false, true]) {
    if (stops) wish.abort();
    const { promise, resolve } = Promise.withResolvers<void>();
    [awaited, late] = [time + 40_000, resolve];
    const values = new Float32Array(1);
    const received = receive(1, values, "a test");
    await promise;
    await send(0, Float32Array.of(3), "a test");
    await received;
    assertEquals(values[0], 3);
  }
});
