/** A sweep as a job array of Slurm. @module */
import { usageError } from "../errors.ts";
import { shellWord } from "../flags.ts";

/** What the script is made of. */
export interface SlurmScript {
  /** The job's name. */
  name: string;
  /** Folder that the tasks' output goes to. */
  runs: string;
  /** Runs of the sweep. */
  count: number;
  /** The command that runs it, without `--only`. */
  command: readonly string[];
  /** The project's folder, where its tasks are known. */
  project: string;
}

/**
 * A script for `sbatch`, one task of which runs one run on one GPU. Submitted again, or requeued, each task goes on from
 * its run's last checkpoint, which it writes when Slurm says that the time ends.
 *
 * @throws {UserError} when the folder's path has white space, which sbatch's lines do not take
 */
export function slurmScript({ name, runs, count, command, project }: SlurmScript): string {
  if (/\s/.test(runs)) {
    throw usageError(
      `Cannot write a script for sbatch as the path of the runs must be without white space: ${runs}`,
    );
  }
  return `#!/bin/bash
#SBATCH --job-name=${name}
#SBATCH --array=0-${count - 1}
#SBATCH --gpus-per-task=1
#SBATCH --ntasks=1
#SBATCH --output=${runs}/slurm-%a.out
#SBATCH --requeue
#SBATCH --signal=B:TERM@120

cd ${shellWord(project)} || exit
# In the background, so that the shell passes on the signal at once.
${command.map(shellWord).join(" ")} --only "$SLURM_ARRAY_TASK_ID" &
task=$!
trap 'kill -TERM "$task"' TERM
wait "$task"
status=$?
# A wait that a signal ended is not the task's end.
if kill -0 "$task" 2> /dev/null; then
  wait "$task"
  status=$?
fi
exit "$status"
`;
}
