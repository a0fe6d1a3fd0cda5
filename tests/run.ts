/**
 * Runs tests, each file in a process of its own and three at a time for every two processors, as many of them wait.
 * `deno test --parallel` would run them in one, and there are tests of what a process has but once: its environment,
 * signals and permissions.
 *
 *     deno task test [--jobs N] [--minutes M] [--filter NAME] [--doc] [FILE or FOLDER...]
 *
 * Without a path, all of tests/ is run. `--doc` runs the examples in the documentation of everything first. What a file
 * printed comes when it has ended; one that has not after `--minutes` (20) is ended and run once more, which is told. The
 * last line counts: `1437 passed, 0 failed, 61 ignored (4m 10s)`.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { TEST_PERMISSIONS, type TestOutcome, testProcess } from "./support/test_process.ts";

/** What one process runs. */
interface Unit {
  name: string;
  args: readonly string[];
  /** Whether it need not hold a test, as only some of its tests are asked for. */
  mayBeEmpty: boolean;
}

/** Where documentation has examples, beside what tests share. */
const DOCUMENTED = ["kernels", "pipeline", "serve", "mod.ts", "README.md", "docs/guide.md"];

/** The files in and below a path, whatever a file's name if it is the path itself, and how large each is. */
async function filesBelow(
  path: string,
  isWanted: (name: string) => boolean,
): Promise<[path: string, bytes: number][]> {
  const { isDirectory, size } = await Deno.stat(path);
  if (!isDirectory) return [[path, size]];
  const found = [];
  for await (const { name, isDirectory } of Deno.readDir(path)) {
    if (isDirectory || isWanted(name)) found.push(filesBelow(`${path}/${name}`, isWanted));
  }
  return (await Promise.all(found)).flat();
}

const isTest = (name: string): boolean => name.endsWith("_test.ts");

/** What a process printed, and in what it failed beyond its tests. */
function report({ name, mayBeEmpty }: Unit, outcome: TestOutcome): { text: string; broken: boolean } {
  const { code, signal, late, passed, failed, ignored, output } = outcome;
  const ran = passed + failed + ignored > 0 || mayBeEmpty;
  const broken = failed === 0 && !(ran && code === 0);
  const how = late
    ? "had not ended in time"
    : signal
    ? `was ended by ${signal}`
    : `ended with ${code} behind its tests`;
  return {
    text: [`\n--- ${name}`, output.trim(), ...(broken ? [`${name} ${how}`] : [])].join("\n"),
    broken,
  };
}

/** A time as people say it. */
function spoken(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m ${seconds % 60}s`;
}

/** Takes what is given by `--filter` and paths for what to run, the largest files first, as they tend to take longest. */
async function unitsOf(
  paths: readonly string[],
  { filter, doc }: { filter?: string; doc: boolean },
): Promise<Unit[]> {
  const only = filter === undefined ? [] : ["--filter", filter];
  const mayBeEmpty = filter !== undefined;
  const args = [...TEST_PERMISSIONS, ...only];
  const files = (await Promise.all(paths.map((path) => filesBelow(path, isTest)))).flat()
    .sort(([, a], [, b]) => b - a)
    .map(([path]) => ({ name: path, args: [...args, path], mayBeEmpty }));
  if (!doc) return files;
  const shared = (await filesBelow("tests/support", (name) => !isTest(name))).map(([path]) => path);
  // Others would be run as modules, and some of them are commands.
  const texts = await Promise.all(shared.map((path) => Deno.readTextFile(path)));
  const documented = [...DOCUMENTED, ...shared.filter((_, n) => texts[n].includes("* ```ts"))];
  return [
    { name: "examples in documentation", args: [...args, "--doc", ...documented], mayBeEmpty },
    ...files,
  ];
}

/** Runs all, `jobs` at a time and each for `limit` milliseconds at most, and gives the exit status. */
async function runAll(units: Unit[], { jobs, limit }: { jobs: number; limit: number }): Promise<number> {
  const began = performance.now();
  const total = { passed: 0, failed: 0, ignored: 0 };
  const failures: string[] = [];
  const late: string[] = [];
  const queue = units.values();
  await Promise.all(Array.from({ length: jobs }, async () => {
    for (const unit of queue) {
      let outcome = await testProcess(unit.args, { limit });
      if (outcome.late) {
        late.push(unit.name);
        console.log(report(unit, outcome).text);
        outcome = await testProcess(unit.args, { limit });
      }
      const { text, broken } = report(unit, outcome);
      console.log(text);
      total.passed += outcome.passed;
      total.failed += outcome.failed + (broken ? 1 : 0);
      total.ignored += outcome.ignored;
      if (broken || outcome.failed > 0) failures.push(unit.name);
    }
  }));
  console.log();
  if (late.length > 0) console.log(`run again, as they had not ended in time: ${late.join(", ")}`);
  if (failures.length > 0) console.log(`failed in ${failures.join(", ")}`);
  const { passed, failed, ignored } = total;
  console.log(
    `${passed} passed, ${failed} failed, ${ignored} ignored (${spoken(performance.now() - began)})`,
  );
  return failed > 0 || passed === 0 ? 1 : 0;
}

/** What is asked for on the command line. */
function readArguments(args: string[]) {
  const parsed = parseArgs(args, {
    string: ["jobs", "minutes", "filter"],
    boolean: ["doc"],
    default: { jobs: String(Math.ceil(1.5 * navigator.hardwareConcurrency)), minutes: "20" },
    unknown: (_argument, flag) => {
      if (flag !== undefined) {
        throw new RangeError(`--${flag} is none of --jobs, --minutes, --filter and --doc`);
      }
    },
  });
  const jobs = Number(parsed.jobs);
  if (!Number.isInteger(jobs) || jobs < 1) {
    throw new RangeError(`--jobs is no number of processes: ${parsed.jobs}`);
  }
  const minutes = Number(parsed.minutes);
  // A timer ends at once that is to go on for longer than it can.
  if (!(minutes > 0 && minutes < 10_000)) throw new RangeError(`--minutes is no time: ${parsed.minutes}`);
  return {
    jobs,
    limit: minutes * 60_000,
    filter: parsed.filter as string | undefined,
    doc: parsed.doc as boolean,
    paths: parsed._.length > 0 ? parsed._ : ["tests"],
  };
}

/** Runs what the arguments ask for; 2 where they cannot be followed. */
async function main(args: string[]): Promise<number> {
  let units, bounds;
  try {
    const { paths, filter, doc, ...rest } = readArguments(args);
    [units, bounds] = [await unitsOf(paths, { filter, doc }), rest];
  } catch (error) {
    if (!(error instanceof RangeError || error instanceof Deno.errors.NotFound)) throw error;
    console.error(`Cannot test: ${error.message}`);
    return 2;
  }
  return await runAll(units, bounds);
}

if (import.meta.main) Deno.exit(await main(Deno.args));
