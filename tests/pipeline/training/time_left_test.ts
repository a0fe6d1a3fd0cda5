/** The time left on scripted times: what it is made of, and how far off it may be. */
import { assert, assertEquals } from "@std/assert";
import type { ResumePoint } from "../../../pipeline/runs/resume.ts";
import { SPARSIFY, type SparsifySettings } from "../../../pipeline/settings.ts";
import { defaultsOf } from "../../../pipeline/settings/resolve.ts";
import { workAhead } from "../../../pipeline/training/work_ahead.ts";
import { createTimeLeft, type Work } from "../../../pipeline/training/time_left.ts";

/** Seconds of a unit in the scripted run; the first of each kind takes 10 more, as kernels are compiled in it. */
const COSTS: Record<string, number> = { evaluation: 0.4, sparse: 1.2, control: 0.9 };
const COMPILING = 10;

/** What a run does, in order: the dense model measured, two phases with their evaluations, and the test tokens. */
const COURSE: [kind: string, units: number][] = [
  ["evaluation", 40],
  ...Array.from({ length: 4 }, (): [string, number][] => [["sparse", 25], ["evaluation", 40]]).flat(),
  ["evaluation", 80],
  ...Array.from({ length: 4 }, (): [string, number][] => [["control", 25], ["evaluation", 40]]).flat(),
  ["evaluation", 40],
];
const WORK: Work[] = COURSE.map(([kind, units]) => ({
  kind,
  units,
  like: { control: { kind: "sparse", share: 0.75 }, sparse: { kind: "evaluation", share: 3 } }[kind],
}));

/** Plays the run and gives what was said at each moment, beside the truth. */
function play(burst: number): { share: number; said: number | undefined; left: number }[] {
  const left = createTimeLeft(WORK);
  const moments: { at: number; said: number | undefined }[] = [];
  const compiled = new Set<string>();
  let now = 1000;
  for (const [kind, units] of COURSE) {
    left.begin(now);
    const size = kind === "evaluation" ? 1 : burst;
    for (let done = 0; done < units; done += size) {
      const count = Math.min(size, units - done);
      if (!compiled.has(kind)) now += COMPILING;
      compiled.add(kind);
      // Looked at half a unit before it is done as well.
      const took = COSTS[kind] * count;
      moments.push({ at: now + took / 2, said: left.secondsLeft(now + took / 2) });
      now += took;
      left.finish(kind, count, now);
      moments.push({ at: now, said: left.secondsLeft(now) });
    }
  }
  const whole = now - 1000;
  return moments.map(({ at, said }) => ({ share: (at - 1000) / whole, said, left: now - at }));
}

for (const burst of [1, 8]) {
  Deno.test(`after a tenth of a steady run time left is within a fifth, steps told ${burst} at a time`, () => {
    const moments = play(burst).filter(({ share }) => share > 0.1);
    for (const { share, said, left } of moments) {
      assert(said !== undefined, `at ${share}`);
      // What is left to compile, of the control, cannot be known; at the end a unit under way is what the rest hangs on.
      assert(Math.abs(said - left) <= 0.2 * left + 2, `at ${share}: ${said} for ${left}`);
    }
    const jumps = moments.slice(1).map(({ said, left }, n) => {
      const before = moments[n];
      return Math.abs(before.said! - said! - (before.left - left)) / Math.max(before.left, 30);
    });
    assert(Math.max(...jumps) < 0.1, `does not swing: ${Math.max(...jumps)}`);
  });
}

Deno.test("only the last work counts, and what was done between two kinds of it does not", () => {
  const left = createTimeLeft([{ kind: "step", units: 1000 }]);
  left.begin(0);
  let now = 0;
  for (let step = 0; step < 100; step++) left.finish("step", 1, now += 9);
  for (let step = 0; step < 64; step++) left.finish("step", 1, now += 1);
  assertEquals(left.secondsLeft(now), 1000 - 164);
  left.begin(now += 500);
  left.finish("step", 1, now += 1);
  assertEquals(left.secondsLeft(now), 1000 - 165);
});

Deno.test("time left is unknown while the cost of some work is, and 0 when all is done", () => {
  const left = createTimeLeft([{ kind: "step", units: 3 }, { kind: "evaluation", units: 1 }]);
  left.begin(0);
  left.finish("evaluation", 1, 5);
  assertEquals(left.secondsLeft(5), undefined);
  left.finish("step", 1, 80);
  assertEquals(left.secondsLeft(80), undefined, "kernels are compiled in the first");
  left.finish("step", 1, 83);
  assertEquals([left.secondsLeft(83), left.secondsLeft(84), left.secondsLeft(95)], [3, 2, 0]);
  left.finish("step", 1, 86);
  assertEquals(left.secondsLeft(86), 0);
  left.finish("step", 1, 89);
  assertEquals(left.secondsLeft(89), 0, "more than was planned");
  const even = createTimeLeft([{ kind: "megabyte", units: 3, even: true }]);
  even.begin(0);
  assertEquals(even.secondsLeft(1), undefined);
  even.finish("megabyte", 1, 4);
  assertEquals(even.secondsLeft(5), 7, "from the first on");
});

Deno.test("a run's work is both phases, their evaluations and all models on test tokens, from where it goes on", () => {
  const settings = { ...(defaultsOf(SPARSIFY) as SparsifySettings), steps: 100, evalEvery: 25 };
  const ahead = (control: boolean, steps: Record<string, number>): Record<string, number> => {
    const checkpoints = new Map(Object.entries(steps).map(([phase, step]) => [phase, { step }]));
    const resume = { checkpoints } as unknown as ResumePoint;
    const units: Record<string, number> = {};
    for (const work of workAhead({ ...settings, control }, { resume }, { validation: 10, test: 7 })) {
      units[work.kind] = (units[work.kind] ?? 0) + work.units;
    }
    return units;
  };
  assertEquals(ahead(true, {}), { evaluation: 10 + 3 * 7 + 80, sparse: 100, control: 100 });
  assertEquals(ahead(false, {}), { evaluation: 10 + 2 * 7 + 40, sparse: 100 });
  assertEquals(ahead(true, { sparse: 60 }), { evaluation: 10 + 3 * 7 + 20 + 40, sparse: 40, control: 100 });
});
