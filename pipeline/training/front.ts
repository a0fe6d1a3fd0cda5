/**
 * The trade-off between loss and open edges from one run: after half of the steps the target rises level by level, so that
 * fewer and fewer edges are left, and of each level the sparsest step is kept. How far and how fast it rises is ours.
 *
 * The result of the run is that of its own target, the first level: what comes later is chosen there only where it is
 * sparser at the same loss.
 *
 * @module
 */
import type { SparsifySettings } from "../settings.ts";
import type { Evaluation } from "./evaluate.ts";
import type { PhaseOutcome } from "./training_run.ts";

/** Levels, the run's own target among them. */
export const FRONT_LEVELS = 5;

/** One level of a front, measured on test tokens; null where no evaluation was at or below its target. */
export interface FrontPoint {
  /** How far its target lies above the run's own, nats. */
  above: number;
  /** τ on the validation tokens, nats. */
  target: number;
  /** Step whose weights it is of. */
  step: number | null;
  /** Loss, nats. */
  ce: number | null;
  /** Share of the causal pairs. */
  open_fraction: number | null;
}

/** How far above the run's own target the target of each level lies, nats, ascending from 0; closer where edges cost least. */
export function frontLevels({ front, frontSlack }: Pick<SparsifySettings, "front" | "frontSlack">): number[] {
  if (!front) return [0];
  return Array.from({ length: FRONT_LEVELS }, (_, level) => frontSlack * (level / (FRONT_LEVELS - 1)) ** 2);
}

/** The level that a step is of, both counted from 0: the first has half of the steps, the others share the rest. */
export function frontLevelAt(step: number, steps: number, levels: number): number {
  const first = Math.ceil(steps / 2);
  if (step < first || levels < 2) return 0;
  return 1 + Math.min(levels - 2, Math.floor((step - first) * (levels - 1) / (steps - first)));
}

/**
 * The levels of a front on test tokens. The weights are afterwards those of the chosen step again.
 *
 * @param options `sparse`: the chosen step's; `load`: takes the weights to those of a checkpoint; `last`: the last step
 */
export async function measureFront(
  { levels, target, outcome, sparse, load, measure, last }: {
    levels: readonly number[];
    target: number;
    outcome: PhaseOutcome;
    sparse: Evaluation;
    load(of: { phase: string; step: number }): Promise<void>;
    measure(): Promise<Evaluation>;
    last: number;
  },
): Promise<FrontPoint[]> {
  const chosen = outcome.feasible ? outcome.step : null;
  const steps = [chosen, ...outcome.front.map((best) => best?.step ?? null)];
  const measured = new Map<number | null, Evaluation>(chosen === null ? [] : [[chosen, sparse]]);
  for (const step of steps) {
    if (step === null || measured.has(step)) continue;
    await load({ phase: "sparse-best", step });
    measured.set(step, await measure());
  }
  await load(chosen === null ? { phase: "sparse", step: last } : { phase: "sparse-best", step: chosen });
  return levels.map((above, level) => {
    const of = measured.get(steps[level]);
    return {
      above,
      target: target + above,
      step: steps[level],
      ce: of?.ce ?? null,
      open_fraction: of?.openFraction ?? null,
    };
  });
}
