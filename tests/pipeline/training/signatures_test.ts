import { assert, assertEquals } from "@std/assert";
import { CHANGEABLE } from "../../../pipeline/settings/resume.ts";
import {
  createHealthWatch,
  type HealthSample,
  signaturesOf,
  tellsDivergence,
} from "../../../pipeline/training/signatures.ts";
import { metricRow } from "../../support/metric_row.ts";

/** λ's bounds: of the first a float32 is above it, of the second below. */
const BOUNDS = { lambdaMin: 0.1, lambdaMax: 3.3 };
/** λ at them, as it comes from the device. */
const [FLOOR, CEILING] = [0.1, 3.3].map(Math.fround);

/** Names of the signatures that a course of samples sets off, with their steps. */
function course(
  samples: Partial<HealthSample>[],
  steps = 1000,
  { decay = 0, guessing }: { decay?: number; guessing?: number } = {},
): string[] {
  const watch = createHealthWatch({ steps, decay, ...BOUNDS, guessing });
  return samples.flatMap((sample, index) =>
    watch({ step: index + 1, ...sample }).map(({ name, step }) => `${name} ${step}`)
  );
}

Deno.test("a healthy run sets off nothing", () => {
  const samples = Array.from({ length: 1000 }, (_, n) => ({
    violation: 0.01 * Math.sin(n),
    lambda: 1 + 0.5 * Math.sin(n / 50),
    expectedOpen: Math.exp(-n / 150),
    deadQueries: n / 2000,
  }));
  assertEquals(course(samples), []);
});

Deno.test("a loss spike is named when it sets in, and again only after it has passed", () => {
  const samples = [0, 0.1, 0, 0.1, 0, 0.6, 0.7, 0.1, 0.8].map((violation) => ({ violation }));
  assertEquals(course(samples, 10), ["loss spike 6", "loss spike 9"]);
  assertEquals(course(samples, 1000), [], "closing the first gates is no failure");
});

Deno.test("a loss that begins high, or climbs slowly, is no spike", () => {
  const falling = Array.from({ length: 40 }, (_, n) => ({ violation: 3 * Math.exp(-n / 10) }));
  assertEquals(course(falling, 8), []);
  const climbing = Array.from({ length: 200 }, (_, n) => ({ violation: n / 200 }));
  assertEquals(course(climbing, 200), []);
});

Deno.test("a loss that has run away is named after five steps, where the model or its target was better than a guess", () => {
  const losses = (...of: number[]) => of.map((ce) => ({ ce }));
  const guessing = 2;
  const away = losses(1, 3, 3, 3, 3, 3, 9, 9);
  assertEquals(course(away, 10, { guessing }), ["worse than guessing 6"]);
  assertEquals(course(away, 10), [], "where it is no cross-entropy");
  assertEquals(course(losses(1, 3, 3, 3, 3, 1, 3, 3, 3, 3), 10, { guessing }), [], "four in a row");
  assertEquals(course(losses(1, 2.4, 2.4, 2.4, 2.4, 2.4, 2.4), 10, { guessing }), [], "within the margin");
  assertEquals(course(losses(3, 3, 3, 3, 3, 3, 3), 10, { guessing }), [], "it never was better");
  const towards = losses(3, 3, 3, 3, 3).map((sample) => ({ ...sample, target: 1 }));
  assertEquals(course(towards, 10, { guessing }), ["worse than guessing 5"]);
  // Hard gates may be far off where those of training are not; the next evaluation tells.
  const hard = losses(1, 1, 1, 1, 1, 1, 1, 1).map((sample, n) => ({
    ...sample,
    ...n === 1 ? { validationCe: 4 } : n === 6 ? { validationCe: 1 } : {},
  }));
  assertEquals(course(hard, 10, { guessing }), ["worse than guessing 6"]);
  // With it goes no spike, whose advice is another.
  const spiking = away.map((sample, n) => ({ ...sample, violation: n < 6 ? 0 : 7 }));
  assertEquals(course(spiking, 1000, { guessing }), ["worse than guessing 6"]);
  const [{ message }] = signaturesOf(
    [1, 1.5e17, 1.5e17, 1.5e17, 1.5e17, 1.5e17].map((ce, n) => metricRow(n + 1, { ce, constraint: null })),
    { steps: 10, decay: 0, lambdaMin: 0, lambdaMax: 9, guessing },
  );
  assert(tellsDivergence(message) && message.includes("the loss is 1.50e17, where"), message);
});

Deno.test("while the learning rate rises no spike is told", () => {
  const violations = [0, 0, 0, 0, 0, 0.9, 0, 0, 0, 0, 0.9];
  const watch = createHealthWatch({ steps: 20, warmup: 6, decay: 0, lambdaMin: 0.1, lambdaMax: 5 });
  const found = violations.flatMap((violation, n) =>
    watch({ step: n + 1, violation }).map(({ step }) => step)
  );
  assertEquals(found, [11]);
});

Deno.test("what the signatures advise can be given to a run that goes on", () => {
  const spike = [...Array(5).fill(0), 1].map((violation) => ({ violation }));
  const ceiling = Array.from({ length: 150 }, () => ({ violation: 0.1, lambda: CEILING, expectedOpen: 0.2 }));
  const still = Array.from({ length: 150 }, () => ({ violation: -0.1, lambda: 1, expectedOpen: 0.2 }));
  const flags = new Set<string>();
  for (const samples of [spike, ceiling, still]) {
    const watch = createHealthWatch({ steps: 10, decay: 0, ...BOUNDS });
    for (const { message } of samples.flatMap((sample, n) => watch({ step: n + 1, ...sample }))) {
      for (const [, flag] of message.matchAll(/--([a-z-]+)/g)) flags.add(flag);
    }
  }
  flags.delete("resume");
  assertEquals([...flags].sort(), ["lambda-min", "lr", "slack", "target-loss"]);
  for (const flag of flags) {
    const name = flag.replace(/-./g, ([, letter]) => letter.toUpperCase());
    assert((CHANGEABLE as readonly string[]).includes(name), flag);
  }
});

Deno.test("wind-up is λ at its ceiling, or at its floor while CE is too high, for 100 steps and a tenth of the run", () => {
  const at = (lambda: number, violation: number) =>
    Array.from({ length: 150 }, () => ({ lambda, violation }));
  assertEquals(course(at(CEILING, 0.1)), ["wind-up 101"]);
  assertEquals(course(at(FLOOR, 0.1)), ["wind-up 101"]);
  assertEquals(course(at(FLOOR, -0.1)), [], "resting on the floor while the constraint holds is healthy");
});

Deno.test("a plateau above the goal is named once a window; one below the goal is none", () => {
  const still = (expectedOpen: number, violation = -0.1, lambda = 1) =>
    Array.from({ length: 250 }, () => ({ expectedOpen, violation, lambda }));
  assertEquals(course(still(0.2)), ["plateau 101", "plateau 202"]);
  assertEquals(course(still(0.005)), []);
  assertEquals(course(still(0.2, 0.1)), [], "edges wait while λ can still win the loss back");
  assert(course(still(0.2, 0.1, CEILING)).includes("plateau 101"), "λ at its ceiling can no more");
  assertEquals(course(still(0.2), 250), ["plateau 101", "plateau 202"]);
  assertEquals(course(still(0.2), 250, { decay: 0.9 }), ["plateau 101"], "edges come to rest with the rate");
});

Deno.test("dead queries are named, and rows of the metrics say the same as samples", () => {
  assertEquals(course([{ deadQueries: 0.5 }, { deadQueries: 0.95, violation: 0.1 }]), ["dead queries 2"]);
  assertEquals(course([{ deadQueries: 0.95, violation: -0.1 }]), [], "sparse, and the loss holds");
  const rows = [
    ...Array.from({ length: 5 }, (_, n) => metricRow(n + 1, { constraint: 0 })),
    metricRow(6, { constraint: 0.7 }),
    metricRow(7, { dead_queries: 0.99, constraint: 0.1 }),
  ];
  const bounds = { steps: 10, decay: 0, lambdaMin: 0, lambdaMax: 9 };
  assertEquals(signaturesOf(rows, bounds).map(({ name }) => name), ["loss spike", "dead queries"]);
});
