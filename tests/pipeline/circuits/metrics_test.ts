import { assert, assertEquals } from "@std/assert";
import {
  area,
  areas,
  bisectForMost,
  bootstrap,
  chosenSizes,
  faithfulness,
  jaccard,
  ladderSizes,
  rankCorrelation,
  sizeForMost,
} from "../../../pipeline/circuits/metrics.ts";
import { randomStream } from "../../../kernels/core/random.ts";

const bounds = { full: [3, 5], empty: [1, 1] };

Deno.test("faithfulness is taken of means over prompts, of those drawn where some are", () => {
  assertEquals(faithfulness([2, 3], bounds), 1.5 / 3);
  assertEquals(faithfulness([2, 3], bounds, [1, 1]), 2 / 4);
  assertEquals(faithfulness(bounds.full, bounds), 1);
  assertEquals(faithfulness(bounds.empty, bounds), 0);
  assertEquals(faithfulness([5, 9], bounds), 2);
});

Deno.test("CPR and CMD are areas under f and |1 - f| by trapezoids", () => {
  assertEquals(area([[0, 0], [1, 1], [3, 1]]), 2.5);
  const curve = [{ fraction: 0, faithfulness: 0 }, { fraction: 0.5, faithfulness: 1.5 }, {
    fraction: 1,
    faithfulness: 1,
  }];
  assertEquals(areas(curve), { cpr: 0.375 + 0.625, cmd: 0.375 + 0.125 });
});

Deno.test("fractions that come to the same number of edges are one circuit", () => {
  // 0.001 and 0.002 of 479 edges are one edge each.
  assertEquals(chosenSizes(479), [1, 2, 5, 10, 24, 48, 96, 240, 479]);
  assertEquals(chosenSizes(32491).length, 10);
  assertEquals(chosenSizes(1), [1]);
});

Deno.test("the size for most of the effect is bisected to the edge above the last circuit that falls short", async () => {
  const runs: number[] = [];
  const bisected = async (least: number, sizes: number[], dips: number[] = []) => {
    const rung = (chosen: number) => {
      const f = chosen >= least && !dips.includes(chosen) ? 1 : 0.5;
      return { chosen, size: 10 * chosen, metrics: [1 + 2 * f, 1 + 4 * f] };
    };
    const ladder = sizes.map(rung);
    runs.length = 0;
    await bisectForMost(ladder, bounds, (chosen) => {
      runs.push(chosen);
      return Promise.resolve(rung(chosen));
    });
    assertEquals(ladder.map(({ chosen }) => chosen), [...sizes, ...runs].sort((a, b) => a - b));
    return sizeForMost(ladder, bounds);
  };
  for (let least = 41; least <= 61; least++) {
    assertEquals(await bisected(least, [1, 40, 61, 100]), 10 * least);
    assert(runs.length <= 5, `${runs}`);
  }
  // What falls short further up counts, though smaller circuits do not.
  assertEquals(await bisected(45, [1, 40, 61, 100], [61]), 620);
  assertEquals(await bisected(101, [1, 40, 61, 100]), null);
  assertEquals(await bisected(1, [1, 40]), 10);
  assertEquals(runs, []);
});

Deno.test("the size for most of the effect is that from which on all circuits reach it", () => {
  const rung = (size: number, f: number) => ({ size, metrics: [1 + 2 * f, 1 + 4 * f] });
  const ladder = [rung(1, 0.2), rung(2, 0.95), rung(4, 0.8), rung(8, 0.91), rung(16, 1.1), rung(32, 1)];
  assertEquals(sizeForMost(ladder, bounds), 8);
  assertEquals(sizeForMost(ladder.slice(0, 3), bounds), null);
  assertEquals(sizeForMost([], bounds), null);
});

Deno.test("a ladder grows by its ratio and holds what it is given", () => {
  assertEquals(ladderSizes(10, 1.5), [1, 2, 3, 5, 8, 10]);
  assertEquals(ladderSizes(10, 2, [7, 0, 11]), [1, 2, 4, 7, 8, 10]);
  assertEquals(ladderSizes(1, 1.5), [1]);
});

Deno.test("the bootstrap's interval holds the mean's, and is that of the normal for many prompts", () => {
  const random = randomStream(1);
  const values = Float64Array.from({ length: 400 }, () => 2 + random.normal());
  const mean = (chosen?: Uint32Array) =>
    (chosen ? Array.from(chosen, (n) => values[n]) : [...values]).reduce((a, b) => a + b) / 400;
  const { value, low, high } = bootstrap([400], (chosen) => mean(chosen), { draws: 2000, random });
  assertEquals(value, mean());
  // 1.96 standard errors of 0.05; 2000 draws and 400 values leave a tenth of that open.
  assert(Math.abs(high! - low! - 2 * 1.96 * 0.05) < 0.02, `${low} to ${high}`);
});

Deno.test("a statistic that often does not exist has no interval, and one that never does no value", () => {
  let calls = 0;
  const few = { draws: 10, random: randomStream(1) };
  assertEquals(bootstrap([4], () => 7, few), { value: 7, low: null, high: null }, "of four nothing is said");
  assertEquals(bootstrap([5], () => 7, few), { value: 7, low: 7, high: 7 });
  const half = bootstrap([5], () => calls++ % 2 === 0 ? 1 : null, { draws: 100, random: randomStream(1) });
  assertEquals(half, { value: 1, low: null, high: null });
  assertEquals(bootstrap([5], () => null, { draws: 10, random: randomStream(1) }), {
    value: null,
    low: null,
    high: null,
  });
});

Deno.test("Jaccard's overlap and Spearman's correlation of hand-worked sets", () => {
  assertEquals(jaccard([1, 1, 0, 0], [0, 1, 1, 0]), 1 / 3);
  assertEquals(jaccard([0, 0], [0, 0]), 1);
  assertEquals(rankCorrelation([1, 2, 3], [10, 20, 15]), 0.5);
  assertEquals(rankCorrelation([1, 1, 2], [5, 5, 9]), 1);
  assert(Number.isNaN(rankCorrelation([1, 1], [1, 2])));
});
