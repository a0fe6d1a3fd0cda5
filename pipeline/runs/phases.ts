/**
 * What a run's settings say of its phases.
 *
 * @module
 */

/** Settings of a run; without a teacher it is the dense model. */
export interface PhaseSettings {
  /** Weight of what is learnt from a teacher. */
  distill?: number;
  teacher?: "dense" | "control" | "auto";
  control?: boolean;
  targetLoss?: unknown;
}

/** Which model teaches the sparse one; undefined: none. */
export function teacherOf(
  { distill = 0, teacher = "dense", control = true }: PhaseSettings,
): "dense" | "control" | undefined {
  if (distill === 0) return undefined;
  return teacher === "auto" ? (control ? "control" : "dense") : teacher;
}

/** Whether the control comes before the sparse phase, as what sets the target or teaches. */
export function controlIsFirst(settings: PhaseSettings): boolean {
  return settings.targetLoss === "control" || teacherOf(settings) === "control";
}
