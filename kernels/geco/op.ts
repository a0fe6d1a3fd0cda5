/**
 * GECO's multiplier (Rezende and Viola, *Taming VAEs*, arXiv 1810.00597) on the device, so that no step waits for a
 * read-back. The constraint is scaled and clipped before it is averaged, and λ is bounded: the textbook form winds up
 * (docs/method.md).
 *
 * @module
 */
import type { Gpu } from "../core/gpu.ts";
import { compile } from "../core/kernel.ts";
import type { Recorder } from "../core/recorder.ts";
import type { Tensor } from "../core/tensor.ts";
import { createUniform } from "../core/uniform.ts";
import updateSource from "./update.wgsl" with { type: "text" };

/** The controller's settings. */
export interface GecoSettings {
  /** τ that the measured cross-entropy is held against, in nats. */
  targetLoss: number;
  /** Violation, in nats, at which the constraint is clipped to 1. */
  scale: number;
  /** α of the moving average. */
  alpha: number;
  /** η: λ grows by exp(η) at a full violation. */
  rate: number;
  lowest: number;
  highest: number;
}

/** A compiled controller. */
export interface Geco {
  configure(settings: GecoSettings): void;
  /**
   * One update from `totals` [4] (sum of losses, correct, 0, counted). Changes `state` [4] (λ, average, CE − τ as last
   * measured, 0) and overwrites `lossScale` [1] = λ/(1+λ) and `edgeScale` [1] = 1/(1+λ).
   */
  record(recorder: Recorder, tensors: Record<"totals" | "state" | "lossScale" | "edgeScale", Tensor>): void;
}

/** Compiles the controller. */
export async function prepareGeco(gpu: Gpu): Promise<Geco> {
  const kernel = await compile(gpu, { label: "geco", source: updateSource });
  const controller = createUniform(gpu, "geco", [
    ["targetLoss", "f32"],
    ["scale", "f32"],
    ["alpha", "f32"],
    ["rate", "f32"],
    ["lowest", "f32"],
    ["highest", "f32"],
  ]);
  return {
    configure: (settings) => controller.set(settings),
    record(recorder, { totals, state, lossScale, edgeScale }) {
      recorder.dispatch(
        kernel,
        { controller: controller.tensor, totals, state, loss_scale: lossScale, edge_scale: edgeScale },
        [1],
      );
    },
  };
}
