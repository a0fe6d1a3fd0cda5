/**
 * Imports flow one way: kernels/core ← kernels/<op> ← what every room of the pipeline may use ← model, hub, parallel ← text, runs ←
 * settings ← training, generation ← report ← circuits, sweeps ← studies ← the pipeline's doors ← serve ← whatever stands at the top (mod.ts).
 *
 * The modules are read by Deno's own parser (`Deno.lint.runPlugin`, to be had in tests only), so that an import in a
 * comment or a string does not count, and a type import, a re-export or a dynamic import does.
 *
 * No module imports itself through others, not for a type either: what stands below can be read without what is above.
 */
import { assert, assertEquals } from "@std/assert";
import { join, posix } from "node:path";

const ROOT = join(import.meta.dirname!, "..");
const NOT_THE_PROGRAM = ["tests", "node_modules", "runs", "data"];

/** Path from the repository's root, with "/" between folders, → source text. */
type Modules = Record<string, string>;

/** An import map's `imports`: bare specifier → what it stands for. */
type ImportMap = Record<string, string>;

/** Everything in the modules that goes against the direction, one sentence each. */
function violations(modules: Modules, importMap: ImportMap = {}): string[] {
  return Object.entries(modules).flatMap(([path, source]) => {
    const { specifiers, readsArguments } = parse(path, source);
    const found = specifiers.flatMap((specifier) => faultsOfImport(path, specifier, importMap));
    if (readsArguments && posix.basename(path) !== "main.ts") found.push("reads Deno.args outside a main.ts");
    return found.map((fault) => `${path} ${fault}`);
  });
}

/** The specifiers of all imports and re-exports, and whether `Deno.args` is read. */
function parse(path: string, source: string): { specifiers: string[]; readsArguments: boolean } {
  const specifiers: string[] = [];
  let readsArguments = false;
  const note = (node?: { type: string; value?: unknown } | null) => {
    if (node) specifiers.push(node.type === "Literal" ? String(node.value) : "(computed)");
  };
  const visitor: Deno.lint.LintVisitor = {
    ImportDeclaration: (node) => note(node.source),
    ImportExpression: (node) => note(node.source),
    ExportAllDeclaration: (node) => note(node.source),
    ExportNamedDeclaration: (node) => note(node.source),
    TSImportType: (node) =>
      note(node.argument.type === "TSLiteralType" ? node.argument.literal : node.argument),
    MemberExpression({ object, property }) {
      const [of, name] = [object, property].map((node) => node.type === "Identifier" ? node.name : "");
      readsArguments ||= of === "Deno" && name === "args";
    },
  };
  Deno.lint.runPlugin({ name: "imports", rules: { imports: { create: () => visitor } } }, path, source);
  return { specifiers, readsArguments };
}

function faultsOfImport(path: string, specifier: string, importMap: ImportMap): string[] {
  const faults: string[] = [];
  const module = posix.basename(path);
  if (module === "reference.ts") faults.push(`imports ${specifier}, but a reference imports nothing`);
  if (specifier === "(computed)") {
    faults.push("has an import whose specifier is computed, which nobody can check");
  }
  if (/^(npm:|jsr:\/?)?@?hono\b/.test(specifier) && roomOf(path) !== "serve") {
    faults.push(`imports ${specifier} outside serve/`);
  }
  const target = localPath(path, specifier, importMap);
  const parseArgs = "@std/cli/parse-args";
  const parsesFlags = [parseArgs, localPath("", parseArgs, importMap)].includes(target ?? specifier);
  if (parsesFlags && module !== "main.ts" && path !== "pipeline/settings/parse.ts") {
    faults.push(`imports ${specifier} outside a main.ts and pipeline/settings/parse.ts`);
  }
  // Data, such as deno.json's version, has no place in the order.
  if (target !== undefined && !target.endsWith(".json") && !mayImport(roomOf(path), roomOf(target))) {
    faults.push(`imports ${target}, against the direction`);
  }
  return faults;
}

/** The imported file's path from the root; undefined for a package. */
function localPath(from: string, specifier: string, importMap: ImportMap): string | undefined {
  if (/^\.{1,2}\//.test(specifier)) return posix.join(posix.dirname(from), specifier);
  const mapped = importMap[specifier];
  return mapped?.startsWith("./") ? posix.normalize(mapped) : undefined;
}

/** Of the pipeline's files that stand in no room: what every room may use. The others are doors, above all rooms. */
const FOR_ALL = [
  "errors",
  "files",
  "fixed",
  "flags",
  "nearest",
  "option_checks",
  "turn",
  "tuning_cache",
  "std/parse_args",
]
  .map((name) => `pipeline/${name}.ts`);

/** The floors from the bottom up; no room imports its neighbour on the same floor. */
const FLOORS = [
  ["kernels/core"],
  ["kernels/<op>"],
  ["pipeline/<for all>"],
  ["pipeline/model", "pipeline/hub", "pipeline/parallel"],
  ["pipeline/text", "pipeline/runs"],
  ["pipeline/settings"],
  ["pipeline/training", "pipeline/generation"],
  ["pipeline/report"],
  ["pipeline/circuits", "pipeline/benchmarks", "pipeline/sweep", "pipeline/export"],
  ["pipeline/studies", "pipeline/activations"],
  ["pipeline"],
  ["serve"],
  [""],
  ["tests"],
];

/** "kernels/core", "kernels/matmul", "pipeline/text", "pipeline", "serve", "tests"; "" for all else, as mod.ts. */
function roomOf(path: string): string {
  if (FOR_ALL.includes(path)) return "pipeline/<for all>";
  // A command reads its line and opens its files wherever it stands.
  if (/^pipeline\/(circuits|generation|benchmarks|sweep|studies|activations|export)\/main\.ts$/.test(path)) {
    return "pipeline";
  }
  return /^(kernels\/[^/]+(?=\/)|pipeline\/settings(?=\.ts$)|pipeline\/[^/]+(?=\/)|(pipeline|serve|tests)(?=\/))/
    .exec(path)?.[0] ?? "";
}

function mayImport(importer: string, imported: string): boolean {
  return importer === imported || heightOf(importer) > heightOf(imported);
}

function heightOf(room: string): number {
  const floor = room.startsWith("kernels/") && room !== "kernels/core" ? "kernels/<op>" : room;
  return FLOORS.findIndex((rooms) => rooms.includes(floor));
}

/**
 * The circles among the modules: each a list of paths in alphabetical order, every one of which imports every other
 * through modules of the list.
 */
function circles(modules: Modules, importMap: ImportMap = {}): string[][] {
  const imports = new Map(
    Object.entries(modules).map(([path, source]) => [
      path,
      parse(path, source).specifiers.map((specifier) => localPath(path, specifier, importMap))
        .filter((target) => target !== undefined && target in modules) as string[],
    ]),
  );
  const reached = new Map([...imports.keys()].map((path) => {
    const found = new Set<string>();
    const open = [path];
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      for (const target of imports.get(next)!) {
        if (!found.has(target)) open.push(target);
        found.add(target);
      }
    }
    return [path, found];
  }));
  const found = new Set<string>();
  for (const [path, all] of reached) {
    if (!all.has(path)) continue;
    found.add(JSON.stringify([...all].filter((other) => reached.get(other)!.has(path)).sort()));
  }
  return [...found].map((circle) => JSON.parse(circle));
}

async function readModules(folder: string, modules: Modules = {}): Promise<Modules> {
  for await (const { name, isDirectory } of Deno.readDir(join(ROOT, folder))) {
    const path = posix.join(folder, name);
    if (name.startsWith(".") || NOT_THE_PROGRAM.includes(path)) continue;
    if (isDirectory) await readModules(path, modules);
    else if (name.endsWith(".ts")) modules[path] = await Deno.readTextFile(join(ROOT, path));
  }
  return modules;
}

Deno.test("imports flow from kernels/core to the operations, the pipeline's rooms and the server, and never back", async () => {
  const { imports } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const modules = await readModules("");
  assert(Object.keys(modules).some((path) => path.startsWith("kernels/core/")), "no kernels/core was found");
  assertEquals(violations(modules, imports), []);
});

Deno.test("no module imports itself through others, for a type either", async () => {
  const { imports } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const modules = { ...await readModules(""), ...await readModules("tests") };
  assertEquals(circles(modules, imports), []);
});

Deno.test("the device knows nothing of what is built on it", async () => {
  const path = "kernels/core/device.ts";
  const { specifiers } = parse(path, await Deno.readTextFile(join(ROOT, path)));
  assertEquals(specifiers, ["./gpu_adapters.ts", "./bind_groups.ts", "./textures.ts"]);
});

Deno.test("planted circles are found, each whole and once, and what leads to one is not in it", () => {
  const modules = {
    "a.ts": `import { b } from "./b.ts";`,
    "b.ts": `import type { c } from "./sub/c.ts";`,
    "sub/c.ts": `export * from "../a.ts"; import "#own";`,
    "own.ts": `type Own = import("./own.ts").Own;`,
    "leads.ts": `import "./a.ts"; await import("./other.ts");`,
    "other.ts": `import "./data.json"; import "npm:package";`,
  };
  assertEquals(circles(modules, { "#own": "./own.ts" }), [["a.ts", "b.ts", "sub/c.ts"], ["own.ts"]]);
});

Deno.test("imports along the direction are allowed", () => {
  assertEquals(
    violations({
      "kernels/core/gpu.ts": `import type { Tensor } from "./tensor.ts";`,
      "kernels/gelu/op.ts":
        `import { compile } from "../core/kernel.ts"; import source from "./forward.wgsl";`,
      "kernels/gelu/reference.ts": `export const SLOPE = 1;`,
      "pipeline/model.ts":
        `import { prepare } from "../kernels/gelu/op.ts"; import { inputError } from "./errors.ts";`,
      "pipeline/circuits/edges.ts":
        `import { open } from "../model/network.ts"; import { table } from "apache-arrow";`,
      "pipeline/settings/parse.ts": `import { parseArgs } from "@std/cli/parse-args";`,
      "pipeline/main.ts": `import { parseArgs } from "@std/cli/parse-args"; parseArgs(Deno.args);`,
      "serve/app.ts":
        `import { Hono } from "hono"; import { stream } from "hono/streaming"; import "../pipeline/metrics.ts";`,
      "mod.ts": `export * from "./serve/app.ts"; export * from "./kernels/core/gpu.ts";`,
    }),
    [],
  );
});

Deno.test("an import in a comment or a string is none", () => {
  const source =
    `/** import "../../serve/app.ts" */ const text = 'import "hono"; Deno.args'; // import "hono"`;
  assertEquals(violations({ "kernels/gelu/reference.ts": source }), []);
});

const PLANTED: [path: string, source: string, fault: string][] = [
  ["kernels/core/gpu.ts", `import "../gelu/op.ts";`, "imports kernels/gelu/op.ts, against the direction"],
  ["kernels/gelu/op.ts", `import "../matmul/op.ts";`, "imports kernels/matmul/op.ts, against the direction"],
  [
    "kernels/gelu/op.ts",
    `import "../../pipeline/model.ts";`,
    "imports pipeline/model.ts, against the direction",
  ],
  ["pipeline/model.ts", `import "../serve/app.ts";`, "imports serve/app.ts, against the direction"],
  [
    "pipeline/model/network.ts",
    `import "../training/trainer.ts";`,
    "imports pipeline/training/trainer.ts, against the direction",
  ],
  [
    "pipeline/runs/metrics.ts",
    `import "../text/batches.ts";`,
    "imports pipeline/text/batches.ts, against the direction",
  ],
  ["pipeline/files.ts", `import "./main.ts";`, "imports pipeline/main.ts, against the direction"],
  [
    "pipeline/training/trainer.ts",
    `import "../command_line.ts";`,
    "imports pipeline/command_line.ts, against the direction",
  ],
  ["pipeline/circuits/edges.ts", `import "../../mod.ts";`, "imports mod.ts, against the direction"],
  [
    "serve/app.ts",
    `import "../tests/support/seeded.ts";`,
    "imports tests/support/seeded.ts, against the direction",
  ],
  ["pipeline/model.ts", `import "@std/assert";`, "imports tests/std/assert.ts, against the direction"],
  [
    "pipeline/model.ts",
    `export { app } from "../serve/app.ts";`,
    "imports serve/app.ts, against the direction",
  ],
  ["pipeline/model.ts", `export * from "../serve/app.ts";`, "imports serve/app.ts, against the direction"],
  [
    "pipeline/model.ts",
    `import type { A } from "../serve/app.ts";`,
    "imports serve/app.ts, against the direction",
  ],
  [
    "pipeline/model.ts",
    `type A = import("../serve/app.ts").A;`,
    "imports serve/app.ts, against the direction",
  ],
  ["pipeline/model.ts", `await import("../serve/app.ts");`, "imports serve/app.ts, against the direction"],
  [
    "pipeline/model.ts",
    `await import(name);`,
    "has an import whose specifier is computed, which nobody can check",
  ],
  ["kernels/gelu/reference.ts", `import "./op.ts";`, "imports ./op.ts, but a reference imports nothing"],
  ["pipeline/model.ts", `import "hono";`, "imports hono outside serve/"],
  ["pipeline/model.ts", `import "npm:hono@4/streaming";`, "imports npm:hono@4/streaming outside serve/"],
  [
    "serve/app.ts",
    `import "@std/cli/parse-args";`,
    "imports @std/cli/parse-args outside a main.ts and pipeline/settings/parse.ts",
  ],
  [
    "pipeline/model.ts",
    `import "./std/parse_args.ts";`,
    "imports ./std/parse_args.ts outside a main.ts and pipeline/settings/parse.ts",
  ],
  ["pipeline/settings.ts", `parse(Deno.args);`, "reads Deno.args outside a main.ts"],
];

Deno.test("every planted violation is found, and nothing else", () => {
  const importMap = {
    "@std/assert": "./tests/std/assert.ts",
    "@std/cli/parse-args": "./pipeline/std/parse_args.ts",
  };
  for (const [path, source, fault] of PLANTED) {
    assertEquals(violations({ [path]: source }, importMap), [`${path} ${fault}`]);
  }
});
