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
import controllerSource from "./controller.wgsl" with { type: "text" };
import measureSource from "./measure.wgsl" with { type: "text" };
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
  /** κ: what acts is λ exp(κ C̄), a proportional term that damps the swings of the integral one; 0 for none. */
  gain: number;
  /** λ's floor. */
  lowest: number;
  /** λ's ceiling. */
  highest: number;
}

/** A compiled controller. Its state [4] is λ, C̄, CE − τ as last measured, and 1 once measured. */
export interface Geco {
  configure(settings: GecoSettings): void;
  /** Takes CE − τ from `totals` [4] (sum of losses, correct, 0, counted) into `state`; a CE not finite is not taken. */
  measure(recorder: Recorder, tensors: Record<"totals" | "state", Tensor>): void;
  /**
   * One step of λ by the latest measurement. Changes `state`, and overwrites `lossScale` [1] = a / (1 + a) and `edgeScale`
   * [1] = 1 / (1 + a), where a = λ exp(κ C̄) within λ's bounds; does nothing before the first measurement.
   */
  update(recorder: Recorder, tensors: Record<"state" | "lossScale" | "edgeScale", Tensor>): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/** Compiles the controller. */
export async function prepareGeco(gpu: Gpu): Promise<Geco> {
  const measure = await compile(gpu, { label: "geco measure", source: controllerSource + measureSource });
  const update = await compile(gpu, { label: "geco update", source: controllerSource + updateSource });
  const controller = createUniform(gpu, "geco", [
    ["targetLoss", "f32"],
    ["scale", "f32"],
    ["alpha", "f32"],
    ["rate", "f32"],
    ["gain", "f32"],
    ["lowest", "f32"],
    ["highest", "f32"],
  ]);
  return {
    configure: (settings) => controller.set(settings),
    measure(recorder, { totals, state }) {
      recorder.dispatch(measure, { controller: controller.tensor, totals, state }, [1]);
    },
    update(recorder, { state, lossScale, edgeScale }) {
      const bindings = { controller: controller.tensor, state, loss_scale: lossScale, edge_scale: edgeScale };
      recorder.dispatch(update, bindings, [1]);
    },
    destroy: () => controller.destroy(),
  };
}
