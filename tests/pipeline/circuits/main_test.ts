/** `deno task circuits` as a user meets it. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { tableFromIPC } from "apache-arrow";
import { join } from "node:path";
import { openRuns } from "../../../serve/runs.ts";
import { loadModel } from "../../../pipeline/load_model.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { choicesOf, writeTinyModel } from "../../support/tiny_model.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;

async function run(args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "pipeline/circuits/main.ts",
      ...args,
    ],
    cwd: ROOT,
  }).output();
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

const PAIR = ["--prompt", "12+34=", "--corrupted", "50+21=", "--answer", "6", "--wrong", "1"];

const REFUSED: [string, string[], RegExp][] = [
  [
    "half of a pair",
    [...PAIR.slice(0, 4), "--model", "data/addition"],
    /2 of --prompt, .* a pair is all four/,
  ],
  ["a pair without a model", PAIR, /Cannot use --prompt without --model/],
  [
    "a pair and a task",
    [...PAIR, "--task", "copy", "--model", "data/addition"],
    /--prompt and --task at once/,
  ],
  [
    "a number of one pair",
    [...PAIR, "--prompts", "2", "--model", "data/addition"],
    /--prompts with --prompt/,
  ],
  ["the mean of one pair", [...PAIR, "--ablation", "mean", "--model", "data/addition"], /mean with one pair/],
  [
    "an answer of two tokens",
    [...PAIR.slice(0, 4), "--answer", "64", "--wrong", "1", "--model", "data/addition"],
    /the pair of --prompt as an answer must be one token: "64" is 2 \("6", "4"\)$/,
  ],
  ["an unknown task", ["--task", "chess"], /Unknown task chess: copy, ioi/],
  ["a model without a task", ["--model", "data/addition"], /give --task, --pairs or --prompt/],
  [
    "a length without pairs",
    ["--task", "addition", "--pairs-length", "6", "--model", "data/addition"],
    /--pairs-length without --pairs/,
  ],
  ["pairs without a model", ["--pairs", "x.jsonl"], /Cannot use --pairs without --model/],
  [
    "a task and pairs",
    ["--task", "copy", "--pairs", "x", "--model", "data/addition"],
    /--task and --pairs at once/,
  ],
  [
    "a model beside itself",
    ["--task", "addition", "--model", "data/addition", "--against", "./data/addition/"],
    /Cannot compare data\/addition with itself/,
  ],
  [
    "models of two shapes",
    ["--task", "addition", "--model", "data/addition", "--against", "data/english-sparse"],
    /as layers differ: 4 and 3/,
  ],
  [
    "models of two families",
    ["--task", "addition", "--model", "data/addition", "--against", "tests/fixtures/families/llama"],
    /as family differ: gpt2 and llama/,
  ],
];

/** No machine has it: a command that opens a device leaves with 4. */
const NO_DEVICE = ["--gpu", "Voodoo 2"];

/** Lines of pairs that the addition models read. */
const sums = (count: number): string[] =>
  Array.from(
    { length: count },
    (_, n) =>
      JSON.stringify({ clean: `${n + 11}+20=`, corrupted: `${n + 12}+30=`, answers: ["1"], wrong: ["2"] }),
  );

Deno.test("circuits: pairs and models are read and checked before a device is opened", async () => {
  await using folder = await temporaryFolder();
  const pairs = join(folder.path, "sums.jsonl");
  const refused = async (args: string[]): Promise<[number, string]> => {
    const { code, stderr } = await run([...args, "--runs", join(folder.path, "runs"), ...NO_DEVICE]);
    return [code, stderr];
  };
  const ofFile = ["--pairs", pairs, "--model", "data/addition"];
  assertEquals((await refused(ofFile))[0], 3, "there is no such file");
  await Deno.writeTextFile(pairs, [...sums(40), '{"clean": "12+3="}'].join("\n"));
  const [code, told] = await refused(ofFile);
  assertEquals(code, 3, told);
  assertStringIncludes(told, "sums.jsonl, line 41, as clean and corrupted must be text");
  assertEquals((await refused([...ofFile, "--prompts", "40"]))[0], 4, "what is not taken is not looked at");
  const shapes = ["--task", "addition", "--model", "data/addition", "--against", "data/english-sparse"];
  assertEquals((await refused(shapes))[0], 3);
});

Deno.test("circuits: all pairs of a file are taken, and of --prompts it is told how many are left out", async () => {
  await using folder = await temporaryFolder();
  const [model, pairs] = [join(folder.path, "tiny"), join(folder.path, "sums.jsonl")];
  await writeTinyModel(model);
  await Deno.writeTextFile(pairs, sums(40).join("\n"));
  const said = async (name: string, args: string[]): Promise<[string, number[]]> => {
    const runs = join(folder.path, "runs");
    const { code, stderr } = await run([
      "--pairs",
      pairs,
      "--model",
      model,
      "--runs",
      runs,
      "--name",
      name,
      ...args,
    ]);
    assertEquals(code, 0, stderr);
    const { prompts, left_out } = JSON.parse(await Deno.readTextFile(join(runs, name, "circuits.json")));
    return [stderr, [prompts, left_out]];
  };
  const [all, counts] = await said("all", []);
  assertStringIncludes(all, "sums: 40 pairs of prompts of 6 tokens");
  assertEquals(counts, [40, 0]);
  const [some, fewer] = await said("some", ["--prompts", "4"]);
  assertStringIncludes(some, "sums: the first 4 of 40 pairs (--prompts) of prompts of 6 tokens");
  assertEquals(fewer, [4, 36]);
  const page = async (name: string) =>
    await Deno.readTextFile(join(folder.path, "runs", name, "circuits.html"));
  assertStringIncludes(await page("some"), "The first 4 of 40 pairs of prompts");
  const shorter = { clean: "1+20=", corrupted: "2+30=", answers: ["1"], wrong: ["2"] };
  await Deno.writeTextFile(pairs, [JSON.stringify(shorter), ...sums(6)].join("\n"));
  const [ofLength] = await said("length", ["--pairs-length", "6", "--prompts", "5"]);
  assertStringIncludes(
    ofLength,
    "sums: the first 5 of 6 pairs (--prompts) (1 of other lengths left out) of prompts of 6 tokens",
  );
  assertStringIncludes(
    await page("length"),
    "The first 5 of 6 pairs (1 of other lengths left out) of prompts",
  );
});

for (const [what, args, message] of REFUSED) {
  Deno.test(`circuits: ${what} is refused in one line, and no run is left`, async () => {
    await using folder = await temporaryFolder();
    const { code, stdout, stderr } = await run([...args, "--runs", folder.path]);
    assert(code === 2 || code === 3, stderr);
    assertEquals(stdout, "");
    const errors = stderr.split("\n").filter((line) =>
      line.startsWith("error: Cannot") || line.startsWith("error: Unknown")
    );
    assertEquals(errors.length, 1, stderr);
    assertMatch(errors[0], message);
    assertEquals((await Array.fromAsync(Deno.readDir(folder.path))).length, 0);
  });
}

Deno.test("circuits: the addition model's circuit ends in a line of JSON, Arrow tables and a page that is served", async () => {
  await using folder = await temporaryFolder();
  // deno-fmt-ignore
  const { code, stdout, stderr } = await run(["--task", "addition", "--model", "data/addition", "--prompts", "4",
    "--method", "eap", "--runs", folder.path, "--name", "run", "--json"]);
  assertEquals(code, 0, stderr);
  const line = JSON.parse(stdout);
  const [dense] = line.models;
  assertEquals([line.task, line.models.length, dense.name, line.ratio], ["addition", 1, "dense", null]);
  assertEquals(dense.performance, 1);
  assert(dense.n90_edges >= 10 && dense.n90_edges <= 479, stdout);
  assert(dense.n90_heads >= 1 && dense.n90_heads <= 16, stdout);
  const path = join(folder.path, "run");
  const results = JSON.parse(await Deno.readTextFile(join(path, "circuits.json")));
  assertEquals(results.models[0].circuit.nodes.length, 21);
  assertEquals(results.models[0].circuit.curve.at(-1).faithfulness.toFixed(4), "1.0000");
  assertEquals(tableFromIPC(await Deno.readFile(join(path, "edges.arrow"))).numRows, 479);
  const runs = openRuns(folder.path);
  const [overview] = await runs.list();
  assertEquals([overview.name, overview.command, overview.status, overview.problem], [
    "run",
    "circuits",
    "finished",
    null,
  ]);
  const view = (await runs.view("run"))!;
  assertEquals((await runs.detail(view)).reports.map(({ file }) => file), ["circuits.html"]);
  const report = (await runs.report(view, "circuits.html"))!;
  assertStringIncludes(await new Response(report.open()).text(), "addition");
});

Deno.test("circuits: one pair by flags gives circuit, page and tables, and says what one pair does not tell", async () => {
  await using folder = await temporaryFolder();
  // deno-fmt-ignore
  const { code, stdout, stderr } = await run([...PAIR, "--model", "data/addition-sparse", "--method", "eap", "--runs",
    folder.path, "--name", "run"]);
  assertEquals(code, 0, stderr);
  assertStringIncludes(stderr, 'prompt: 1 pair of prompts of 6 tokens, such as "12+34="');
  assertStringIncludes(
    stdout,
    "of the effect on the one pair, which also chose the circuit, the sparse model needs",
  );
  const path = join(folder.path, "run");
  const { models: [{ performance, circuit, token_circuits }], split, prompts } = JSON.parse(
    await Deno.readTextFile(join(path, "circuits.json")),
  );
  assertEquals([prompts, split, performance.correct], [1, null, 1]);
  assertEquals(circuit.stability, { resampled: null, templates: null, held_out: null });
  const { value, low, high } = circuit.n90_edges;
  assert(value >= 1 && value <= 479, stdout);
  assertEquals([low, high], [null, null]);
  assertEquals(circuit.ablations.map(({ ablation }: { ablation: string }) => ablation), ["resample", "zero"]);
  assertEquals(tableFromIPC(await Deno.readFile(join(path, "edges.arrow"))).numRows, 479);
  const ofTokens = tableFromIPC(await Deno.readFile(join(path, "token_edges.arrow"))).toArray();
  assertEquals(
    [ofTokens.length, ofTokens.filter(({ on_path }) => on_path).length],
    [token_circuits.open, token_circuits.on_paths],
  );
  assert(ofTokens.some(({ effect }) => effect > 0.1), "some edge carries the answer");
  const page = await Deno.readTextFile(join(path, "circuits.html"));
  for (
    const said of [
      "what makes &quot;12+34=&quot; go on with &quot;6&quot; and not with &quot;1&quot;; corrupted to &quot;50+21=&quot;",
      "cannot be measured",
      "nothing here says how the circuit does on another prompt",
    ]
  ) assertStringIncludes(page, said);
  assert(!/draw(ing)? the prompts anew|prompts drawn anew/.test(page), "there are no others to draw");
});

Deno.test("circuits: two dense models are set beside each other by their names", async () => {
  await using folder = await temporaryFolder();
  const twin = join(folder.path, "twin");
  await Deno.mkdir(twin);
  for (const file of ["config.json", "model.safetensors", "tokenizer.json"]) {
    await Deno.copyFile(join(ROOT, "data/addition", file), join(twin, file));
  }
  // deno-fmt-ignore
  const { code, stdout, stderr } = await run(["--task", "addition", "--model", "data/addition", "--against", twin,
    "--prompts", "4", "--method", "eap", "--runs", join(folder.path, "runs"), "--name", "run", "--json"]);
  assertEquals(code, 0, stderr);
  const { models: [first, second], ratio } = JSON.parse(stdout);
  assertEquals([first.name, second.name], ["addition", "twin"]);
  assertEquals([first.gated, second.gated, ratio.edges.value], [false, false, 1]);
  assertEquals(second.n90_edges, first.n90_edges);
  const edges = tableFromIPC(await Deno.readFile(join(folder.path, "runs/run/edges.arrow"))).toArray();
  assertEquals([...new Set(edges.map(({ model }) => model))], [first.name, second.name]);
});

Deno.test("circuits: a model that cannot do the task is told so, and gets no circuit", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  // deno-fmt-ignore
  const { code, stdout, stderr } = await run(["--task", "addition", "--model", model, "--prompts", "8", "--runs",
    join(folder.path, "runs"), "--json"]);
  assertEquals(code, 0, stderr);
  const [{ able, n90_edges }] = JSON.parse(stdout).models;
  assertEquals([able, n90_edges], [false, null]);
  assertMatch(
    stderr,
    /tiny does not do addition well enough: [\d.]+ % of answers right, where --least-accuracy asks for 60\.0 %; no circuit/,
  );
});

Deno.test({
  name:
    "circuits: a Qwen3 with grouped queries gets a circuit of the pairs that it can do, with inputs by key head",
  // The device's own handles end with the process.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    await using folder = await temporaryFolder();
    const [model, pairs] = [join(folder.path, "qwen3"), join(folder.path, "said.jsonl")];
    const choices = await choicesOf("qwen3");
    await writeTinyModel(model, { keyValueHeads: 1, headSize: 6, ...choices });
    using loaded = await loadModel(model);
    const said = async (prompt: string): Promise<string> => {
      const { values } = (await loaded.run(prompt)).logits;
      return loaded.tokenizer.decode([values.indexOf(Math.max(...values))]);
    };
    const lines: string[] = [];
    for (let n = 0; lines.length < 6; n++) {
      const [clean, corrupted] = [`${n + 11}+${n + 20}=`, `${90 - n}+${79 - n}=`];
      const [right, wrong] = [await said(clean), await said(corrupted)];
      if (right === wrong) continue;
      lines.push(JSON.stringify({ clean, corrupted, answers: [right], wrong: [wrong] }));
    }
    await Deno.writeTextFile(pairs, lines.join("\n"));
    // deno-fmt-ignore
    const { code, stdout, stderr } = await run(["--pairs", pairs, "--model", model, "--method", "eap", "--runs",
      join(folder.path, "runs"), "--name", "run", "--json"]);
    assertEquals(code, 0, stderr);
    const [dense] = JSON.parse(stdout).models;
    assertEquals([dense.able, dense.performance], [true, 1]);
    assert(dense.n90_edges >= 1 && dense.n90_edges <= 36, stdout);
    const edges = tableFromIPC(await Deno.readFile(join(folder.path, "runs/run/edges.arrow")));
    // Two queries, a key and a value, and an MLP a layer; the logits.
    assertEquals(edges.numRows, 4 + 3 + 4 * 4 + 6 + 7);
  },
});
