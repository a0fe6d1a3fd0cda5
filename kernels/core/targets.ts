/** Targets as kernels take them. @module */

/** A target that does not count: it has no loss and no gradient. */
export const IGNORED = 0xffffffff;
