/**
 * The work that a run of sparse post-training has ahead, for the time left.
 *
 * @module
 */
import { controlIsFirst, teacherOf } from "../runs/phases.ts";
import type { SparsifySettings } from "../settings.ts";
import { frontLevels } from "./front.ts";
import type { Work } from "./time_left.ts";
import { evaluationsAhead, type PreparedRun } from "./training_run.ts";

/** Until it is measured, what a step costs beside batches of an evaluation: each forward and twice as much backward. */
const stepShare = ({ accumulate }: SparsifySettings): number => 3 * accumulate + 2;
/**
 * Until it is measured, what a step of the control costs beside one with gates, noise and the constraint: of the embedded
 * model on llvmpipe as much, and 0.7 of one that is taught.
 */
const CONTROL_SHARE = { alone: 1, taught: 0.7 };

/**
 * What a run has ahead from where it goes on: the dense model measured, the phases with their evaluations, and all models
 * on test tokens.
 *
 * @param batches of each held-out split
 */
export function workAhead(
  settings: SparsifySettings,
  { resume }: Pick<PreparedRun, "resume">,
  batches: { validation: number; test: number },
): Work[] {
  const phases = settings.control ? ["sparse", "control"] as const : ["sparse"] as const;
  const controlShare = teacherOf(settings) ? CONTROL_SHARE.taught : CONTROL_SHARE.alone;
  // The control is measured on the validation tokens where it is the yardstick.
  const measured = settings.targetLoss === "control" ? 2 : 1;
  const work: Work[] = [{
    kind: "evaluation",
    // Of a front each level but the first.
    units: measured * batches.validation + (phases.length + frontLevels(settings).length) * batches.test,
  }];
  for (const phase of phases) {
    const from = resume.checkpoints.get(phase)?.step ?? 0;
    const leads = (phase === "control") === controlIsFirst(settings);
    const like = leads
      ? { kind: "evaluation", share: stepShare(settings) }
      : phase === "control"
      ? { kind: "sparse", share: controlShare }
      : { kind: "control", share: 1 / controlShare };
    work.push({ kind: phase, units: settings.steps - from, like });
    work.push({ kind: "evaluation", units: evaluationsAhead(settings, from) * batches.validation });
  }
  return work;
}
