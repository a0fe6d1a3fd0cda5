/**
 * What of a model a run trains: all of it, the products of attention, or low-rank adapters, which begin at 0 or from an adapter
 * that was saved.
 *
 * @module
 */
import { type PhaseSettings, teacherOf } from "../runs/phases.ts";
import { usageError } from "../errors.ts";
import { SPARSIFY } from "../settings.ts";
import { openAdapter, type StoredAdapter } from "../model/adapter_files.ts";
import { type Adapters, adaptersFor, type Trained } from "../model/adapters.ts";
import { faultOfFours, type ModelConfig } from "../model/config.ts";
import type { FrozenType } from "../model/op.ts";

/** The settings that say it. */
export interface AdaptationSettings {
  /** Rank of new adapters; 0: none. */
  lora: number;
  loraAlpha: number | "auto";
  /** With commas between them. */
  loraTargets: string;
  rslora: boolean;
  train: "auto" | Trained;
  /** How what is not trained lies on the device. */
  frozen: FrozenType;
  /** Folder of an adapter to begin with. */
  adapter?: string;
  /** Whether the model is also saved with its adapters merged into it. */
  merge: boolean;
}

/** What a run trains. */
export interface Adaptation {
  train: Trained;
  /** How the rest lies on the device; left out: as f32. */
  frozen?: FrozenType;
  /** Adapters that are trained; left out: none. */
  adapters?: Adapters;
  /** What they begin with; left out: A by chance, and B at 0. */
  from?: Pick<StoredAdapter, "read" | "hash">;
  /** An adapter that is merged into the weights before they are trained. */
  merged?: StoredAdapter;
}

/** Whether a teacher has adapters of its own: the control's, or those that the run began with. */
export function teacherIsAdapted(
  settings: PhaseSettings,
  { adapters, from }: Pick<Adaptation, "adapters" | "from"> = {},
): boolean {
  return from !== undefined || (teacherOf(settings) === "control" && adapters !== undefined);
}

/** α of adapters where it is not said: twice the rank, so that s is 2, or 2 √r with rank stabilisation. Ours; peft's is 8. */
const ALPHA_OF_RANK = 2;

/** What has adapters where it is not said. */
const DEFAULT_TARGETS: string = SPARSIFY.loraTargets.value;

/**
 * What of a model is trained by the settings.
 *
 * @throws {UserError} when they contradict each other
 */
export function checkAdaptation(
  { lora, loraAlpha, loraTargets, rslora, train, adapter, merge, frozen }: AdaptationSettings,
): Trained {
  const isLora = lora > 0 || adapter !== undefined;
  const trained: Trained = train === "auto" ? (isLora ? "lora" : "all") : train;
  if (lora > 0 && adapter !== undefined) {
    throw usageError(`Cannot use --lora ${lora} with --adapter, whose ranks it keeps: give one of the two`);
  }
  if (lora > 0 && trained !== "lora") {
    throw usageError(`Cannot use --lora with --train ${trained}, as adapters are trained alone`);
  }
  if (trained === "lora" && !isLora) {
    throw usageError("Cannot use --train lora without --lora RANK or --adapter DIR");
  }
  const ofNew = [
    ...(rslora ? ["rslora"] : []),
    ...(loraAlpha === "auto" ? [] : ["lora-alpha"]),
    ...(loraTargets === DEFAULT_TARGETS ? [] : ["lora-targets"]),
  ];
  if (lora === 0 && ofNew.length > 0) throw usageError(`Cannot use --${ofNew[0]} without --lora RANK`);
  if (frozen !== "f32" && trained === "all") {
    throw usageError(
      `Cannot use --frozen ${frozen} where all is trained: give --lora RANK or --train attention`,
    );
  }
  if (merge && trained !== "lora") {
    throw usageError("Cannot use --merge without adapters: give --lora RANK or --adapter DIR");
  }
  return trained;
}

/**
 * What the settings ask for.
 *
 * @throws {UserError} when they contradict each other, name a target that the model has not, or an adapter that is not for it
 */
export async function adaptationOf(settings: AdaptationSettings, config: ModelConfig): Promise<Adaptation> {
  const { lora, loraAlpha, loraTargets, rslora, adapter, frozen } = settings;
  const trained = checkAdaptation(settings);
  if (frozen !== "f32") {
    const fault = faultOfFours(config);
    if (fault) throw usageError(`Cannot use --frozen ${frozen} as ${fault}`);
  }
  const rest = frozen === "f32" ? {} : { frozen };
  const stored = adapter === undefined ? undefined : await openAdapter(adapter, config);
  await stored?.verify();
  if (trained !== "lora") return { train: trained, ...rest, ...(stored ? { merged: stored } : {}) };
  if (stored) return { train: "lora", ...rest, adapters: stored.adapters, from: stored };
  const adapters = adaptersFor(config, {
    rank: lora,
    alpha: loraAlpha === "auto" ? ALPHA_OF_RANK * lora : loraAlpha,
    rankStabilised: rslora,
    targets: loraTargets.split(",").map((target) => target.trim()).filter((target) => target !== ""),
  });
  return { train: "lora", ...rest, adapters };
}
