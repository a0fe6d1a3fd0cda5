/** Ranks in one process: what they sum, share and tell each other, and what becomes of one that does not come. */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { createExchange, type Exchange } from "../../../pipeline/parallel/exchange.ts";
import { prepareDeviceGather, prepareDeviceSum } from "../../../pipeline/parallel/device_sum.ts";
import { shareOfStep } from "../../../pipeline/parallel/share_of_step.ts";
import type { Transport } from "../../../pipeline/parallel/transport.ts";
import { withHelp } from "../../../pipeline/parallel/with_help.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { destroyTensor, type Tensor } from "../../../kernels/core/tensor.ts";
import { gpuTest, upload } from "../../support/gpu.ts";
import { ranksInProcess } from "../../support/ranks_in_process.ts";
import { seeded } from "../../support/seeded.ts";

const LIMIT = 1;

/** Does `body` at each of so many ranks. */
async function atRanks<Result>(
  size: number,
  body: (exchange: Exchange) => Promise<Result>,
): Promise<Result[]> {
  return await Promise.all(
    ranksInProcess(size).map((transport) => body(createExchange(transport, { limit: LIMIT }))),
  );
}

const randomValues = (seed: number, length: number): Float32Array<ArrayBuffer> => {
  const random = seeded(seed);
  return Float32Array.from({ length }, () => 100 * random.uniform() - 50);
};

Deno.test("a sum over ranks is that in the order of the ranks in float64, rounded once, the same bits at every rank", async () => {
  for (const size of [2, 3, 4]) {
    const length = 60;
    const sums = await atRanks(size, async (exchange) => {
      const values = randomValues(exchange.rank, length);
      await exchange.sum(values, "values");
      return values;
    });
    const expected = Float32Array.from({ length }, (_, n) => {
      let sum = 0;
      for (let rank = 0; rank < size; rank++) sum += randomValues(rank, length)[n];
      return sum;
    });
    for (const values of sums) assertEquals(values, expected);
  }
});

Deno.test("values that ranks cannot share evenly are refused with the numbers", async () => {
  const [transport] = ranksInProcess(3);
  const exchange = createExchange(transport, { limit: LIMIT });
  const error = await assertRejects(() => exchange.sum(new Float32Array(4), "values"), RangeError);
  assertStringIncludes(error.message, "4 values over 3 ranks");
});

Deno.test("what rank 0 does is done once, and its result is at every rank", async () => {
  const done: number[] = [];
  const results = await atRanks(3, async (exchange) => {
    const work = (value: unknown) => () => {
      done.push(exchange.rank);
      return value;
    };
    return [
      await exchange.share(work({ name: "a", ratio: NaN, missing: undefined, tokens: Uint32Array.of(1, 2) })),
      await exchange.share(work(Float32Array.of(0.5, -0))),
      await exchange.share(work(undefined)),
      await exchange.share(work(0)),
    ];
  });
  assertEquals(done, [0, 0, 0, 0]);
  for (const result of results) {
    assertEquals(result, [
      { name: "a", ratio: NaN, missing: undefined, tokens: Uint32Array.of(1, 2) },
      Float32Array.of(0.5, -0),
      undefined,
      0,
    ]);
  }
});

Deno.test("every rank gets all values in the order of the ranks, whoever comes last", async () => {
  for (const late of [0, 1, 2]) {
    const results = await atRanks(3, async (exchange) => {
      if (exchange.rank === late) await new Promise((resolve) => setTimeout(resolve, 20));
      return await exchange.gather({ of: exchange.rank }, "a test");
    });
    for (const values of results) assertEquals(values, [{ of: 0 }, { of: 1 }, { of: 2 }]);
  }
});

Deno.test("a wish to stop at one rank is agreed on by all at the same place", async () => {
  const wish = new AbortController();
  const aborted = await Promise.all(
    ranksInProcess(3).map(async (transport) => {
      const exchange = createExchange(transport, {
        limit: LIMIT,
        wish: transport.rank === 2 ? wish.signal : undefined,
      });
      const seen: boolean[] = [];
      for (let step = 0; step < 4; step++) {
        if (transport.rank === 2 && step === 2) wish.abort();
        await exchange.agree();
        seen.push(exchange.signal.aborted);
      }
      return seen;
    }),
  );
  for (const seen of aborted) assertEquals(seen, [false, false, true, true]);
});

Deno.test("a rank that does not come is named by rank 0, and by the others where it is rank 0", async () => {
  for (const missing of [0, 2]) {
    const limit = 1 / 600;
    let time = 0;
    const messages = await Promise.all(
      ranksInProcess(3).filter(({ rank }) => rank !== missing).map(async (transport) => {
        // A minute with every look at rank 0's ranks, which are patient as long as rank 0 may be.
        const now = missing === 0 ? () => time += 60_000 : undefined;
        const exchange = createExchange(transport, { limit, now });
        const error = await assertRejects(
          () =>
            Promise.race([
              exchange.gather(1, "step 3"),
              new Promise<never>((_, reject) => setTimeout(() => reject(new Error("waits")), 1500)),
            ]),
          Error,
        );
        return { rank: transport.rank, error };
      }),
    );
    const told = messages.filter(({ error }) => error instanceof UserError);
    assert(told.length > 0, "someone tells");
    for (const { rank, error } of told) {
      assertStringIncludes(error.message, `rank ${missing === 0 ? 0 : 2} did not come to step 3`);
      assertStringIncludes(error.message, "--rank-limit");
      if (missing !== 0) assertEquals(rank, 0);
    }
  }
});

Deno.test("a rank that stops in the middle of a sum is noticed by the others", async () => {
  const [first, second] = ranksInProcess(2);
  const left = createExchange({ ...first, allToAll: () => new Promise(() => {}) }, { limit: 1 / 600 });
  const sum = (exchange: Exchange) => exchange.sum(new Float32Array(2), "the gradients");
  const other = sum(createExchange(second, { limit: 1 / 600 })).catch(() => {});
  const late = new Promise<never>((_, reject) => setTimeout(() => reject(new Error("it waits")), 1500));
  const error = await assertRejects(() => Promise.race([sum(left), late]), Error);
  late.catch(() => {});
  assertStringIncludes(
    error.message,
    "a rank did not come to the end of the exchange of the gradients within",
  );
  void other;
});

Deno.test("a rank that is asked to stop does not wait for one that has died as long as others do", async () => {
  const [first] = ranksInProcess(2);
  const wish = new AbortController();
  let time = 0;
  const exchange = createExchange(first, { limit: 15, wish: wish.signal, now: () => time += 1000 });
  wish.abort();
  const error = await assertRejects(() => exchange.agree(), UserError);
  assertStringIncludes(error.message, "rank 1 does not come to whether to stop: it may have died");
  assert(time < 60_000, `it took ${time} ms`);
});

Deno.test("rank 0 may be at its work for longer than ranks wait, as long as it gives a sign of life", async () => {
  const limit = 1 / 600;
  let time = 0;
  const results = await Promise.all(
    ranksInProcess(2).map((transport) => {
      // A second with every look, of which there are some between two signs of life.
      const now = transport.rank === 0 ? undefined : () => time += 1000;
      return createExchange(transport, { limit, now }).share(async () => {
        await new Promise((resolve) => setTimeout(resolve, 500));
        return "done";
      }).catch((error) => error.message);
    }),
  );
  assertEquals(results, ["done", "done"]);
  assert(time > 40_000, `rank 1 waited ${time} ms by its clock`);
});

Deno.test("ranks that are at other places than each other are noticed", async () => {
  const [first, second] = ranksInProcess(2).map((transport) => createExchange(transport, { limit: LIMIT }));
  const ahead = second.gather(1, "one").then(() => second.gather(2, "two")).catch(() => {});
  await first.gather(1, "one");
  await first.share(() => 1).catch(() => {});
  const error = await assertRejects(() => first.gather(3, "three"), Error);
  assertStringIncludes(error.message, "meeting");
  void ahead;
});

Deno.test("a step is divided by its micro-batches, else by rows, else refused with the numbers", () => {
  assertEquals(shareOfStep({ batch: 8, accumulate: 4 }, 1), { batch: 8, accumulate: 4 });
  assertEquals(shareOfStep({ batch: 8, accumulate: 4 }, 4), { batch: 8, accumulate: 4 });
  assertEquals(shareOfStep({ batch: 8, accumulate: 1 }, 4), { batch: 2, accumulate: 4 });
  // Twelve rows each, which micro-batches of eight do not fill.
  assertEquals(shareOfStep({ batch: 8, accumulate: 3 }, 2), { batch: 6, accumulate: 4 });
  assertEquals(shareOfStep({ batch: 7, accumulate: 2 }, 7), { batch: 2, accumulate: 7 });
  const error = assertThrows(() => shareOfStep({ batch: 5, accumulate: 3 }, 4), UserError);
  assertEquals(error.exitCode, 2);
  assertStringIncludes(error.message, "--batch 5 times --accumulate 3, must be a multiple of 4: 15");
});

const LENGTHS = [1, 7, 30, 4];
const tensorsOf = (gpu: Gpu, rank: number): Tensor[] =>
  LENGTHS.map((length, n) => upload(gpu, `tensor ${n} of rank ${rank}`, randomValues(10 * n + rank, length)));
/** The sum of tensor `n` over three ranks. */
const sumOf = (n: number): Float32Array => {
  const [first, second, third] = [0, 1, 2].map((rank) => randomValues(10 * n + rank, LENGTHS[n]));
  return Float32Array.from(first, (value, at) => value + second[at] + third[at]);
};

gpuTest(
  "tensors of a device are summed over ranks in buckets, each element once, whatever chunk it falls in",
  async (gpu) => {
    for (const chunk of [5, 8, 1000]) {
      const results = await atRanks(3, async (exchange) => {
        const tensors = tensorsOf(gpu, exchange.rank);
        const buckets = [{ all: [tensors[3], tensors[0]] }, {}, { all: [tensors[1], tensors[2]] }];
        const sum = prepareDeviceSum(gpu, exchange, buckets, { what: "tensors", chunk });
        await sum.run();
        sum.destroy();
        return await Promise.all(tensors.map((tensor) => gpu.read(tensor)));
      });
      for (const tensors of results) tensors.forEach((values, n) => assertEquals(values, sumOf(n)));
    }
  },
);

gpuTest(
  "of tensors that have owners each rank gets the sums of its own, and what it makes of them is gathered",
  async (gpu) => {
    // Rank 1 has none.
    const owners = [2, 0, 2, 0];
    for (const chunk of [5, 12, 1000]) {
      const results = await atRanks(3, async (exchange) => {
        const tensors = tensorsOf(gpu, exchange.rank);
        const owned = tensors.map((tensor, n) => ({ tensor, owner: owners[n] }));
        const buckets = [{ owned: owned.slice(2) }, { owned: owned.slice(0, 2) }];
        const sum = prepareDeviceSum(gpu, exchange, buckets, { what: "tensors", chunk });
        const gather = prepareDeviceGather(gpu, exchange, owned, { what: "tensors", chunk });
        const read = () => Promise.all(tensors.map((tensor) => gpu.read(tensor)));
        await sum.run();
        const summed = await read();
        await gather.run();
        for (const part of [sum, gather]) part.destroy();
        return { rank: exchange.rank, summed, gathered: await read() };
      });
      for (const { rank, summed, gathered } of results) {
        summed.forEach((values, n) =>
          assertEquals(values, owners[n] === rank ? sumOf(n) : randomValues(10 * n + rank, LENGTHS[n]))
        );
        gathered.forEach((values, n) => assertEquals(values, sumOf(n)));
      }
    }
  },
);

gpuTest("a bucket is summed while what was begun later is under way", async (gpu) => {
  const order: string[] = [];
  const { promise: begun, resolve } = Promise.withResolvers<void>();
  let ranks = 0;
  await Promise.all(
    ranksInProcess(2).map(async (transport) => {
      const watched: Transport = {
        ...transport,
        async allToAll(send, receive) {
          // It would never come if the sums of a bucket were waited for before the next begins.
          await begun;
          if (transport.rank === 0) order.push("moved");
          await transport.allToAll(send, receive);
        },
      };
      const tensors = tensorsOf(gpu, transport.rank);
      const buckets = tensors.map((tensor) => ({ all: [tensor] }));
      const sum = prepareDeviceSum(gpu, createExchange(watched, { limit: LIMIT }), buckets, {
        what: "tensors",
      });
      await sum.begin(0).read;
      await sum.begin(1, { operation: "more", record: () => order.push("more") }).copied;
      if (++ranks === 2) resolve();
      sum.begin(2);
      sum.begin(3);
      await sum.end();
      sum.destroy();
    }),
  );
  assertEquals(order, ["more", "more", "moved", "moved", "moved", "moved"]);
});

gpuTest("what fails in a sum that has begun is told where its end is awaited", async (gpu) => {
  const [transport] = ranksInProcess(2);
  const broken = { ...transport, send: () => Promise.reject(new Error("the cable is out")) };
  const exchange = createExchange(
    { ...broken, rank: 1 },
    { limit: LIMIT },
  );
  const sum = prepareDeviceSum(gpu, exchange, [{ all: tensorsOf(gpu, 0) }, {}], { what: "tensors" });
  await sum.begin(0).read;
  sum.begin(1);
  const error = await assertRejects(() => sum.end(), Error);
  assertStringIncludes(error.message, "the cable is out");
  sum.destroy();
});

gpuTest(
  "a sum that fails with more on the way than there is room for is told, at whatever is awaited",
  async (gpu) => {
    const [transport] = ranksInProcess(2);
    const broken = { ...transport, send: () => Promise.reject(new Error("the cable is out")) };
    const exchange = createExchange({ ...broken, rank: 1 }, { limit: LIMIT });
    const values = gpu.tensor("values", [40]);
    // Ten chunks, of which two may be on the way.
    const options = { what: "values", chunk: 4, onTheWay: 32 };
    const sum = prepareDeviceSum(gpu, exchange, [{ all: [values] }], options);
    assertStringIncludes((await assertRejects(() => sum.run(), Error)).message, "the cable is out");
    sum.destroy();
    destroyTensor(gpu, values);
  },
);

Deno.test("rank 0 does its work with the others' help, which is given whenever it asks", async () => {
  const asked: string[] = [];
  const worked: string[] = [];
  await atRanks(3, (exchange) =>
    withHelp(exchange, async (of: string) => {
      asked.push(`${of} at ${exchange.rank}`);
      return (await exchange.gather(exchange.rank, of)).join();
    }, async (ask) => {
      worked.push(`rank ${exchange.rank}`, await ask("a"));
      await new Promise((resolve) => setTimeout(resolve, 5));
      // Asked for at once, given one after the other.
      worked.push(...await Promise.all([ask("b"), ask("c")]));
    }));
  assertEquals(worked, ["rank 0", "0,1,2", "0,1,2", "0,1,2"]);
  assertEquals(
    asked.toSorted(),
    ["a", "b", "c"].flatMap((of) => [0, 1, 2].map((rank) => `${of} at ${rank}`)),
  );
  for (const rank of [0, 1, 2]) {
    assertEquals(asked.filter((one) => one.endsWith(` ${rank}`)).map((one) => one[0]), ["a", "b", "c"]);
  }
  // Each is asked its part alone.
  const parts: string[] = [];
  const given = atRanks(3, async (exchange) => {
    let all: string[] = [];
    await withHelp(
      exchange,
      async (of: string) => {
        parts.push(`${of} at ${exchange.rank}`);
        return await exchange.collect(of.toUpperCase(), "a test");
      },
      async (ask) => {
        all = [...await ask("abc"), ...await ask("def")];
      },
      (of) => [...of],
    );
    return all;
  });
  assertEquals(await given, [["A", "B", "C", "D", "E", "F"], [], []]);
  assertEquals(parts.toSorted(), ["a at 0", "b at 1", "c at 2", "d at 0", "e at 1", "f at 2"]);
  // Alone it helps itself, and what fails in the work is its error.
  await withHelp(undefined, (of: string) => Promise.resolve(of), async (ask) => {
    worked.push(await ask("alone"));
  });
  assertEquals(worked.at(-1), "alone");
  const [first] = ranksInProcess(1).map((transport) => createExchange(transport, { limit: LIMIT }));
  const full = () => withHelp(first, () => Promise.resolve(), () => Promise.reject(new Error("disk full")));
  assertStringIncludes((await assertRejects(full, Error)).message, "disk full");
  const lost = () =>
    withHelp(first, () => Promise.reject(new Error("lost")), (ask) => ask("a").then(() => {}));
  assertStringIncludes((await assertRejects(lost, Error)).message, "lost");
});
