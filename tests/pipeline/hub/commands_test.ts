/**
 * The commands with what they are given by name on the hub, and what they may reach without it.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { ServedRepository } from "../../support/hub_server.ts";
import { commitOf, startHub } from "../../support/hub_server.ts";
import { dataSet } from "../../support/hub_files.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION, runMain, writeTinyModel } from "../../support/tiny_model.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;
const NO_DEVICE = ["--gpu", "Voodoo 2"];

/** The tiny model of the tests as a repository. */
async function tinyModel(): Promise<ServedRepository> {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "model");
  await writeTinyModel(model);
  const files: Record<string, Uint8Array> = {};
  for await (const { name } of Deno.readDir(model)) files[name] = await Deno.readFile(join(model, name));
  return { kind: "model", name: "owner/tiny", revisions: { main: files } };
}

const hubOf = ({ endpoint }: { endpoint: string }, home: string) => ({
  HF_ENDPOINT: endpoint,
  HF_HOME: home,
  HF_HUB_OFFLINE: "0",
});

Deno.test("sparsify takes model and data from the hub, begins with the first file, and goes on from the cache", async () => {
  const model = await tinyModel();
  const data = await dataSet();
  await using folder = await temporaryFolder();
  const home = join(folder.path, "hf");
  const runs = join(folder.path, "runs");
  const sparsify = (model: string, data: string, name: string, env: Record<string, string>) =>
    runMain([
      ...["sparsify", "--model", model, "--data", data, "--context", "8", "--batch", "16", "--steps", "40"],
      ...["--validation-tokens", "40", "--eval-tokens", "40", "--no-control", "--no-autotune"],
      ...["--runs", runs, "--name", name],
    ], { env });
  const hub = startHub([model, data]);
  const first = await sparsify("owner/tiny", "hf:owner/data", "first", hubOf(hub, home));
  assertEquals(first.code, 0, first.stderr);
  assertStringIncludes(first.stderr, "more of the data is fetched and tokenised while the model learns");
  // 640 rows of 8 are more than the first file's, and less than the first two's.
  const fetched = [...hub.sent.keys()].filter((path) => path.endsWith(".parquet"));
  assertEquals(fetched, ["default/train/0000.parquet", "default/train/0001.parquet"]);
  const config = JSON.parse(await Deno.readTextFile(join(runs, "first", "config.json")));
  const modelName = `owner/tiny@${commitOf(model.revisions.main)}`;
  assertEquals(config.settings.model, modelName);
  assertEquals(config.settings.data, [
    `hf:owner/data@${commitOf(data.revisions["refs/convert/parquet"])}:default/train`,
  ]);
  const summary = JSON.parse(await Deno.readTextFile(join(runs, "first", "summary.json")));
  assertEquals(summary.model, modelName);
  await hub[Symbol.asyncDispose]();
  // By the whole names nobody has to be asked: the same run, to the same bits.
  const [dataName] = config.settings.data;
  const offline = { ...hubOf(hub, home), HF_HUB_OFFLINE: "1" };
  const again = await sparsify(modelName, dataName, "again", offline);
  assertEquals(again.code, 0, again.stderr);
  const resumed = await runMain(["sparsify", "--resume", "first", "--runs", runs], { env: offline });
  assertEquals(resumed.code, 0, resumed.stderr);
  assertStringIncludes(resumed.stderr, "nothing is left to do");
  const other = JSON.parse(await Deno.readTextFile(join(runs, "again", "summary.json")));
  assertEquals(other.sparse.ce, summary.sparse.ce);
});

Deno.test("evaluate and circuits take models of the hub; what is no model is told before its weights come", async () => {
  const model = await tinyModel();
  const config = JSON.parse(new TextDecoder().decode(model.revisions.main["config.json"]));
  const other = new TextEncoder().encode(JSON.stringify({ ...config, model_type: "bert" }));
  const files = { ...model.revisions.main, "config.json": other };
  await using hub = startHub([
    model,
    await dataSet(),
    { ...model, name: "owner/bert", revisions: { main: files } },
  ]);
  await using folder = await temporaryFolder();
  const env = hubOf(hub, folder.path);
  const ofBert = await runMain(["evaluate", "--model", "owner/bert", "--data", ADDITION.data], { env });
  assertEquals(ofBert.code, 3, ofBert.stderr);
  assertStringIncludes(ofBert.stderr, "model_type");
  assertEquals([...hub.sent.keys()].filter((path) => path.includes("safetensors")), []);
  const named = ["--model", "owner/tiny", "--data", "hf:owner/data/test", "--context", "8", ...NO_DEVICE];
  const evaluated = await runMain(["evaluate", ...named], { env });
  assertEquals(evaluated.code, 4, evaluated.stderr);
  assertEquals([...hub.sent.keys()].filter((path) => path.endsWith("parquet")), [
    "default/test/0000.parquet",
  ]);
  const script = "pipeline/circuits/main.ts";
  const circuits = await runMain(["--model", "owner/tiny", "--task", "addition", ...NO_DEVICE], {
    env,
    script,
  });
  assertEquals(circuits.code, 4, circuits.stderr);
  const generated = await runMain(["--model", "owner/tiny", "--prompt", "12+34=", ...NO_DEVICE], {
    env,
    script: "pipeline/generation/main.ts",
  });
  assertEquals(generated.code, 4, generated.stderr);
  // deno-fmt-ignore
  const read = ["--model", "owner/tiny", "--data", "hf:owner/data", "--context", "8", "--tokens", "40",
    "--read", "blocks.0.hook_resid_pre", "--output", join(folder.path, "activations"), ...NO_DEVICE];
  const activations = await runMain(read, { env, script: "pipeline/activations/main.ts" });
  assertEquals(activations.code, 4, activations.stderr);
  const missing = await runMain(["evaluate", "--model", "owner/none", "--data", ADDITION.data], { env });
  assertEquals(missing.code, 3, missing.stderr);
  assertStringIncludes(missing.stderr, "has no such model, or shows it to some accounts only");
  assertStringIncludes(missing.stderr, "and there is no folder owner/none");
  // What the cache has is shown by help, which fetches nothing.
  const asked = hub.asked.length;
  const help = await runMain(["evaluate", "--model", "owner/tiny", "--help"], { env });
  assertEquals(help.code, 0, help.stderr);
  assertEquals(hub.asked.length, asked);
});

Deno.test("what a model of the hub needs is told without its weights, and they come when it is to be run", async () => {
  await using hub = startHub([await tinyModel()]);
  await using folder = await temporaryFolder();
  const env = hubOf(hub, folder.path);
  const weights = () => [...hub.sent.keys()].filter((path) => path.endsWith(".safetensors"));
  for (const command of ["sparsify", "evaluate", "plan"]) {
    const tells = command === "plan" ? [] : ["--memory"];
    const asked = [command, "--model", "owner/tiny", "--context", "8", ...tells, "--json"];
    const { code, stdout, stderr } = await runMain(asked, { env });
    assertEquals(code, 0, stderr);
    assertEquals(JSON.parse(stdout).parameters, 6928);
    assertEquals(weights(), [], command);
  }
  const run = ["evaluate", "--model", "owner/tiny", "--data", ADDITION.data, "--context", "8", ...NO_DEVICE];
  assertEquals((await runMain(run, { env })).code, 4);
  assertEquals(weights(), ["model.safetensors"]);
});

/** Runs a command with the net that its task gives it, and tells what its threads may reach. */
async function reachOf(script: string, args: string[], env: Record<string, string>): Promise<string[]> {
  const { stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      ...[
        "run",
        "--no-check",
        "--no-prompt",
        "--allow-read",
        "--allow-write",
        "--allow-env",
        "--allow-sys=statfs",
      ],
      "--allow-net=127.0.0.1,huggingface.co,*.huggingface.co,*.hf.co",
      ...["--preload", join(ROOT, "tests/support/net_probe.ts")],
      join(ROOT, script),
      ...args,
    ],
    cwd: ROOT,
    // A backend that no machine has.
    env: { NO_COLOR: "1", DENO_WEBGPU_BACKEND: "none", ...env },
    stdin: "null",
    stdout: "null",
  }).output();
  const text = new TextDecoder().decode(stderr);
  const found = [...text.matchAll(/^(.* reaches: .*)$/gm)].map(([line]) => line);
  assert(found.length > 1, text);
  return [...new Set(found)].sort();
}

const NOTHING = "prompt prompt prompt";

Deno.test("a run that names nothing of the hub cannot reach the net, whatever its task allows", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "model");
  await writeTinyModel(model);
  const runs = ["--runs", join(folder.path, "runs")];
  const data = ["--data", ADDITION.data, "--context", "8"];
  const read = ["--read", "blocks.0.hook_resid_pre"];
  const main = "pipeline/main.ts";
  const commands: [script: string, args: string[]][] = [
    [main, ["sparsify", "--model", model, ...data, ...runs]],
    [main, ["sparsify", "--model", model, ...data, ...runs, "--serve", "--port", "0"]],
    [main, ["pretrain", "--tokenizer", ADDITION.tokenizer, ...data, ...runs]],
    [main, ["evaluate", "--model", model, ...data]],
    ["pipeline/circuits/main.ts", ["--model", model, "--task", "addition", ...runs]],
    ["pipeline/generation/main.ts", ["--model", model, "--prompt", "12+34="]],
    ["pipeline/activations/main.ts", [
      "--model",
      model,
      ...data,
      ...read,
      "--output",
      join(folder.path, "out"),
    ]],
  ];
  for (const [script, args] of commands) {
    const reach = await reachOf(script, args, { HF_HUB_OFFLINE: "1" });
    assertEquals(
      reach,
      [`the command reaches: ${NOTHING}`, `the main thread reaches: ${NOTHING}`],
      args.join(" "),
    );
  }
});

Deno.test("with all that it named at hand a run gives up the net; while data may still come it keeps it", async () => {
  await using hub = startHub([await tinyModel(), await dataSet()]);
  await using folder = await temporaryFolder();
  const env = hubOf(hub, join(folder.path, "hf"));
  const args = ["sparsify", "--model", "owner/tiny", "--context", "8", "--runs", join(folder.path, "runs")];
  assertEquals(await reachOf("pipeline/main.ts", [...args, "--data", ADDITION.data], env), [
    `the command reaches: ${NOTHING}`,
    `the main thread reaches: ${NOTHING}`,
  ]);
  const held = ["--validation-tokens", "40", "--eval-tokens", "40"];
  assertEquals(await reachOf("pipeline/main.ts", [...args, ...held, "--data", "hf:owner/data"], env), [
    "the command reaches: granted granted granted",
    "the main thread reaches: granted granted granted",
  ]);
});

Deno.test("every task that takes names of the hub may reach its hosts, and HF_ENDPOINT's, and no others", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const takesModels = Object.entries<{ command: string }>(tasks).filter(([, { command }]) =>
    /pipeline\/(main\.ts (sparsify|pretrain|evaluate|plan)|(circuits|generation|benchmarks)\/main\.ts)$/.test(
      command,
    )
  );
  assertEquals(takesModels.map(([name]) => name), [
    "sparsify",
    "pretrain",
    "evaluate",
    "plan",
    "circuits",
    "generate",
    "benchmark",
  ]);
  const hosts = "$(deno run --quiet --allow-env=HF_ENDPOINT pipeline/hub/hosts.ts)";
  for (const [name, { command }] of takesModels) {
    const [, net] = /"--allow-net=([^"]*)"/.exec(command)!;
    assertEquals(net.replace("127.0.0.1,", ""), hosts, name);
  }
  const printed = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", "--allow-env=HF_ENDPOINT", "pipeline/hub/hosts.ts"],
    cwd: ROOT,
    env: { HF_ENDPOINT: "https://hub.example" },
  }).output();
  assertEquals(
    new TextDecoder().decode(printed.stdout).trim(),
    "huggingface.co,*.huggingface.co,*.hf.co,hub.example",
  );
});
