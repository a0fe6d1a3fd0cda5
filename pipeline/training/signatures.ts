/**
 * Names the ways in which a run fails, while it runs (docs/method.md): each is reported once when it sets in, and again
 * only after it has passed.
 *
 * @module
 */
import { fixed } from "../fixed.ts";
import type { MetricRow } from "../runs/metrics.ts";
import type { RunConfig } from "../runs/run_config.ts";

/** What is looked at after each step. */
export interface HealthSample {
  /** Of the sample, from 1. */
  step: number;
  /** Of the step's own tokens, nats; undefined where it is no cross-entropy that is minimised. */
  ce?: number;
  /** On validation tokens, at evaluations. */
  validationCe?: number;
  /** τ, nats. */
  target?: number;
  /** CE − τ as last measured, nats; undefined before the first measurement and in dense training. */
  violation?: number;
  /** λ. */
  lambda?: number;
  /** Mean open probability. */
  expectedOpen?: number;
  /** Share of queries without an open edge, at evaluations. */
  deadQueries?: number;
}

/** What a row of the metrics says about health. */
export function healthSample(row: MetricRow): HealthSample {
  return {
    step: row.step,
    ce: row.ce,
    validationCe: row.validation_ce ?? undefined,
    target: row.target ?? undefined,
    violation: row.constraint ?? undefined,
    lambda: row.lambda ?? undefined,
    expectedOpen: row.expected_open ?? undefined,
    deadQueries: row.dead_queries ?? undefined,
  };
}

/** Bounds that the signatures are told by. */
export interface HealthBounds {
  /** Steps of the whole run. */
  steps: number;
  /** λ's floor. */
  lambdaMin: number;
  /** λ's ceiling. */
  lambdaMax: number;
  /** Steps over which the learning rate rises, in which no spike is told: the weights are only beginning to follow. */
  warmup?: number;
  /** Share of all steps, at the end, over which the learning rate falls to 0. */
  decay: number;
  /** What guessing among all tokens costs, nats: ln of the vocabulary; left out: the loss is not held against it. */
  guessing?: number;
}

/** A failure signature by name, with what was seen and what usually mends it. */
export interface Signature {
  /** Which. */
  name: "worse than guessing" | "loss spike" | "plateau" | "wind-up" | "dead queries";
  /** At which it set in. */
  step: number;
  /** What was seen and what usually mends it, for people. */
  message: string;
}

/** The name of a loss that has run away. */
const DIVERGENCE = "worse than guessing";
/** Nats above what guessing costs, and steps in a row, from which on it has. */
const DIVERGENCE_MARGIN = 0.5;
const DIVERGENCE_STEPS = 5;
/** What usually mends it. From the weights that it left nothing goes on well, so that it is another run's. */
export const AGAINST_DIVERGENCE = "Begin another run with a lower --lr, a longer --warmup or a lower --clip";

/** Whether a signature's message is of a loss that has run away. */
export const tellsDivergence = (message: string): boolean => message.startsWith(DIVERGENCE);

/** How the advice is followed: a run takes these settings also when it goes on. */
const ON_RESUME = ", also with --resume";
/** A violation above this many nats, and as much above those measured before it, is a spike. */
const SPIKE = 0.5;
/** Measurements of the constraint that another is held against, and how few of them are too few. */
const SPIKE_WINDOW = 16;
const SPIKE_LEAST = 4;
/** Open fraction at which a plateau is no failure. */
const GOAL = 0.01;
/** Share of queries with no open edge above which the run is reported. */
const DEAD_QUERIES = 0.9;

/** The middle one of some values. */
function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** Watches a run: give it every step's sample, get the signatures that set in with it. */
export function createHealthWatch(bounds: HealthBounds): (sample: HealthSample) => Signature[] {
  const { steps, lambdaMin, lambdaMax, decay, guessing = Infinity } = bounds;
  // As the device holds them: λ is a float32.
  const [floor, ceiling] = [lambdaMin, lambdaMax].map(Math.fround);
  const window = Math.max(100, Math.floor(steps / 10));
  // Closing the first gates of a dense model costs loss for a moment, in every run.
  const settling = Math.max(bounds.warmup ?? 0, Math.floor(steps / 20));
  /** Violations as measured before, once the run has settled. */
  const measured: number[] = [];
  const active = new Set<Signature["name"]>();
  const recent: { step: number; expectedOpen: number; violation: number }[] = [];
  let atBoundSince: number | undefined;
  /** Whether the model was ever better than a guess, or is to become so. */
  let wasBetter = false;
  let worseFor = 0;
  /** As last measured. */
  let validation: number | undefined;

  return function watch(sample) {
    const { step, ce, target, violation, lambda, expectedOpen, deadQueries } = sample;
    const found: Signature[] = [];
    const report = (name: Signature["name"], present: boolean, message: () => string): void => {
      if (!present) active.delete(name);
      else if (!active.has(name)) {
        active.add(name);
        found.push({ name, step, message: `${name} at step ${step}: ${message()}` });
      }
    };
    const percent = (share: number): string => `${(100 * share).toFixed(2)} %`;

    if (ce !== undefined) {
      validation = sample.validationCe ?? validation;
      wasBetter ||= Math.min(ce, validation ?? Infinity, target ?? Infinity) < guessing;
      const worst = Math.max(ce, validation ?? -Infinity);
      worseFor = worst > guessing + DIVERGENCE_MARGIN ? worseFor + 1 : 0;
      report(
        DIVERGENCE,
        wasBetter && worseFor >= DIVERGENCE_STEPS,
        () =>
          `the loss is ${fixed(worst, 2)}, where guessing among all tokens costs ${
            fixed(guessing, 2)
          } and the model ` +
          `was better before: it has run away. ${AGAINST_DIVERGENCE}`,
      );
    }
    if (violation !== undefined) {
      const before = measured.length < SPIKE_LEAST ? Infinity : median(measured);
      report(
        "loss spike",
        // Of a loss that has run away more is said.
        violation > Math.max(SPIKE, SPIKE + before) && !active.has(DIVERGENCE),
        () =>
          `CE stands ${fixed(violation, 2)} above its target, where it stood ${fixed(before, 2)} before; ` +
          `edges fell faster than the weights could follow (raise --lambda-min or lower --lr${ON_RESUME})`,
      );
      // What a spike is held against are not the steps of that spike.
      if (step > settling && !active.has("loss spike")) measured.push(violation);
      if (measured.length > SPIKE_WINDOW) measured.shift();
    }
    if (lambda !== undefined) {
      // The floor is where a healthy run may rest while the constraint holds easily; the ceiling is not.
      const bound = lambda >= ceiling
        ? lambdaMax
        : lambda <= floor && (violation ?? 0) > 0
        ? lambdaMin
        : undefined;
      atBoundSince = bound === undefined ? undefined : atBoundSince ?? step;
      report(
        "wind-up",
        atBoundSince !== undefined && step - atBoundSince >= window,
        () =>
          `λ, without its proportional term, has stood at its bound ${bound} for ${
            step - atBoundSince!
          } steps (raise --slack, or --target-loss where that was given, or lower --lr${ON_RESUME})`,
      );
    }
    if (expectedOpen !== undefined && violation !== undefined) {
      recent.push({ step, expectedOpen, violation });
      while (recent[0].step < step - window) recent.shift();
      const { step: since, expectedOpen: before } = recent[0];
      // While CE is above its target and λ can still grow, edges wait for the loss, as they should.
      const atCeiling = lambda !== undefined && lambda >= ceiling;
      const isFree = atCeiling || median(recent.map(({ violation }) => violation)) <= 0;
      // Edges come to rest with the weights once the learning rate is half of what it was, which is no failure.
      const isSettled = step > steps * (1 - decay / 2);
      const isStill = expectedOpen > GOAL && expectedOpen > 0.995 * before;
      const still = step - since >= window && isStill && isFree && !isSettled;
      report("plateau", still, () => {
        const cause = atCeiling
          ? `λ, without its proportional term, is at its ceiling: raise --slack, or --target-loss where that was given${ON_RESUME}`
          : `CE is below its target: a larger --lr usually helps${ON_RESUME}`;
        return `open edges stand at ≈${percent(expectedOpen)} for ${step - since} steps (${cause})`;
      });
      // The next report needs another whole window, so that a plateau with ripples is not reported at each of them.
      if (still) recent.length = 0;
    }
    // Few edges leave most queries of most heads without one; a failure only where the loss suffers.
    if (deadQueries !== undefined) {
      report(
        "dead queries",
        deadQueries > DEAD_QUERIES && (violation ?? 0) > 0,
        () => `${percent(deadQueries)} of queries have no open edge`,
      );
    }
    return found;
  };
}

/** What the signatures of a run of this config are told by. */
export function healthBoundsOf({ command, settings, model }: RunConfig): HealthBounds {
  const { steps = 0, warmup, decay = 0, lambdaMin = 0, lambdaMax = Infinity } = settings as Record<
    string,
    number | undefined
  >;
  // Elsewhere a row's loss is weighted by a reward.
  const isCrossEntropy = command === "sparsify" || command === "pretrain";
  const guessing = isCrossEntropy ? Math.log(model.config.vocabularySize) : undefined;
  return { steps, warmup, decay, lambdaMin, lambdaMax, guessing };
}

/** Every signature of a phase, from its rows. */
export function signaturesOf(rows: readonly MetricRow[], bounds: HealthBounds): Signature[] {
  const watch = createHealthWatch(bounds);
  return rows.flatMap((row) => watch(healthSample(row)));
}
