/**
 * Rubbish in a folder of runs: hundreds of kinds, each planted beside one healthy run, which must be shown whole all the
 * same, as must be the server's every address.
 *
 * @module
 */
import { join } from "node:path";
import { writeSealedJson } from "../../pipeline/files.ts";
import { openMetrics } from "../../pipeline/runs/metrics.ts";
import { readRunConfig, type RunConfig } from "../../pipeline/runs/run_config.ts";
import { metricRow } from "../support/metric_row.ts";
import { type Seeded, seeded } from "../support/seeded.ts";
import { sampleOf } from "./requests.ts";
import { faultOf, type Findings, makeRun, noFindings, type Site, withSite } from "./server.ts";

/** A kind of rubbish. */
export interface Rubbish {
  name: string;
  /** Plants it: in the runs folder, whose run `spoiled` is whole before. */
  plant(place: { runs: string; run: string; secret: string; random: Seeded }): Promise<unknown>;
  /** Whether it takes long to plant, and is left out of small samples. */
  large?: boolean;
}

const CHECKPOINT = "checkpoints/sparse-0000001.safetensors";
/** What stands in every run's folder, or may. */
const FILES = [
  "config.json",
  "state.json",
  "metrics.arrows",
  "summary.json",
  "slack.json",
  "control.json",
  ".lock",
]
  .concat("report.html", "tokenizer.json", CHECKPOINT, "model/config.json", "dense/config.json");
const JSON_FILES = [
  "config.json",
  "state.json",
  "summary.json",
  "slack.json",
  "control.json",
  "tokenizer.json",
];

async function command(...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(args[0], { args: args.slice(1) }).output();
  if (!success) throw new Error(`${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
}

/** Clears the way for something at a path. */
async function clear(path: string): Promise<void> {
  await Deno.mkdir(join(path, ".."), { recursive: true });
  await Deno.remove(path, { recursive: true }).catch(() => {});
}

async function write(path: string, content: string | Uint8Array): Promise<void> {
  await clear(path);
  await Deno.writeFile(path, typeof content === "string" ? new TextEncoder().encode(content) : content);
}

async function holes(path: string, bytes: number): Promise<void> {
  await clear(path);
  using file = await Deno.open(path, { write: true, create: true });
  await file.truncate(bytes);
}

function bytesBy(random: Seeded, length: number): Uint8Array {
  return Uint8Array.from({ length }, () => random.integer(256));
}

async function present(path: string, random: Seeded): Promise<Uint8Array> {
  return await Deno.readFile(path).catch(() => bytesBy(random, 200));
}

/** What may stand at a file's place, whatever the file. */
const AT_A_PLACE: [what: string, put: (path: string, secret: string, random: Seeded) => Promise<unknown>][] =
  [
    ["nothing", (path) => clear(path)],
    ["an empty file", (path) => write(path, "")],
    ["a folder", async (path) => {
      await clear(path);
      await Deno.mkdir(path);
    }],
    ["a pipe", async (path) => {
      await clear(path);
      await command("mkfifo", path);
    }],
    ["a socket", async (path) => {
      await clear(path);
      // Left behind by a process of every permission.
      await command(
        Deno.execPath(),
        "eval",
        `Deno.listen({ transport: "unix", path: ${JSON.stringify(path)} }); Deno.exit()`,
      );
    }],
    ["a link to a secret", async (path, secret) => {
      await clear(path);
      await Deno.symlink(secret, path);
    }],
    ["a link to /etc/passwd", async (path) => {
      await clear(path);
      await Deno.symlink("/etc/passwd", path);
    }],
    ["a link to /dev/zero", async (path) => {
      await clear(path);
      await Deno.symlink("/dev/zero", path);
    }],
    ["a link to nowhere", async (path) => {
      await clear(path);
      await Deno.symlink("nowhere", path);
    }],
    ["a loop of links", async (path) => {
      await clear(path);
      await Deno.symlink(path, path);
    }],
    ["3 GB of holes", (path) => holes(path, 3e9)],
    ["30 MB of holes", (path) => holes(path, 30e6)],
    ["random bytes", (path, _, random) => write(path, bytesBy(random, 4096))],
    ["itself with a bit flipped", async (path, _, random) => {
      const bytes = await present(path, random);
      if (bytes.length > 0) bytes[random.integer(bytes.length)] ^= 1 << random.integer(8);
      await write(path, bytes);
    }],
    ["its first half", async (path, _, random) => {
      const bytes = await present(path, random);
      await write(path, bytes.subarray(0, bytes.length / 2));
    }],
    ["itself twice", async (path, _, random) => {
      const bytes = await present(path, random);
      await write(path, new Uint8Array([...bytes, ...bytes]));
    }],
    ["itself without any permission", async (path, _, random) => {
      await write(path, await present(path, random));
      await Deno.chmod(path, 0);
    }],
    ["an old date", async (path, _, random) => {
      await write(path, await present(path, random));
      await Deno.utime(path, -1e10, -1e10);
    }],
  ];

const deep = (open: string, close: string, levels: number): string =>
  open.repeat(levels) + close.repeat(levels);

/** JSON, and what is nearly JSON, instead of what a file should hold. */
const JSON_TEXTS: [what: string, text: string | Uint8Array][] = [
  ["null", "null"],
  ["a list", "[1,2,3]"],
  ["a number", "1e999"],
  ["a text", '"text"'],
  ["an empty object", "{}"],
  ["an object cut off", '{"a":'],
  ["a deep list", deep("[", "]", 200_000)],
  ["a deep object", `${'{"a":'.repeat(100_000)}0${"}".repeat(100_000)}`],
  ["a deep list that does not end", "[".repeat(1_000_000)],
  ["a name of the prototype", '{"__proto__":{"state":"training"},"constructor":1}'],
  ["a mark of byte order", "\ufeff{}"],
  ["UTF-16", new Uint8Array([0xff, 0xfe, 0x7b, 0, 0x7d, 0])],
  ["bytes that are no UTF-8", new Uint8Array([0x7b, 0xff, 0xc3, 0x28, 0x7d])],
  ["NaN", "NaN"],
  ["five million characters", JSON.stringify({ state: "x".repeat(5e6), error: "y" })],
  ["a million names", `{${Array.from({ length: 200_000 }, (_, n) => `"k${n}":${n}`).join()}}`],
  ["HTML", "<!doctype html><script>alert(1)</script>"],
];

const STATES: object[] = [
  { since: "not a date" },
  { since: null },
  { since: 1e300 },
  { since: "+275760-09-13T00:00:00.001Z" },
  { since: {} },
  { state: null },
  { state: 3 },
  { state: "broken" },
  { state: ["training"] },
  { error: 3 },
  { error: { message: "x" } },
  { error: "line\nline" },
  { error: "x".repeat(1e6) },
  { phase: 7 },
];

const SETTINGS: object[] = [
  { steps: null },
  { steps: "300" },
  { steps: -1 },
  { steps: 1e300 },
  { steps: 0.5 },
  { steps: [] },
  { model: null },
  { model: 3 },
  { model: "/etc/passwd" },
  { model: ["a", { b: 1 }] },
  { tokenizer: "/etc/passwd" },
  { control: "yes" },
  { lambdaMin: "x" },
  { lambdaMax: {} },
  { gateBias: null },
  { data: { a: { b: { c: {} } } } },
  { "<script>": "</script>" },
  { seed: "x".repeat(1e6) },
];
const SIZES: object[] = [
  { layers: 1e9 },
  { layers: 0 },
  { layers: -1 },
  { layers: "2" },
  { layers: 2 ** 12, heads: 2 ** 12, width: 2 ** 12 },
  { heads: null },
  { heads: 1e308 },
  { width: undefined },
  { width: 15 },
  { vocabularySize: 2 ** 53 },
  { contextLength: 1e9 },
  { mlpWidth: 0 },
  { norm: { kind: "layer", affine: "both", epsilon: "tiny", at: "input" } },
  { gate: { bias: "x" } },
];
const CONFIGS: object[] = [
  { command: 3 },
  { command: "rm -rf" },
  { command: "circuits" },
  { settings: null },
  { settings: [] },
  { adapter: {} },
  { versions: { project: 3 } },
  { model: null },
  { model: { hash: "0", config: [] } },
  { tokenizer: null },
];
const ROWS: object[] = [
  { phase: null },
  { phase: "other" },
  { phase: "" },
  { step: null },
  { step: 4294967295 },
  { step: 0 },
  { tokens: null },
  { tokens: Infinity },
  { seconds: null },
  { seconds: NaN },
  { seconds: -1e308 },
  { ce: null },
  { ce: NaN },
  { ce: Infinity },
  { skipped: null },
  { open_by_head: [] },
  { open_by_head: Array(100_000).fill(0.5) },
  { open_by_head: [null, NaN] },
  { expected_open_by_head: [Infinity] },
];
const SUMMARIES: object[] = [
  [1],
  { sparse: null },
  { sparse: { ce: "1" }, dense: {} },
  { sparse: { ce: 1, open_fraction: 1 }, dense: { ce: 1 }, control: 3, test_tokens: 1 },
  { sparse: [], dense: [], test_tokens: "1" },
  { a: Array(100_000).fill({}) },
];
const SLACKS: unknown[] = [
  [null],
  {},
  [{ phase: 1, step: "a", slack: {} }],
  [{ slack: 1e999 }],
  Array(50_000).fill({ phase: "sparse", step: 1, slack: 0 }),
];
const REPORTS: [what: string, text: () => string][] = [
  ["a million scripts", () => "<script>".repeat(1e6)],
  ["a million styles without an end", () => "<style ".repeat(1.1e6)],
  ["closed scripts", () => "<script></script>".repeat(400_000)],
  ["scripts in styles", () => "<style><script></style></script>".repeat(200_000)],
  ["half a tag", () => "<scrip"],
  ["a tag of 8 MB", () => `<script ${"a".repeat(8e6)}>x</script>`],
];
const NAMES = [
  "-rf",
  "a b",
  "a\nb",
  "a\tb",
  "é",
  "日本語",
  "💥",
  "%2e%2e",
  "<script>alert(1)<",
  "CON",
  "a".repeat(128),
  "b".repeat(129),
]
  .concat(
    "c".repeat(255),
    "...",
    "..a",
    "a..",
    "a.",
    "__proto__",
    "constructor",
    "toString",
    "'\"",
    "$(id)",
    "{}",
    "\x7f",
    "\x01\x02",
    "null",
  );

async function changeConfig(run: string, edit: (config: RunConfig) => object): Promise<void> {
  const path = join(run, "config.json");
  await writeSealedJson(path, edit(await readRunConfig(path)));
}

async function appendRow(run: string, fields: object): Promise<void> {
  const file = await openMetrics(join(run, "metrics.arrows"));
  await file.append([{ ...metricRow(9), ...fields }]);
  file.close();
}

/** A safetensors file whose header is as long as this. */
async function headed(path: string, header: string): Promise<void> {
  const text = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + text.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  await write(path, bytes);
}

const said = (fields: unknown): string =>
  Deno.inspect(fields, { breakLength: Infinity, iterableLimit: 3, strAbbreviateSize: 40 }).slice(0, 80);

/** Every kind of rubbish. */
export const RUBBISH: readonly Rubbish[] = [
  ...FILES.flatMap((file) =>
    AT_A_PLACE.map(([what, put]): Rubbish => ({
      name: `${file}: ${what}`,
      plant: ({ run, secret, random }) => put(join(run, file), secret, random),
    }))
  ),
  ...JSON_FILES.flatMap((file) =>
    JSON_TEXTS.map(([what, text]): Rubbish => ({
      name: `${file}: ${what}`,
      plant: ({ run }) => write(join(run, file), text),
    }))
  ),
  ...STATES.map((fields): Rubbish => ({
    name: `state.json with ${said(fields)}`,
    async plant({ run }) {
      const path = join(run, "state.json");
      await write(path, JSON.stringify({ ...JSON.parse(await Deno.readTextFile(path)), ...fields }));
    },
  })),
  ...SETTINGS.map((fields): Rubbish => ({
    name: `settings of ${said(fields)}`,
    plant: ({ run }) =>
      changeConfig(run, ({ settings, ...rest }) => ({ ...rest, settings: { ...settings, ...fields } })),
  })),
  ...SIZES.map((fields): Rubbish => ({
    name: `a model of ${said(fields)}`,
    plant: ({ run }) =>
      changeConfig(
        run,
        ({ model, ...rest }) => ({ ...rest, model: { ...model, config: { ...model.config, ...fields } } }),
      ),
  })),
  ...CONFIGS.map((fields): Rubbish => ({
    name: `config.json with ${said(fields)}`,
    plant: ({ run }) => changeConfig(run, (config) => ({ ...config, ...fields })),
  })),
  ...ROWS.map((fields): Rubbish => ({
    name: `a row of ${said(fields)}`,
    plant: ({ run }) => appendRow(run, fields),
  })),
  ...SUMMARIES.map((value): Rubbish => ({
    name: `summary.json of ${said(value)}`,
    plant: ({ run }) => write(join(run, "summary.json"), JSON.stringify(value)),
  })),
  ...SLACKS.map((value): Rubbish => ({
    name: `slack.json of ${said(value)}`,
    async plant({ run }) {
      await clear(join(run, "slack.json"));
      await writeSealedJson(join(run, "slack.json"), { changes: value });
    },
  })),
  ...REPORTS.map(([what, text]): Rubbish => ({
    name: `a report of ${what}`,
    plant: ({ run }) => write(join(run, "report.html"), text()),
  })),
  ...NAMES.map((name): Rubbish => ({
    name: `a folder named ${JSON.stringify(name).slice(0, 30)}, ${name.length} long`,
    plant: ({ runs }) => Deno.mkdir(join(runs, name)),
  })),
  ...["-rf", "a\nb", "link"].map((name): Rubbish => ({
    name: `a link named ${JSON.stringify(name)}`,
    plant: ({ runs }) => Deno.symlink("/etc", join(runs, name)),
  })),
  {
    name: "a name that is no UTF-8",
    plant: ({ runs }) => command("sh", "-c", `mkdir "$1/$(printf 'a\\377b')"`, "sh", runs),
  },
  { name: "a run that is a loop of links", plant: ({ runs }) => Deno.symlink("loop", join(runs, "loop")) },
  { name: "a run that is a pipe", plant: ({ runs }) => command("mkfifo", join(runs, "pipe")) },
  { name: "a run that is a file of 3 GB", plant: ({ runs }) => holes(join(runs, "large"), 3e9) },
  {
    name: "a run that links to the runs",
    plant: ({ runs, run }) => Deno.symlink(runs, join(run, "model")),
  },
  { name: "a folder without any permission", plant: ({ run }) => Deno.chmod(run, 0) },
  {
    name: "checkpoints behind a link",
    async plant({ run }) {
      await clear(join(run, "checkpoints"));
      await Deno.symlink("/etc", join(run, "checkpoints"));
    },
  },
  {
    name: "checkpoints of every name",
    async plant({ run }) {
      for (const name of NAMES) {
        await write(join(run, "checkpoints", `${name.slice(0, 200)}.safetensors`), "x");
      }
      await write(join(run, "checkpoints", "sparse-99999999999999999999.safetensors"), "x");
    },
  },
  {
    name: "ten thousand checkpoints",
    large: true,
    async plant({ run }) {
      for (let n = 0; n < 10_000; n++) {
        await Deno.writeTextFile(
          join(run, `checkpoints/sparse-${String(n).padStart(7, "0")}.safetensors`),
          "x",
        );
      }
    },
  },
  {
    name: "a checkpoint with a header of 8 MB",
    plant: ({ run }) => headed(join(run, CHECKPOINT), `{"a":"${"x".repeat(8e6)}"}`),
  },
  {
    name: "a checkpoint with a header of 90 MB",
    large: true,
    plant: ({ run }) => headed(join(run, CHECKPOINT), `{${'"a":{},'.repeat(11e6)}"b":{}}`),
  },
  {
    name: "a checkpoint with a deep header",
    plant: ({ run }) => headed(join(run, CHECKPOINT), deep("[", "]", 200_000)),
  },
  {
    name: "a checkpoint whose header says it has 2^63 bytes",
    async plant({ run }) {
      const bytes = new Uint8Array(100).fill(0xff);
      bytes[7] = 0x7f;
      await write(join(run, CHECKPOINT), bytes);
    },
  },
  {
    name: "a report of 500 MB",
    plant: ({ run }) => holes(join(run, "report.html"), 500e6),
  },
  {
    name: "a hundred reports of 10 MB of holes",
    async plant({ run }) {
      for (let n = 0; n < 100; n++) await holes(join(run, `report${n}.html`), 10e6);
    },
  },
  {
    name: "ten thousand files in a run",
    large: true,
    async plant({ run }) {
      for (let n = 0; n < 10_000; n++) await Deno.writeTextFile(join(run, `r${n}.html`), "");
    },
  },
  {
    name: "nine hundred spoiled runs",
    large: true,
    async plant({ runs, random }) {
      for (let n = 0; n < 900; n++) {
        for (const file of JSON_FILES.slice(0, 4)) {
          await write(join(runs, `s${n}`, file), bytesBy(random, 50));
        }
      }
    },
  },
  {
    name: "a hundred thousand folders",
    large: true,
    async plant({ runs }) {
      for (let n = 0; n < 100_000; n++) Deno.mkdirSync(join(runs, `n${n}`));
      await Promise.resolve();
    },
  },
  {
    name: "a hundred thousand files",
    large: true,
    async plant({ runs }) {
      for (let n = 0; n < 100_000; n++) Deno.writeTextFileSync(join(runs, `f${n}`), "");
      await Promise.resolve();
    },
  },
  {
    name: "a thousand links",
    async plant({ runs }) {
      for (let n = 0; n < 1000; n++) await Deno.symlink("/etc", join(runs, `l${n}`));
    },
  },
];

const OF_A_RUN = ["", "/metrics", "/metrics?points=10", "/heads", "/checkpoints", "/events"];
const OF_ALL = ["/", "/health", "/metrics", "/api/openapi.json", "/api/runs"];

/** Every address that is read, for the healthy run and a spoiled one. */
const ADDRESSES = OF_ALL.concat(
  ...["healthy", "spoiled"].map((name) => [
    ...OF_A_RUN.map((part) => `/api/runs/${name}${part}`),
    `/runs/${name}/reports/report.html`,
  ]),
);

/** An answer as far as it is looked at. */
interface Answer {
  status: number;
  text: string;
}

/** Bytes of an answer that are kept to be looked through. */
const KEPT = 1 << 20;

async function get(site: Site, path: string, limit: number): Promise<Answer> {
  const response = await fetch(site.base + path, { signal: AbortSignal.timeout(limit) });
  let text = "";
  if (response.body) {
    for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
      if (text.length < KEPT) text += piece;
      if (path.endsWith("/events") && /event: (status|gone)/.test(text)) break;
    }
  }
  return { status: response.status, text };
}

/** What the server says of the healthy run. */
async function health(site: Site, limit: number): Promise<unknown> {
  const list = JSON.parse((await get(site, "/api/runs", limit)).text) as { name: string }[];
  return [
    list.find(({ name }) => name === "healthy"),
    JSON.parse((await get(site, "/api/runs/healthy", limit)).text),
    (await get(site, "/api/runs/healthy/metrics", limit)).text,
    (await get(site, "/runs/healthy/reports/report.html", limit)).text,
  ];
}

/** Leaves only the healthy run. By find(1), as there are names that are no UTF-8, and a hundred thousand of others. */
async function clean(runs: string): Promise<void> {
  await command("chmod", "-R", "u+rwX", runs).catch(() => {});
  const others = ["-mindepth", "1", "-maxdepth", "1", "!", "-name", "healthy"];
  await command("find", runs, ...others, "-exec", "rm", "-rf", "{}", "+");
}

/** Plants one kind of rubbish, asks for everything, and takes it away again. */
async function tryOne(
  site: Site,
  rubbish: Rubbish,
  { findings, whole, random, limit }: { findings: Findings; whole: string; random: Seeded; limit: number },
): Promise<void> {
  const run = await makeRun(site.runs, "spoiled");
  const faults: string[] = [];
  try {
    await rubbish.plant({ runs: site.runs, run, secret: site.secret, random });
    for (const path of ADDRESSES) {
      const begun = performance.now();
      try {
        const { status, text } = await get(site, path, limit);
        const fault = faultOf(status, text);
        if (fault) faults.push(`${path} ${fault}`);
      } catch (error) {
        faults.push(`${path}: ${(error as Error).message}`);
      }
      const milliseconds = performance.now() - begun;
      if (milliseconds > findings.slowest.milliseconds) {
        findings.slowest = { milliseconds, what: `${path}, ${rubbish.name}` };
      }
    }
    if (JSON.stringify(await health(site, limit)) !== whole) {
      faults.push("the healthy run is not shown whole");
    }
  } catch (error) {
    faults.push((error as Error).message);
  }
  await clean(site.runs);
  if (faults.length === 0) findings.passed++;
  else findings.failures.push(`${rubbish.name}: ${faults.join("; ")}`);
}

/**
 * Tries kinds of rubbish on a server.
 *
 * @param options `count` of a sample without the large ones, else all; `limit`: milliseconds for an answer
 */
export async function tryRubbish(
  { seed, count, limit }: { seed: number; count?: number; limit: number },
): Promise<Findings> {
  const findings = noFindings();
  const kinds = count === undefined ? RUBBISH : sampleOf(RUBBISH.filter(({ large }) => !large), count, seed);
  await withSite(async (site) => {
    const random = seeded(seed);
    const whole = JSON.stringify(await health(site, limit));
    for (const rubbish of kinds) {
      await tryOne(site, rubbish, { findings, whole, random, limit });
      if (!site.isUp()) {
        findings.failures.push(`${rubbish.name}: the server ended: ${site.said().slice(-500)}`);
        break;
      }
    }
  });
  return findings;
}
