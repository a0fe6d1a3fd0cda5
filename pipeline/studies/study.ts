/**
 * What a study is: a question, the protocol by which it is answered, and parts, each of which runs what it needs and says
 * what came of it.
 *
 * @module
 */
import type { SweepRow } from "../sweep/results.ts";
import type { SweepRun } from "../sweep/sweep_file.ts";

/** Figures in rows. */
export interface StudyTable {
  caption: string;
  head: readonly string[];
  rows: readonly (readonly string[])[];
}

/** Estimates with their intervals, one below the other. */
export interface Forest {
  caption: string;
  /** What the axis counts. */
  axis: string;
  scale: "linear" | "log";
  /** The value at which nothing differs. */
  reference?: { label: string; value: number };
  rows: readonly {
    label: string;
    /** Null where nothing was measured. */
    mean: number | null;
    /** Null where there is no interval, as with one seed. */
    low: number | null;
    high: number | null;
  }[];
}

/** What came of a part. */
export interface PartResult {
  title: string;
  /** Runs that have ended, of so many. */
  done: number;
  of: number;
  /** Circuits that have been looked for, of so many that are wanted of the runs that have ended; left out: none are. */
  circuits?: { done: number; of: number };
  /** The figures in sentences. */
  findings: readonly string[];
  tables: readonly StudyTable[];
  forests: readonly Forest[];
  /** Pages of its runs, as paths from the study's folder. */
  pages: readonly { text: string; path: string }[];
  /** Adapters that runs were on. */
  adapters: readonly string[];
}

/** The page of a stage's runs, which is made once one has begun. */
export function pagesOf(stage: string, rows: readonly SweepRow[], text: string): PartResult["pages"] {
  return rows.some(({ status }) => status !== "not begun") ? [{ text, path: `${stage}/sweep.html` }] : [];
}

/** How small a circuit does 90 % of the effect; null where the model cannot do the task, or no circuit reaches it. */
export interface CircuitSizes {
  edges: number | null;
  heads: number | null;
}

/** What a part works with. */
export interface StudyTools {
  /** Whether only to see that it works: a run of seconds, whose figures mean nothing. */
  quick: boolean;
  /** Whether nothing is to be run or measured. */
  onlyTable: boolean;
  /** Folder of the study. */
  folder: string;
  /** Ends what is under way. */
  signal: AbortSignal;
  /** Tells a line of progress. */
  say(text: string): void;
  /** Takes down what failed, while the rest goes on. */
  fail(text: string): void;
  /**
   * Folder of the project that the study was begun from, which the paths of embedded models in its runs' settings are from:
   * their names are told by these. What is read of an embedded model otherwise is this project's.
   */
  project: string;
  /**
   * Runs what has not been run, or with `--table` only looks at what is there.
   *
   * @param stage names the folder of the runs in that of the study
   * @returns a row for each run, in order
   */
  runs(stage: string, runs: readonly SweepRun[]): Promise<SweepRow[]>;
  /**
   * The same of runs that are no command's, one after the other in this process.
   *
   * @param train takes a run to its end in a folder of that name in the folder that it is given, where it began before too
   */
  trained(
    stage: string,
    runs: readonly SweepRun[],
    train: (run: SweepRun, folder: string) => Promise<void>,
  ): Promise<SweepRow[]>;
  /**
   * Finds the circuit of a finished run's model, or looks at what was found before.
   *
   * @param args what `deno task circuits` is asked for
   * @returns null where `--table` finds none, or looking for it failed
   */
  circuits(stage: string, run: SweepRun, args: readonly string[]): Promise<CircuitSizes | null>;
  /** Folder of a run of a stage. */
  folderOf(stage: string, run: SweepRun): string;
}

/** A part that can be performed by itself. */
export interface StudyPart {
  name: string;
  /** Whether `--quick` performs it. */
  inQuick: boolean;
  perform(tools: StudyTools): Promise<PartResult>;
}

/** A study. */
export interface Study {
  name: string;
  title: string;
  question: string;
  /** How it is answered, and what was chosen, a sentence or two each. */
  protocol: readonly string[];
  parts: readonly StudyPart[];
}
