/// <reference lib="dom" />
// @ts-check
/** Numbers, shares, times and places as people read them. */

/**
 * A number with so many decimals, one of a million or more as `1.55e17`.
 *
 * @param {number | null | undefined} value @param {number} digits
 */
export function fixed(value, digits) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) < 1e6 ? value.toFixed(digits) : value.toExponential(2).replace("e+", "e");
}

/** A difference, with its sign. @param {number | null | undefined} value */
export const signed = (value) =>
  value === null || value === undefined ? "–" : `${value >= 0 ? "+" : "−"}${fixed(Math.abs(value), 3)}`;

/** A share as per cent. @param {number | null | undefined} share */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = 100 * share;
  if (value === 0) return "0 %";
  if (value < 0.001) return "< 0.001 %";
  return `${value >= 10 ? value.toFixed(1) : Number(value.toPrecision(2))} %`;
}

/** @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor(whole % 3600 / 60)).padStart(2, "0")} min`;
}

/** How long ago. @param {string} time ISO 8601 */
export function ago(time) {
  const seconds = (Date.now() - Date.parse(time)) / 1000;
  if (seconds < 5) return "just now";
  return `${seconds < 86_400 ? duration(seconds) : `${Math.floor(seconds / 86_400)} d`} ago`;
}

/** @param {number | null | undefined} value */
export const whole = (value) =>
  value === null || value === undefined ? "–" : Math.round(value).toLocaleString("en");

/** @param {number} bytes */
export function size(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value.toPrecision(3)} ${units[unit]}`;
}

/** A name that is too long without its middle: what sets names apart stands at their ends. @param {string} name @param {number} most */
export function shorten(name, most) {
  if (name.length <= most) return name;
  const tail = Math.ceil((most - 1) * 0.6);
  return `${name.slice(0, most - 1 - tail)}…${name.slice(-tail)}`;
}

/**
 * A setting as it is read.
 *
 * @param {unknown} value @param {boolean} [brief] a folder by its last two names
 * @returns {string}
 */
export function setting(value, brief = false) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.map((item) => setting(item, brief)).join(", ");
  if (typeof value === "object") return JSON.stringify(value);
  // Of a number that was computed: 0.0003, not 0.00030000000000000003.
  if (typeof value === "number") return String(Number(value.toPrecision(12)));
  return typeof value === "string" && brief ? folder(value) : String(value);
}

/** A path by its last two names. @param {string} path */
export const folder = (path) => path.split("/").filter((part) => part).slice(-2).join("/") || path;

/** A setting's flag without its dashes. @param {string} name */
export const flag = (name) => name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);

/** The place of a row, as the server names it. @param {{ phase: string, step: number }} row */
export const placeOf = ({ phase, step }) => `${phase}:${step}`;

const PHASES = ["pretrain", "sparse", "control"];
/** The phases of a run whose control comes first. */
const CONTROL_FIRST = ["control", "sparse"];

/**
 * Whether a row stands behind another.
 * @param {{ phase: string, step: number }} row @param {{ phase: string, step: number } | undefined} other
 * @param {string | undefined} first phase of the run
 */
export function isAfter(row, other, first) {
  if (!other) return true;
  const phases = first === "control" ? CONTROL_FIRST : PHASES;
  const later = phases.indexOf(row.phase) - phases.indexOf(other.phase);
  return later > 0 || (later === 0 && row.step > other.step);
}

/** A status by a mark and a word, so that colour is not needed. @type {Record<string, string>} */
export const STATUS_MARKS = {
  preparing: "◔",
  training: "▶",
  paused: "❚❚",
  stopped: "■",
  failed: "✕",
  interrupted: "⚡",
  finished: "✓",
  sweep: "▦",
  broken: "?",
};

/** What a phase is called. @type {Record<string, string>} */
export const PHASE_NAMES = { pretrain: "pre-training", sparse: "sparse", control: "dense control" };
