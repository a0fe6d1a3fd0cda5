/// <reference lib="dom" />
// @ts-check
/** What a run is doing, whether its result stays at the target, and which of its evaluations counts. */
import { element } from "./dom.js";
import { fixed, percent, signed, STATUS_MARKS } from "./format.js";

/** @import { Measured, RunOverview } from "../api.ts" */

/** Statuses in which a process is at the run. */
export const LIVE = ["preparing", "training", "paused"];

/** @param {RunOverview} run */
export const isLive = (run) => LIVE.includes(run.status);

/** Whether the target is met, as a word; undefined where that is not known or there is none. @param {RunOverview} run */
export const outcome = ({ target_met }) =>
  target_met === null || target_met === undefined ? undefined : target_met ? "target met" : "target missed";

/** @param {string} name @param {string} text @param {string} mark */
const chip = (name, text, mark) =>
  element(
    "span",
    { className: "status", data: { status: name } },
    element("span", { ariaHidden: "true" }, mark),
    text,
  );

/** A status as mark, word and, where something is wrong, why; behind it whether the target is met. @param {RunOverview} run */
export function status(run) {
  const result = outcome(run);
  return [
    chip(run.status, run.status, STATUS_MARKS[run.status]),
    result && chip(result.replace(" ", "-"), result, run.target_met ? "✓" : "✕"),
    run.problem !== null && element("span", { className: "quiet problem" }, run.problem),
  ];
}

/**
 * The evaluation that stands for a run: the last one while it goes on, the chosen one of a run that ended. (Of one that
 * missed its target, or has none, the last.)
 *
 * @param {RunOverview} run @returns {Measured | null}
 */
export const standing = (run) => isLive(run) ? run.evaluation : run.chosen ?? run.evaluation;

/** Loss above the target at an evaluation. @param {Measured | null} at */
export const aboveTarget = (at) => at && at.target !== null ? at.validation_ce - at.target : null;

/** The chosen step in words, with its figures on the validation tokens. @param {RunOverview} run */
export function choice(run) {
  const { chosen, evaluation, target_met } = run;
  if (run.command !== "sparsify" || !evaluation) return undefined;
  const all = run.phases.find(({ phase }) => phase === "sparse")?.steps;
  if (!chosen || target_met === false) {
    const { step, validation_ce, target, open_fraction } = chosen ?? evaluation;
    const which = target_met === null
      ? `No evaluation is at or below the target yet. Step ${step}`
      : `No evaluation was at or below the target. Last step, ${step}`;
    return `${which} of ${all}: loss ${fixed(validation_ce, 4)} nats on validation tokens, target τ ${
      fixed(target, 4)
    }, ${percent(open_fraction)} of the edges open.`;
  }
  const { step, validation_ce, target, open_fraction } = chosen;
  return `${target_met === null ? "Chosen so far: step" : "Chosen step"} ${step} of ${all}: loss ${
    fixed(validation_ce, 4)
  } nats on validation tokens, target τ ${fixed(target, 4)} (${signed(aboveTarget(chosen))}), ${
    percent(open_fraction)
  } of the edges open.`;
}
