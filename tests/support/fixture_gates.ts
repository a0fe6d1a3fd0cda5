/**
 * The gates of fixtures that other implementations made (tests/fixtures/families and lora).
 *
 * @module
 */
import type { GateObjective } from "../../pipeline/training/trainer.ts";

/** How gates are trained, and the seed of their noise. */
export type SeededGates = GateObjective & { seed: number };

/** Those of a fixture's settings; their λ does not move. */
export function fixtureGates(settings: Readonly<Record<string, number>>): SeededGates {
  return {
    seed: settings.noiseSeed,
    bias: settings.gateBias,
    temperature: settings.temperature,
    saturationWeight: settings.rho,
    saturationBound: settings.saturationBound,
    lambdaStart: settings.lambda,
    geco: { scale: 1, alpha: 0.9, rate: 0, gain: 0, lowest: 0, highest: 10 },
  };
}
