/** The studies by name. @module */
import { FROM_SCRATCH } from "./from_scratch.ts";
import { SENSITIVITY } from "./sensitivity.ts";
import type { Study } from "./study.ts";

/** What `deno task study` knows. */
export const STUDIES: ReadonlyMap<string, Study> = new Map(
  [SENSITIVITY, FROM_SCRATCH].map((study) => [study.name, study]),
);
