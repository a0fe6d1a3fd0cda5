import { assert, assertAlmostEquals, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { PROJECT } from "../../../pipeline/files.ts";
import { SENSITIVITY } from "../../../pipeline/studies/sensitivity.ts";
import type { StudyTools } from "../../../pipeline/studies/study.ts";
import type { SweepRun } from "../../../pipeline/sweep/sweep_file.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { runMain } from "../../support/tiny_model.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;

/** @param runs whether it may begin processes */
const study = (args: string[], { runs = true } = {}) =>
  runMain(args, { script: "pipeline/studies/main.ts", allow: runs ? ["--allow-run=deno"] : [] });

/** A document without the day on which it was written. */
const withoutDay = (text: string): string => text.replace(/Written on \S+/g, "Written on a day");

const lastLine = (text: string): string => text.trim().split("\n").at(-1)!;

Deno.test("a quick study of sensitivity runs, ends with its documents, and begun again runs nothing", async () => {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  const first = await study(["sensitivity", "--quick", "--runs", path, "--json"]);
  assertEquals(first.code, 0, first.stderr);
  const { parts } = JSON.parse(lastLine(first.stdout));
  assertEquals(parts.map(({ done, of }: { done: number; of: number }) => [done, of]), [[4, 4]]);
  const folder = join(path, "sensitivity-quick");
  assertEquals(JSON.parse(await Deno.readTextFile(join(folder, "study.json"))), {
    file: "sensitivity --quick",
    project: PROJECT,
  });
  const text = await Deno.readTextFile(join(folder, "study.md"));
  assertStringIncludes(text, "All 4 runs have ended. A quick run of tiny sizes");
  assertStringIncludes(text, "| temperature 2 |");
  assertStringIncludes(await Deno.readTextFile(join(folder, "study.html")), 'href="addition/sweep.html"');
  assertStringIncludes(await Deno.readTextFile(join(folder, "addition/sweep.html")), "4 of 4 runs finished");

  const again = await study(["sensitivity", "--quick", "--runs", path]);
  assertEquals(again.code, 0, again.stderr);
  assertStringIncludes(again.stderr, "4 of 4 runs are finished already");
  assert(!again.stderr.includes("begins"), again.stderr);
  assertEquals(withoutDay(await Deno.readTextFile(join(folder, "study.md"))), withoutDay(text));

  // The full study is another, and is not mixed with the quick one.
  const mixed = await study(["sensitivity", "--runs", path, "--name", "sensitivity-quick", "--table"]);
  assertEquals(mixed.code, 2);
  assertStringIncludes(mixed.stderr, 'for the study sensitivity as it is that of "sensitivity --quick"');
});

Deno.test("a quick study from scratch holds each arm to its dense twin, and looks for a circuit", async () => {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  const { code, stdout, stderr } = await study(["from-scratch", "--quick", "--runs", path, "--json"]);
  assertEquals(code, 0, stderr);
  const { parts: [part] } = JSON.parse(lastLine(stdout));
  // Two seeds of dense and two arms.
  assertEquals([part.done, part.of, part.circuits], [6, 6, { done: 1, of: 1 }]);
  assertEquals(part.tables[0].rows.map(([label, seeds]: string[]) => [label, seeds]), [
    ["dense", "2"],
    ["0 %", "2"],
    ["100 % (post-training)", "2"],
  ]);
  const folder = join(path, "from-scratch-quick");
  const names = (await Array.fromAsync(Deno.readDir(join(folder, "addition-sparse"))))
    .filter(({ isDirectory }) => isDirectory).map(({ name }) => name).sort();
  assertEquals(names.length, 4);
  for (const name of names) {
    const run = join(folder, "addition-sparse", name);
    const { constraint } = JSON.parse(await Deno.readTextFile(join(run, "summary.json")));
    const { settings } = JSON.parse(await Deno.readTextFile(join(run, "config.json")));
    assertEquals(settings.sparseFrom, name.startsWith("sparseFrom-0_") ? 0 : 0.6667);
    assertEquals(constraint.target_loss, settings.targetLoss);
  }
  assertStringIncludes(await Deno.readTextFile(join(folder, "study.md")), "| 100 % (post-training) | 2 |");
  const table = await study(["from-scratch", "--quick", "--runs", path, "--table", "--json"]);
  assertEquals(JSON.parse(lastLine(table.stdout)).parts[0], part);

  // As `kill -9` while a circuit is saved leaves it.
  const dense = join(folder, "addition-dense");
  const [circuit] = (await Array.fromAsync(Deno.readDir(dense)))
    .filter(({ name, isDirectory }) => isDirectory && name.startsWith("circuits-")).map(({ name }) => name);
  const summary = join(dense, circuit, "summary.json");
  const found = await Deno.readTextFile(summary);
  await Deno.remove(summary);
  const again = await study(["from-scratch", "--quick", "--runs", path, "--json"]);
  assertEquals(again.code, 0, again.stderr);
  assertEquals(JSON.parse(lastLine(again.stdout)).parts[0], part);
  const sizes = (text: string) => JSON.parse(text).models[0].n90_edges;
  assertEquals(sizes(await Deno.readTextFile(summary)), sizes(found));

  // A circuit that cannot be found costs the rest nothing.
  await Deno.remove(join(dense, circuit), { recursive: true });
  await Deno.remove(join(dense, circuit.replace("circuits-", ""), "model"), { recursive: true });
  await Deno.remove(join(folder, "study.html"));
  const without = await study(["from-scratch", "--quick", "--runs", path, "--json"]);
  assertEquals(without.code, 3, without.stderr);
  assertStringIncludes(
    without.stderr,
    `1 runs or circuits failed; the rest stands: ${circuit} (Cannot find a circuit: `,
  );
  assertEquals(JSON.parse(lastLine(without.stdout)).parts[0].circuits, { done: 0, of: 1 });
  assertStringIncludes(
    await Deno.readTextFile(join(folder, "study.html")),
    "All 6 runs have ended. 0 of 1 circuits of theirs have been looked for.",
  );
});

/** The runs of each part of the study of sensitivity, begun from a project. */
async function sensitivityOf(project: string): Promise<SweepRun[][]> {
  const runsOf: SweepRun[][] = [];
  for (const part of SENSITIVITY.parts) {
    const tools = {
      quick: false,
      project,
      folderOf: (stage: string, { name }: SweepRun) => join(stage, name),
      runs(_: string, runs: SweepRun[]) {
        runsOf.push(runs);
        return Promise.resolve(runs.map((run) => ({ run, status: "not begun", error: null, summary: null })));
      },
    };
    await part.perform(tools as unknown as StudyTools);
  }
  return runsOf;
}

/** Leaves a stage of that study as if these had been run. */
async function endRuns(of: string, stage: string, runs: readonly SweepRun[]): Promise<void> {
  await Deno.mkdir(of, { recursive: true });
  await Deno.writeTextFile(join(of, "sweep.json"), JSON.stringify({ file: `study sensitivity, ${stage}` }));
  const sparse = {
    ce: 2,
    open_fraction: 0.1,
    edges_per_query: 1,
    dead_queries: 0,
    exact_rows: 1,
    live_heads: 1,
  };
  const summary = {
    dense: { ce: 2 },
    control: null,
    sparse: { ...sparse, feasible: true, step: 1 },
    target_loss: 2,
    adapter: "a device",
    seed: 1,
  };
  for (const { name, settings } of runs) {
    await Deno.mkdir(join(of, name));
    await Deno.writeTextFile(join(of, name, "config.json"), JSON.stringify({ settings }));
    await Deno.writeTextFile(join(of, name, "state.json"), JSON.stringify({ state: "finished" }));
    await Deno.writeTextFile(join(of, name, "summary.json"), JSON.stringify(summary));
  }
}

Deno.test("one part of a study is run alone, and the document has what there is of the others", async () => {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  const folder = join(path, "sensitivity");
  const runsOf = await sensitivityOf(ROOT);
  const end = (stage: string, runs: readonly SweepRun[]) => endRuns(join(folder, stage), stage, runs);
  await end("addition", runsOf[0]);
  await Deno.writeTextFile(join(folder, "study.json"), JSON.stringify({ file: "sensitivity" }));
  const text = (): Promise<string> => Deno.readTextFile(join(folder, "study.md"));
  const all = runsOf.flat().length;
  const perform = async (): Promise<string> => {
    const asked = ["sensitivity", "--part", "addition", "--runs", path];
    const { code, stdout, stderr } = await study(asked, { runs: false });
    assertEquals(code, 0, stderr);
    assertStringIncludes(stdout, "English (");
    return stderr;
  };
  const told = await perform();
  assertStringIncludes(told, `${runsOf[0].length} of ${runsOf[0].length} runs are finished already`);
  assert(!told.includes("english"), told);
  assertStringIncludes(await text(), `${runsOf[0].length} of ${all} runs have ended. `);
  assertStringIncludes(await text(), "## Addition of two numbers\n\n- With the recommended settings 10.0 %");
  assert((await text()).endsWith("## English\n\n- No run of it has ended.\n"), await text());
  assert(!(await Deno.readTextFile(join(folder, "study.html"))).includes("english/sweep.html"));
  const names = async (): Promise<string[]> =>
    (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
  assert(!(await names()).includes("english"), "nothing is made for what has not been run");
  await end("english", runsOf[1].slice(0, 1));
  assert(!(await perform()).includes("english"));
  assertStringIncludes(await text(), `${runsOf[0].length + 1} of ${all} runs have ended. `);
  assertStringIncludes(await text(), "## English\n\n- With the recommended settings 10.0 %");
});

Deno.test("a study's runs are found from another checkout, and go on only where the one that they began in is there", async () => {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  const folder = join(path, "sensitivity");
  const gone = join(path, "gone");
  const [addition] = await sensitivityOf(gone);
  await endRuns(join(folder, "addition"), "addition", addition);
  const mark = join(folder, "study.json");
  const table = ["sensitivity", "--table", "--runs", path];
  const ended = `Addition of two numbers (${addition.length} of ${addition.length} runs)`;
  const isFound = async () => {
    const { code, stdout, stderr } = await study(table, { runs: false });
    assertEquals(code, 0, stderr);
    assertStringIncludes(stdout, ended);
  };
  await Deno.writeTextFile(mark, JSON.stringify({ file: "sensitivity", project: gone }));
  await isFound();
  // A folder from before that was kept: the settings of its runs tell it.
  const before = JSON.stringify({ file: "sensitivity" });
  await Deno.writeTextFile(mark, before);
  await isFound();
  assertEquals(await Deno.readTextFile(mark), before, "--table leaves a folder as it is, but for its pages");

  const goOn = ["sensitivity", "--part", "addition", "--runs", path];
  const refused = await study(goOn, { runs: false });
  assertEquals(refused.code, 2, refused.stderr);
  assertStringIncludes(
    refused.stderr,
    `Cannot go on with the study in ${folder} as the checkout that it was begun in is not there any more: ${gone}; `,
  );
  await Deno.mkdir(gone);
  const there = await study(goOn, { runs: false });
  assertEquals(there.code, 0, there.stderr);
  assertStringIncludes(there.stdout, ended);
  assertEquals(JSON.parse(await Deno.readTextFile(mark)), { file: "sensitivity", project: gone });
});

Deno.test("a study's page is not written over by one of no runs", async () => {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  const folder = join(path, "sensitivity");
  const [addition] = await sensitivityOf(ROOT);
  const table = () => study(["sensitivity", "--table", "--runs", path], { runs: false });
  await endRuns(join(folder, "addition"), "addition", addition.slice(0, 1));
  await Deno.writeTextFile(join(folder, "study.json"), JSON.stringify({ file: "sensitivity" }));
  const first = await table();
  assertEquals(first.code, 0, first.stderr);
  const pages = () =>
    Promise.all(["study.html", "study.md"].map((file) => Deno.readTextFile(join(folder, file))));
  const written = await pages();
  // As if the study had other settings by now.
  const [{ name }] = addition;
  await Deno.rename(join(folder, "addition", name), join(folder, "addition", `${name}0`));
  const second = await table();
  assertEquals(second.code, 3, second.stderr);
  assertStringIncludes(
    second.stderr,
    `Cannot write ${join(folder, "study.html")} anew as no run that this study has now has ended there`,
  );
  assertEquals(await pages(), written);
  // With no page there is nothing to lose.
  for (const file of ["study.html", "study.md"]) await Deno.remove(join(folder, file));
  const third = await table();
  assertEquals(third.code, 0, third.stderr);
  assertStringIncludes((await pages())[1], "No run of it has ended.");
});

Deno.test("a quick study of far attention trains, makes sparse and measures against the edges that are needed", async () => {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  const { code, stdout, stderr } = await study(["long-range", "--quick", "--runs", path, "--json"]);
  assertEquals(code, 0, stderr);
  const { parts: [part] } = JSON.parse(lastLine(stdout));
  assertEquals([part.done, part.of], [6, 6]);
  assertEquals(part.tables[0].rows.map((row: string[]) => row.slice(0, 2)), [
    ["dense", "2"],
    ["slack 0.1", "2"],
    ["slack 0.1, edges by (1 + distance)^−1", "2"],
  ]);
  // Each of two answers needs two edges.
  const folder = join(path, "long-range-quick");
  for await (const { name } of Deno.readDir(join(folder, "recall-sparse"))) {
    if (!name.endsWith(".measure.json")) continue;
    const { edges, accuracy } = JSON.parse(await Deno.readTextFile(join(folder, "recall-sparse", name)));
    assertEquals(edges.floor, 4);
    assert(accuracy >= 0 && accuracy <= 1 && edges.recall >= 0 && edges.recall <= 1);
  }
  const table = await study(["long-range", "--quick", "--runs", path, "--table", "--json"]);
  assertEquals(JSON.parse(lastLine(table.stdout)).parts[0], part);
});

Deno.test("a quick study of reinforcement trains each policy from the one before, and goes on where it was stopped", async () => {
  await using temporary = await temporaryFolder();
  const { path } = temporary;
  const first = await study(["reinforcement", "--quick", "--runs", path, "--json"]);
  assertEquals(first.code, 0, first.stderr);
  const { parts } = JSON.parse(lastLine(first.stdout));
  const [part, mismatch] = parts;
  // Two seeds of pre-training, of the start, of dense, of supervision and of two sparse arms; of a third in the other part.
  assertEquals([part.done, part.of, part.circuits], [12, 12, { done: 1, of: 1 }]);
  assertEquals([mismatch.done, mismatch.of], [2, 2]);
  const arms = (of: { tables: { rows: string[][] }[] }) =>
    of.tables[0].rows.map(([label, seeds]) => [label, seeds]);
  assertEquals(arms(part), [
    ["dense", "2"],
    ["leave-one-out", "2"],
    ["GRPO", "2"],
    ["supervised, sparse", "2"],
  ]);
  assertEquals(arms(mismatch), [
    ["dense", "2"],
    ["leave-one-out, drawn through hard gates", "2"],
    ["supervised, sparse", "2"],
  ]);
  const folder = join(path, "reinforcement-quick");
  const json = async (...of: string[]) => JSON.parse(await Deno.readTextFile(join(folder, ...of)));
  const runsOf = async (stage: string): Promise<string[]> =>
    (await Array.fromAsync(Deno.readDir(join(folder, stage))))
      .filter(({ name, isDirectory }) => isDirectory && !name.startsWith("circuits-"))
      .map(({ name }) => name).sort();
  const dense = new Map<number, number>();
  for (const name of await runsOf("dense")) {
    const { seed, validation, constraint } = await json("dense", name, "summary.json");
    assertEquals(constraint, null);
    dense.set(seed, validation.reward);
  }
  const names = await runsOf("sparse");
  assertEquals(names.length, 6);
  for (const name of names) {
    const { seed, constraint } = await json("sparse", name, "summary.json");
    assertAlmostEquals(constraint.target_reward, 0.99 * dense.get(seed)!, 1e-6);
    const { settings } = await json("sparse", name, "config.json");
    assert(name.includes(`algorithm-${settings.algorithm}_drawThrough-${settings.drawThrough}`), name);
  }

  // As `kill -9` behind a checkpoint leaves a run, and one that had just been begun.
  const weights = (name: string) => Deno.readFile(join(folder, "sparse", name, "model/model.safetensors"));
  const [broken, begun] = names;
  const before = await Promise.all([broken, begun].map(weights));
  for (const name of [broken, begun]) {
    const run = join(folder, "sparse", name);
    for (const file of ["summary.json", "state.json", "model"]) {
      await Deno.remove(join(run, file), { recursive: true });
    }
    for await (const { name: checkpoint } of Deno.readDir(join(run, "checkpoints"))) {
      if (name === begun || /-0*4\./.test(checkpoint)) {
        await Deno.remove(join(run, "checkpoints", checkpoint));
      }
    }
  }
  const again = await study(["reinforcement", "--quick", "--runs", path, "--json"]);
  assertEquals(again.code, 0, again.stderr);
  assertEquals(again.stderr.match(/(begins|goes on)$/gm), ["goes on", "goes on"]);
  assertEquals(await Promise.all([broken, begun].map(weights)), before);
  assertEquals(JSON.parse(lastLine(again.stdout)).parts, parts);

  // One that cannot go on costs the others nothing, and is named.
  const config = join(folder, "sparse", broken, "config.json");
  await Deno.remove(join(folder, "sparse", broken, "summary.json"));
  await Deno.writeTextFile(
    config,
    (await Deno.readTextFile(config)).replace("algorithm", "algorithn"),
  );
  const damaged = await study(["reinforcement", "--quick", "--runs", path, "--json"]);
  assertEquals(damaged.code, 3, damaged.stderr);
  assertStringIncludes(
    damaged.stderr,
    `1 runs or circuits failed; the rest stands: ${broken} (Cannot use ${config} as`,
  );
  assertEquals(JSON.parse(lastLine(damaged.stdout)).parts[0].done, 11);
});

Deno.test("a study that there is not, and a part that it has not, are refused in a sentence", async () => {
  const cases: [string[], string][] = [
    [[], "Cannot run a study without its name: sensitivity, from-scratch, long-range, reinforcement"],
    [["sensitivty"], "as there is no such study (did you mean sensitivity?)"],
    [["sensitivity", "--part", "french"], "as its parts are addition, english: give one of these"],
    [["sensitivity", "--quick", "--part", "english"], "as its parts are addition: give one of these"],
    [["sensitivity", "--table", "--runs", "/no/such/folder"], "as nothing has been run there"],
    [["sensitivity", "--table", "--jobs", "2"], "Cannot use --table and --jobs together"],
  ];
  for (const [args, message] of cases) {
    const { code, stderr } = await study(args);
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, message);
  }
  const help = await study(["--help"]);
  assertEquals(help.code, 0, help.stderr);
  assertStringIncludes(help.stdout, "Usage: deno task study NAME [flags]");
  assertStringIncludes(help.stdout, "Studies: sensitivity, from-scratch, long-range, reinforcement");
});
