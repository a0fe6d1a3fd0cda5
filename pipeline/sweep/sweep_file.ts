/**
 * What a sweep runs, from its JSON file: every setting of a list, with every value of a grid, for every seed.
 *
 *     {
 *       "settings": { "model": "data/english", "steps": 200, "control": false },
 *       "list": [{ "slack": 0 }, { "slack": 0.02, "lambdaRate": 0.02 }],
 *       "grid": { "lr": [5e-4, 1e-3], "lambdaStart": [0.2, 0.4] },
 *       "seeds": [1, 2, 3]
 *     }
 *
 * Settings have the names that `sparsify.json` and `--config` have. What is left out is what `deno task sparsify` takes.
 *
 * @module
 */
import { usageError } from "../errors.ts";
import { digestOf, isObject, shown } from "../files.ts";
import { nearest } from "../nearest.ts";
import { SPARSIFY, type SparsifySettings } from "../settings.ts";
import { checkedSettings } from "../settings/resolve.ts";

/** One run of a sweep. */
export interface SweepRun {
  /** Its folder's name: what varies, and the beginning of a hash of all its settings, which tells it from others. */
  readonly name: string;
  /** What tells it from other settings, by name, without the seed; the same names in every run that has them. */
  readonly varied: Readonly<Record<string, unknown>>;
  /** Where the file names seeds. */
  readonly seed: number | undefined;
  /** All that it is given. */
  readonly settings: Readonly<Record<string, unknown>>;
  /** The command that it is a run of; left out: `sparsify`. */
  readonly command?: "pretrain";
}

/** What the sweep decides itself. */
const OF_THE_SWEEP = ["runs", "name", "json", "quiet", "debug", "serve", "port"];
/** What has an effect among several processes alone, of which each run is one. */
const OF_RANKS = ["mpi", "rankLimit", "shareAdapter", "shardOptimizer", "stages"];
const FIELDS = ["settings", "list", "grid", "seeds"];
/** Runs of a sweep, at most: a list of more is a mistake. */
const MOST_RUNS = 10_000;
/** Characters of a name that say what varies. */
const READABLE = 80;
const HASH = 8;

/**
 * The runs of a sweep, seeds last, the grid's last name before them fastest.
 *
 * @param json what the file holds
 * @param path what error messages call it
 * @param folder that relative paths in it are taken from
 * @throws {UserError} on anything that is no sweep, naming field and value
 */
export function sweepRuns(json: unknown, path: string, folder: string): SweepRun[] {
  const fail = (required: string, found: unknown): never => {
    throw usageError(`Cannot use the sweep ${path} as ${required}: ${shown(found)}`);
  };
  if (!isObject(json)) return fail("it must be a JSON object", json);
  for (const name of Object.keys(json)) {
    if (FIELDS.includes(name)) continue;
    const near = nearest(name, FIELDS);
    fail(`its fields are ${FIELDS.join(", ")}${near ? `; did you mean ${near}?` : ""}`, name);
  }
  const checked = (values: unknown, where: string): Partial<SparsifySettings> => {
    if (!isObject(values)) return fail(`${where} must be an object of settings`, values);
    for (const name of OF_THE_SWEEP) {
      if (name in values) fail(`${where} must leave to the sweep what is its own`, name);
    }
    for (const name of OF_RANKS) {
      if (name in values) {
        fail(`each run is of one process, and ${where} must leave out what several have`, name);
      }
    }
    return checkedSettings(SPARSIFY, values, `${where} of ${path}`, folder);
  };
  const { settings = {}, list = [{}], grid = {}, seeds } = json;
  const common = checked(settings, "settings");
  if (!Array.isArray(list) || list.length === 0) return fail("list must be a list of settings", list);
  const listed = list.map((values, n) => checked(values, `list[${n}]`));
  if (!isObject(grid)) return fail("grid must be an object of lists", grid);
  let crossed: Partial<SparsifySettings>[] = [{}];
  for (const [name, values] of Object.entries(grid)) {
    if (!Array.isArray(values) || values.length === 0) {
      return fail(`grid.${name} must be a list of values`, values);
    }
    const each = values.map((value, n) => checked({ [name]: value }, `grid.${name}[${n}]`));
    if (crossed.length * each.length * listed.length > MOST_RUNS) {
      return fail(`a sweep has ${MOST_RUNS} runs at most`, `${crossed.length * each.length * listed.length}`);
    }
    crossed = crossed.flatMap((before) => each.map((value) => ({ ...before, ...value })));
  }
  const twice = Object.keys(grid).find((name) => listed.some((values) => name in values));
  if (twice !== undefined) fail("a setting stands either in list or in grid", twice);
  const idle = Object.keys(common).find((name) => name in grid || listed.every((values) => name in values));
  if (idle !== undefined) fail("what grid or all of list set has no effect in settings", idle);
  const ofSeeds = seedsOf(seeds, fail);
  if (ofSeeds[0] !== undefined && [common, ...listed, ...crossed].some((values) => "seed" in values)) {
    fail("seeds are named once, by seeds", "seed");
  }
  const runs = listed.flatMap((ofList) =>
    crossed.flatMap((ofGrid) => {
      const varied = { ...ofList, ...ofGrid };
      return ofSeeds.map((seed) => sweepRun({ varied, common, seed }));
    })
  );
  if (runs.length > MOST_RUNS) fail(`a sweep has ${MOST_RUNS} runs at most`, `${runs.length}`);
  const names = new Set<string>();
  for (const { name, varied, seed } of runs) {
    if (names.has(name)) fail("no two of its runs may be the same", JSON.stringify({ ...varied, seed }));
    names.add(name);
  }
  return runs;
}

function seedsOf(seeds: unknown, fail: (required: string, found: unknown) => never): (number | undefined)[] {
  if (seeds === undefined) return [undefined];
  if (!Array.isArray(seeds) || seeds.length === 0) return fail("seeds must be a list of numbers", seeds);
  return seeds.map((seed) => checkedSettings(SPARSIFY, { seed }, "seeds").seed!);
}

/**
 * A run by what it is given.
 *
 * @param varied what tells it from other settings
 * @param common what it has beside
 */
export function sweepRun(
  { varied, common = {}, seed, command }: {
    varied: Readonly<Record<string, unknown>>;
    common?: Readonly<Record<string, unknown>>;
    seed?: number;
    command?: SweepRun["command"];
  },
): SweepRun {
  const settings = { ...common, ...varied, ...(seed === undefined ? {} : { seed }) };
  return {
    name: nameOf(varied, seed, settings),
    varied,
    seed,
    settings,
    ...(command === undefined ? {} : { command }),
  };
}

/** A name that says what varies and changes with any setting, so that no run is taken for one of other settings. */
function nameOf(
  varied: Readonly<Record<string, unknown>>,
  seed: number | undefined,
  all: Readonly<Record<string, unknown>>,
): string {
  const parts = Object.entries({ ...varied, ...(seed === undefined ? {} : { seed }) });
  const text = (value: unknown): string => Array.isArray(value) ? value.join("+") : String(value);
  const readable = parts.map(([name, value]) => `${name}-${text(value)}`).join("_")
    .replace(/[^A-Za-z0-9._-]+/g, ".").slice(0, READABLE);
  const sorted = Object.fromEntries(Object.entries(all).sort(([a], [b]) => a < b ? -1 : 1));
  return `${readable || "run"}_${digestOf(JSON.stringify(sorted)).slice(0, HASH)}`;
}
