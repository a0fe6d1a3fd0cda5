/**
 * Commands that one process does, where mpirun or srun has started several.
 *
 * @module
 */
import { usageError } from "../errors.ts";
import { launchOf } from "./mpi.ts";

/** Milliseconds in which rank 0 tells, so that it is told once: a launcher then ends the others. */
const TOLD_MS = 5000;

/**
 * Makes sure that a command is no rank of several.
 *
 * @param command its name
 * @param variable the environment
 * @throws {UserError} where it is
 */
export async function requireOneProcess(
  command: string,
  variable: (name: string) => string | undefined = (name) => Deno.env.get(name),
  toldMs = TOLD_MS,
): Promise<void> {
  const launch = launchOf(variable);
  if (!launch) return;
  if (launch.rank > 0) await new Promise((resolve) => setTimeout(resolve, toldMs));
  throw usageError(
    `Cannot spread ${command} over ranks, as it is work of one process: start it without mpirun or srun, of which ` +
      `${launch.by} has started ${launch.size}; sparsify, pretrain, evaluate, benchmark, circuits and sweep can be`,
  );
}
