// @ts-check
/** Settings that say where a run lies or how it is shown, not what it is: the page and the server leave the same out. */
export const BESIDE_THE_POINT = ["runs", "name", "json", "quiet", "debug", "serve", "port", "config"];
