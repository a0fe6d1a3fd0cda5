/** The studies by name. @module */
import { SENSITIVITY } from "./sensitivity.ts";
import type { Study } from "./study.ts";

/** What `deno task study` knows. */
export const STUDIES: ReadonlyMap<string, Study> = new Map(
  [SENSITIVITY].map((study) => [study.name, study]),
);
