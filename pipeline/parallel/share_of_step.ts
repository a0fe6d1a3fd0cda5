/**
 * How a step's batch is divided among ranks.
 *
 * @module
 */
import { usageError } from "../errors.ts";

/** How a step's rows lie in micro-batches. */
export interface StepShape {
  /** Rows of a micro-batch. */
  batch: number;
  /** Micro-batches to a step, those of all ranks together; a multiple of the ranks. */
  accumulate: number;
}

/**
 * The pipelines that ranks form whose model is divided in stages.
 *
 * @param by where their number comes from, for people
 * @throws {UserError} when they cannot, or there are fewer layers
 */
export function pipelinesOf(
  { ranks, stages, layers }: { ranks: number; stages: number; layers: number },
  by = "a launcher, such as mpirun, starts several",
): number {
  if (stages > layers) {
    throw usageError(`Cannot use --stages ${stages} as the model has fewer layers: ${layers}`);
  }
  if (ranks % stages === 0) return ranks / stages;
  throw usageError(
    `Cannot use --stages ${stages} as the number of ranks must be a multiple of it: ${ranks}; ${by}`,
  );
}

/**
 * The micro-batches in which ranks do a step: those that were asked for where each rank gets as many of them, else smaller
 * ones. Rank r's are `accumulate / ranks` in a row, so that a row has the same place in the step as with one rank.
 *
 * @throws {UserError} when the rows of a step cannot be divided
 */
export function shareOfStep({ batch, accumulate }: StepShape, ranks: number): StepShape {
  const rows = batch * accumulate;
  if (rows % ranks !== 0) {
    throw usageError(
      `Cannot divide a step among ${ranks} ranks as its rows, --batch ${batch} times --accumulate ${accumulate}, must be a ` +
        `multiple of ${ranks}: ${rows}`,
    );
  }
  const rowsOfRank = rows / ranks;
  let rowsAtOnce = Math.min(batch, rowsOfRank);
  while (rowsOfRank % rowsAtOnce !== 0) rowsAtOnce--;
  return { batch: rowsAtOnce, accumulate: rows / rowsAtOnce };
}
