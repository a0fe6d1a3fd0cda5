/** The commands as a user meets them: each error one line and its exit code, each result where it was promised. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { openWeights } from "../../pipeline/model/load_weights.ts";
import { saveModel } from "../../pipeline/model/save_weights.ts";
import { readMetrics } from "../../pipeline/runs/metrics.ts";
import { readRunConfig } from "../../pipeline/runs/run_config.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { ADDITION, runMain, writeTinyModel } from "../support/tiny_model.ts";

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Lines of standard error that are ours: Vulkan's loader writes some too. */
function errorLines(stderr: string): string[] {
  return stderr.split("\n").filter((line) => line.startsWith("error: ") && !line.includes("XDG_RUNTIME_DIR"));
}

const USAGE: [string, string[], RegExp][] = [
  ["an unknown command", ["sparsfy"], /Unknown command sparsfy/],
  ["an unknown flag", ["sparsify", "--step", "3"], /Unknown flag --step \(did you mean --steps\?\)/],
  ["a bad number", ["sparsify", "--steps", "many"], /--steps as it must be a number: many/],
  ["a number out of range", ["sparsify", "--steps", "0"], /--steps as it must be at least 1: 0/],
  ["a missing value", ["sparsify", "--lr"], /--lr as it must be/],
  ["a share of one process", ["evaluate", "--share-adapter"], /Cannot use --share-adapter with one process/],
  ["moments among one", ["sparsify", "--shard-optimizer"], /Cannot use --shard-optimizer with one process/],
  ["a library for one", ["pretrain", "--mpi", "/nope"], /Cannot use --mpi with one process/],
  ["a limit for one", ["evaluate", "--rank-limit", "3"], /Cannot use --rank-limit with one process/],
  ["a missing settings file", ["sparsify", "--config", "nowhere.json"], /nowhere\.json: no such file/],
  ["a run that is not there", ["sparsify", "--resume", "nowhere"], /Cannot resume nowhere/],
  ["a name that leads elsewhere", ["sparsify", "--resume", "../up"], /Cannot name a run/],
  ["pre-training without text", ["pretrain", "--tokenizer", ADDITION.tokenizer], /give --data/],
];

for (const [what, args, message] of USAGE) {
  Deno.test(`${what}: one line and exit code 2`, async () => {
    const { code, stdout, stderr } = await runMain(args);
    assertEquals([code, stdout], [2, ""], stderr);
    assertEquals(errorLines(stderr).length, 1, stderr);
    assertMatch(errorLines(stderr)[0], message);
    assert(!stderr.includes("    at "), "no stack trace");
  });
}

Deno.test("a missing model, bad weights and unreadable data: one line and exit code 3, and no run is left", async () => {
  await withFolder(async (folder) => {
    const model = join(folder, "tiny");
    await writeTinyModel(model);
    const bad = join(folder, "bad");
    await writeTinyModel(bad);
    await Deno.truncate(join(bad, "model.safetensors"), 1000);
    const empty = join(folder, "empty.txt");
    await Deno.writeTextFile(empty, "");
    const run = ["--context", "8", "--runs", folder, "--name", "run"];
    for (
      const [args, message] of [
        [["--model", join(folder, "nowhere"), "--data", ADDITION.data], "config.json: no such file"],
        [["--model", bad, "--data", ADDITION.data], "model.safetensors"],
        [["--model", model, "--data", join(folder, "nowhere.txt")], "no such file"],
        [["--model", model, "--data", empty], "empty"],
        [["--model", model, "--data", ADDITION.data, "--context", "9"], "context of 9"],
      ] as [string[], string][]
    ) {
      const { code, stderr } = await runMain(["sparsify", ...run, ...args]);
      assertEquals(code, 3, stderr);
      assertEquals(errorLines(stderr).length, 1, stderr);
      assertStringIncludes(errorLines(stderr)[0], message);
      assertEquals(await Deno.stat(join(folder, "run")).catch(() => "none"), "none");
    }
  });
});

Deno.test("a model of finite weights whose loss is no number is named, and measured by no command", async () => {
  await withFolder(async (folder) => {
    const [model, large] = [join(folder, "tiny"), join(folder, "large")];
    await writeTinyModel(model);
    const config = await readModelConfig(model);
    const weights = await openWeights(model, config);
    await saveModel(large, {
      config,
      tensors: weights.parameters.map(({ name, shape }) => ({
        name,
        shape,
        // The sum of one of its rows is infinite in float32.
        read: async () => (await weights.read(name)).map((value) => name.includes("wte") ? 3e38 : value),
      })),
      type: "F32",
      tokenizer: ADDITION.tokenizer,
    });
    const rest = ["--model", large, "--data", ADDITION.data, "--context", "8", "--batch", "16"];
    const runs = join(folder, "runs");
    const run = ["--runs", runs, "--name", "run", "--steps", "1", "--validation-tokens", "128"];
    for (
      const args of [
        ["evaluate", ...rest, "--eval-tokens", "128"],
        ["sparsify", ...rest, ...run],
      ]
    ) {
      const { code, stdout, stderr } = await runMain(args);
      assertEquals([code, stdout], [3, ""], stderr);
      const [line, ...others] = errorLines(stderr);
      assertEquals(others, []);
      assertStringIncludes(line, `error: Cannot measure ${large} as its loss on `);
      assertStringIncludes(line, " tokens must be finite: NaN; its weights may be too large for float32");
      assert(!line.includes("go on by"), line);
    }
    assertEquals(await Array.fromAsync(Deno.readDir(runs)), []);
    // What is not a number is written all the same, for whoever looks for where it begins.
    // deno-fmt-ignore
    const read = await runMain(["--model", large, "--data", ADDITION.data, "--context", "8", "--tokens", "64", "--read",
      "hook_embed,blocks.0.ln1.hook_scale,blocks.0.hook_resid_post", "--output", join(folder, "read")],
      { script: "pipeline/activations/main.ts" });
    assertEquals(read.code, 0, read.stderr);
    assertStringIncludes(
      read.stderr,
      "values of blocks.0.hook_resid_post are no number: the model's weights",
    );
    // In a folder that was there what was written goes, and the folder stays.
    await Deno.mkdir(join(runs, "run"));
    assertEquals((await runMain(["sparsify", ...rest, ...run])).code, 3);
    assertEquals(await Array.fromAsync(Deno.readDir(join(runs, "run"))), []);
    // The name is free for a model that can be measured.
    const settings = [...run, "--data", ADDITION.data, "--context", "8", "--batch", "16", "--no-control"];
    const sound = await runMain(["sparsify", "--model", model, ...settings, "--eval-tokens", "128"]);
    assertEquals(sound.code, 0, sound.stderr);
  });
});

Deno.test("every command has a help that fits a terminal", async () => {
  const fits = (stdout: string) => stdout.split("\n").filter((line) => line.length > 120);
  for (const command of ["sparsify", "pretrain", "evaluate", "train-tokenizer"]) {
    const { code, stdout } = await runMain([command, "--help"]);
    assertEquals(code, 0);
    assertStringIncludes(stdout, `Usage: deno task ${command}`);
    assertStringIncludes(stdout, "--data PATH");
    assertEquals(fits(stdout), []);
  }
  for (const room of ["circuits", "generation", "benchmarks", "sweep", "studies"]) {
    const { code, stdout } = await runMain(["--help"], { script: `pipeline/${room}/main.ts` });
    assertEquals([code, fits(stdout)], [0, []], room);
  }
});

Deno.test("every command prints its help and the version, and opens no device for it", async () => {
  const commands: [script: string | undefined, args: string[], task: string][] = [
    [undefined, ["sparsify"], "sparsify"],
    [undefined, [], "COMMAND"],
    ["pipeline/circuits/main.ts", [], "circuits"],
    ["pipeline/benchmarks/main.ts", [], "benchmark"],
    ["serve/main.ts", [], "serve"],
    ["tests/bench/main.ts", [], "bench"],
  ];
  for (const [script, args, task] of commands) {
    // Without this folder Mesa complains when it is asked for an adapter.
    const help = await runMain([...args, "--help"], { script, env: { XDG_RUNTIME_DIR: "" } });
    assertEquals([help.code, help.stderr], [0, ""], task);
    assertStringIncludes(help.stdout, `deno task ${task}`);
    const version = await runMain([...args, "--version"], { script });
    assertEquals(version.code, 0, task);
    assertMatch(version.stdout, /^sparse-attention \d+\.\d+\.\d+, Deno [\d.]+\n$/);
  }
});

Deno.test("sparsify, evaluate and resume agree: summary, saved model, and a finished run", async () => {
  await withFolder(async (folder) => {
    const model = join(folder, "tiny");
    await writeTinyModel(model);
    // deno-fmt-ignore
    const { code, stdout, stderr } = await runMain(["sparsify", "--model", model, "--data", ADDITION.data, "--context", "8",
      "--batch", "16", "--steps", "20", "--lr", "0.01", "--slack", "1", "--lambda-gain", "1.5", "--eval-every",
      "5", "--checkpoint-every", "10", "--validation-tokens", "512", "--runs", folder, "--name", "run", "--json"]);
    assertEquals(code, 0, stderr);
    const summary = JSON.parse(stdout);
    for (
      const key of [
        "dense",
        "control",
        "sparse",
        "target_loss",
        "steps",
        "tokens",
        "seconds",
        "adapter",
        "seed",
      ]
    ) {
      assert(key in summary, `summary.json has ${key}`);
    }
    assertEquals(summary, JSON.parse(await Deno.readTextFile(join(folder, "run", "summary.json"))));
    assertStringIncludes(
      await Deno.readTextFile(join(folder, "run", "report.html")),
      summary.sparse.ce.toFixed(4),
    );
    assert(summary.sparse.open_fraction < 1, "edges were closed");
    // What acts is λ exp(κ C̄) within λ's bounds; C̄ moves from the first step on.
    const rows = (await readMetrics(join(folder, "run", "metrics.arrows"))).filter(({ phase }) =>
      phase === "sparse"
    );
    const { lambdaGain, lambdaMin, lambdaMax } = (await readRunConfig(join(folder, "run", "config.json")))
      .settings as Record<string, number>;
    for (const { step, lambda, lambda_acting, constraint_average } of rows) {
      const expected = Math.min(
        lambdaMax,
        Math.max(lambdaMin, lambda! * Math.exp(lambdaGain * constraint_average!)),
      );
      assert(
        Math.abs(lambda_acting! - expected) < 1e-5 * expected,
        `step ${step}: ${lambda_acting}, ${expected}`,
      );
    }
    assert(rows.some(({ lambda, lambda_acting }) => Math.abs(lambda_acting! - lambda!) > 0.01 * lambda!));
    const evaluated = await runMain([
      "evaluate",
      "--model",
      join(folder, "run", "model"),
      "--data",
      ADDITION.data,
      "--json",
      "--batch",
      "16",
    ]);
    assertEquals(evaluated.code, 0, evaluated.stderr);
    const result = JSON.parse(evaluated.stdout);
    assertEquals(result.ce, summary.sparse.ce);
    // By the names that the summary has.
    for (
      const name of [
        "accuracy",
        "exact_rows",
        "open_fraction",
        "edges_per_query",
        "dead_queries",
        "live_heads",
      ]
    ) {
      assertEquals(result[name], summary.sparse[name], name);
    }
    assertEquals(Object.keys(result).filter((name) => /[A-Z]/.test(name)), []);
    const dense = await runMain([
      "evaluate",
      "--model",
      join(folder, "run", "model"),
      "--data",
      ADDITION.data,
      "--json",
      "--dense",
      "--batch",
      "16",
    ]);
    assertEquals(JSON.parse(dense.stdout).open_fraction, 1);
    // deno-fmt-ignore
    const tooMany = await runMain(["evaluate", "--model", model, "--data", ADDITION.data, "--batch", "2000000"]);
    assertEquals(tooMany.code, 2, tooMany.stderr);
    assertStringIncludes(tooMany.stderr, "Cannot measure with a batch of 2000000 as one activation takes");
    // deno-fmt-ignore
    const before = await runMain(["evaluate", "--model", model, "--data", ADDITION.data, "--json", "--batch", "16",
      "--split", "validation", "--eval-tokens", "512"]);
    assertEquals(JSON.parse(before.stdout).ce, summary.dense_validation_ce);
    const again = await runMain(["sparsify", "--resume", "run", "--runs", folder, "--json"]);
    assertEquals(again.code, 0, again.stderr);
    const { seconds: _, ...whole } = summary;
    const { seconds: __, ...after } = JSON.parse(again.stdout);
    assertEquals(after, whole);
    assertStringIncludes(again.stderr, "is finished");
    const other = await runMain(["sparsify", "--resume", "run", "--runs", folder, "--seed", "5"]);
    assertEquals(other.code, 2);
    assertStringIncludes(other.stderr, "--seed 5, as the run began with 1");
    const changed = await runMain(["sparsify", "--resume", "run", "--runs", folder, "--lr", "0.5"]);
    assertEquals(changed.code, 2);
    assertStringIncludes(changed.stderr, "as it is finished: begin another run");
  });
});

Deno.test("kernels that do not compile end a run in one sentence, exit code 5 and a state that says failed", async () => {
  await withFolder(async (folder) => {
    const model = join(folder, "tiny");
    await writeTinyModel(model);
    // deno-fmt-ignore
    const { code, stdout, stderr } = await runMain(
      ["sparsify", "--model", model, "--data", ADDITION.data, "--context", "8", "--batch", "16", "--steps", "1",
        "--no-control", "--no-autotune", "--runs", folder, "--name", "run"],
      { script: "tests/support/broken_shaders.ts", env: { BROKEN_ONCE: join(folder, "run", "config.json") } },
    );
    assertEquals([code, stdout], [5, ""], stderr);
    assertEquals(errorLines(stderr).length, 1, stderr);
    assertMatch(
      errorLines(stderr)[0],
      /^error: Cannot compile the shader [\w ]+: [^│;]+; go on by deno task sparsify --resume run [^;]+$/,
    );
    assert(!stderr.includes("Uncaught"), stderr);
    const { state, error } = JSON.parse(await Deno.readTextFile(join(folder, "run", "state.json")));
    assertEquals(state, "failed");
    assertStringIncludes(error, "Cannot compile the shader");
  });
});

Deno.test("every command that reads text takes it from the column that is named", async () => {
  await withFolder(async (folder) => {
    const [model, data] = [join(folder, "tiny"), join(folder, "posts.jsonl")];
    await writeTinyModel(model);
    await Deno.writeTextFile(data, JSON.stringify({ content: "12+34=46".repeat(200) }));
    const rows = ["--model", model, "--context", "8", "--batch", "16"];
    const commands = [
      ["evaluate", ...rows, "--eval-tokens", "32"],
      // deno-fmt-ignore
      ["sparsify", ...rows, "--steps", "1", "--warmup", "0", "--validation-tokens", "32", "--eval-tokens", "32", "--no-control",
        "--no-autotune", "--runs", folder, "--name", "run"],
      ["train-tokenizer", "--vocabulary", "258", "--output", join(folder, "tokenizer.json")],
    ];
    for (const [command, ...args] of commands) {
      const refused = await runMain([command, ...args, "--data", data]);
      assertEquals(refused.code, 3, refused.stderr);
      assertStringIncludes(
        refused.stderr,
        '; strings are "content": --text-column NAME takes the text from one',
      );
      const { code, stderr } = await runMain([command, ...args, "--data", data, "--text-column", "content"]);
      assertEquals(code, 0, stderr);
    }
  });
});

Deno.test("pretrain saves a model, and with --sparse one whose gates are closed", async () => {
  await withFolder(async (folder) => {
    // deno-fmt-ignore
    const settings = ["pretrain", "--data", ADDITION.data, "--tokenizer", ADDITION.tokenizer, "--layers", "1", "--heads", "2",
      "--width", "16", "--context", "8", "--batch", "16", "--steps", "12", "--eval-every", "6", "--checkpoint-every", "6",
      "--lr", "0.02", "--warmup", "2", "--validation-tokens", "512", "--eval-tokens", "512", "--runs", folder, "--json"];
    const dense = await runMain([...settings, "--name", "dense"]);
    assertEquals(dense.code, 0, dense.stderr);
    assertEquals(JSON.parse(dense.stdout).test.open_fraction, 1);
    const sparse = await runMain([...settings, "--name", "sparse", "--sparse", "--target-loss", "5"]);
    assertEquals(sparse.code, 0, sparse.stderr);
    assert(JSON.parse(sparse.stdout).test.open_fraction < 1);
    const config = JSON.parse(await Deno.readTextFile(join(folder, "sparse", "model", "config.json")));
    assertEquals(config.sparse_attention.gate, { bias: 3, temperature: 1 });
    const refused = await runMain([...settings, "--name", "auto", "--sparse"]);
    assertEquals(refused.code, 2, refused.stderr);
    assertStringIncludes(refused.stderr, "--target-loss");
  });
});

Deno.test("a run whose loss runs away says so at its end, in its report and when it is asked again, and not to go on for longer", async () => {
  await using folder = await temporaryFolder();
  // deno-fmt-ignore
  const away = await runMain(["sparsify", "--model", "data/addition", "--data", ADDITION.data, "--steps", "10",
    "--batch", "16", "--lr", "5", "--warmup", "0", "--eval-every", "5", "--validation-tokens", "128", "--eval-tokens",
    "128", "--no-control", "--no-autotune", "--runs", folder.path, "--name", "run"]);
  assertEquals(away.code, 0, away.stderr);
  assertStringIncludes(away.stderr, "warning: worse than guessing at step");
  const said = "The loss ran away. Begin another run with a lower --lr, a longer --warmup or a lower --clip.";
  assertStringIncludes(away.stdout, said);
  assert(!away.stdout.includes("more --steps"), away.stdout);
  assertStringIncludes(await Deno.readTextFile(join(folder.path, "run", "report.html")), said);
  // A perplexity without bounds is none in JSON.
  const again = await runMain(["sparsify", "--resume", "run", "--runs", folder.path]);
  assertEquals([again.code, again.stdout], [0, away.stdout], again.stderr);
});
