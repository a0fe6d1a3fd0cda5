import { assertEquals } from "@std/assert";
import { createHealthWatch, type HealthSample, signaturesOf } from "../../pipeline/signatures.ts";
import { metricRow } from "../support/metric_row.ts";

/** Names of the signatures that a course of samples sets off, with their steps. */
function course(samples: Partial<HealthSample>[], steps = 1000): string[] {
  const watch = createHealthWatch({ steps, lambdaMin: 0.1, lambdaMax: 5 });
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
  const samples = [0, 0.6, 0.7, 0.1, 0.8].map((violation) => ({ violation }));
  assertEquals(course(samples, 10), ["loss spike 2", "loss spike 5"]);
  assertEquals(course(samples, 1000), [], "closing the first gates is no failure");
});

Deno.test("wind-up is λ at its ceiling, or at its floor while CE is too high, for a tenth of the run", () => {
  const at = (lambda: number, violation: number) =>
    Array.from({ length: 150 }, () => ({ lambda, violation }));
  assertEquals(course(at(5, 0.1)), ["wind-up 101"]);
  assertEquals(course(at(0.1, 0.1)), ["wind-up 101"]);
  assertEquals(course(at(0.1, -0.1)), [], "resting on the floor while the constraint holds is healthy");
});

Deno.test("a plateau above the goal is named once a window; one below the goal is none", () => {
  const still = (expectedOpen: number) =>
    Array.from({ length: 250 }, () => ({ expectedOpen, violation: -0.1, lambda: 1 }));
  assertEquals(course(still(0.2)), ["plateau 101", "plateau 202"]);
  assertEquals(course(still(0.005)), []);
});

Deno.test("dead queries are named, and rows of the metrics say the same as samples", () => {
  assertEquals(course([{ deadQueries: 0.5 }, { deadQueries: 0.95, violation: 0.1 }]), ["dead queries 2"]);
  assertEquals(course([{ deadQueries: 0.95, violation: -0.1 }]), [], "sparse, and the loss holds");
  const rows = [metricRow(1, { constraint: 0.7 }), metricRow(2, { dead_queries: 0.99, constraint: 0.1 })];
  const bounds = { steps: 10, lambdaMin: 0, lambdaMax: 9 };
  assertEquals(signaturesOf(rows, bounds).map(({ name }) => name), ["loss spike", "dead queries"]);
});
