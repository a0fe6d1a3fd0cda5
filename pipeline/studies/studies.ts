/** The studies by name. @module */
import { FROM_SCRATCH } from "./from_scratch.ts";
import { LONG_RANGE } from "./long_range.ts";
import { REINFORCEMENT } from "./reinforcement.ts";
import { SENSITIVITY } from "./sensitivity.ts";
import type { Study } from "./study.ts";

/** What `deno task study` knows. */
export const STUDIES: ReadonlyMap<string, Study> = new Map(
  [SENSITIVITY, FROM_SCRATCH, LONG_RANGE, REINFORCEMENT].map((study) => [study.name, study]),
);
