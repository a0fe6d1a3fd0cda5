/**
 * One bit flipped in a file that a resume reads: it is refused, or said, or what was read is the same to the last value.
 *
 * The run is prepared as the command prepares it, on the device, in this process; nothing is trained.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { join, relative } from "node:path";
import { requestControl } from "../../pipeline/runs/control.ts";
import { UserError } from "../../pipeline/errors.ts";
import { writeSealedJson } from "../../pipeline/files.ts";
import { readMetrics } from "../../pipeline/runs/metrics.ts";
import { openResumed, openRunModel, prepareRun } from "../../pipeline/training/prepare_run.ts";
import { bestOf } from "../../pipeline/runs/resume.ts";
import { readRunConfig } from "../../pipeline/runs/run_config.ts";
import { SPARSIFY } from "../../pipeline/settings.ts";
import { SPLITS } from "../../pipeline/text/tokenise.ts";
import { seeded } from "../support/seeded.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { additionExamples, runMain, writeTinyModel } from "../support/tiny_model.ts";

// deno-fmt-ignore
const SETTINGS = ["--context", "8", "--batch", "16", "--steps", "40", "--warmup", "0", "--lr", "0.01", "--eval-every", "4",
  "--checkpoint-every", "2", "--validation-tokens", "128", "--eval-tokens", "128", "--slack", "5", "--no-autotune",
  "--no-control"];

/** What came of the flips. */
export interface FlipsPlayed {
  refused: number;
  said: number;
  /** Taken without a word, with everything that was read the same. */
  harmless: number;
  /** Flips by file. */
  files: Map<string, number>;
}

interface Site {
  run: string;
  model: string;
  data: string;
}

/** Makes a run that was stopped with checkpoints, a best step, and a change of slack. */
async function stoppedRun(folder: string): Promise<Site> {
  const model = join(folder, "model");
  await writeTinyModel(model);
  const data = join(folder, "examples.jsonl");
  await Deno.writeTextFile(data, await additionExamples(400));
  const args = ["--model", model, "--data", data, ...SETTINGS, "--runs", folder, "--name", "run"];
  const { code, stderr } = await runMain(["sparsify", ...args], {
    hold: [{ when: "sparse 8/40", meanwhile: (send) => send("SIGTERM") }],
  });
  assertEquals(code, 130, stderr);
  const run = join(folder, "run");
  await requestControl(run, { slack: 4 });
  const { id } = await readRunConfig(join(run, "config.json"));
  const changes = [{ phase: "sparse", step: 3, slack: 5.5 }];
  await writeSealedJson(join(run, "slack.json"), { run: id, changes });
  return { run, model, data };
}

/** Everything that a resumed run takes up, and what it said meanwhile. */
async function resume(runs: string): Promise<{ taken: unknown; said: string[] }> {
  const said: string[] = [];
  const reporter = {
    plan() {},
    activity() {},
    message() {},
    warning: (text: string) => said.push(text),
    row() {},
  };
  const { resumed, settings } = await openResumed("sparsify", SPARSIFY, runs, "run", {});
  const model = await openRunModel(settings.model, { tokenizer: settings.tokenizer }).catch((error) => {
    resumed.folder.release();
    throw error;
  });
  const run = await prepareRun("sparsify", settings, model, reporter, { resumed });
  try {
    const tokens = [];
    for (const split of SPLITS) {
      const source = run.tokens[split];
      tokens.push(Array.from(await source.window(0, source.length)));
      tokens.push(Array.from(await source.countedWindow!(0, source.length)));
    }
    const checkpoint = run.resume.checkpoints.get("sparse");
    const tensors: unknown[] = [];
    if (checkpoint) {
      for (const { name, shape } of run.weights.parameters) {
        for (const set of ["weight", "first", "second"]) {
          tensors.push([...await checkpoint.read(`${set}.${name}`, shape)]);
        }
      }
    }
    const taken = {
      settings,
      tokens,
      last: run.resume.last,
      best: checkpoint && bestOf(checkpoint),
      tensors,
      rows: await readMetrics(run.folder.metrics),
      slack: [0, 3, 8].map((step) => run.control.slackAt("sparse", step)),
      wished: JSON.parse(await Deno.readTextFile(join(run.folder.path, "control.json"))).slack,
    };
    return { taken, said };
  } finally {
    run.metrics.close();
    run.gpu.close();
    run.folder.release();
  }
}

async function* filesBelow(folder: string): AsyncGenerator<string> {
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    if (isDirectory) yield* filesBelow(join(folder, name));
    else yield join(folder, name);
  }
}

async function copyFolder(from: string, to: string): Promise<void> {
  await Deno.mkdir(to);
  for await (const { name, isDirectory } of Deno.readDir(from)) {
    if (isDirectory) await copyFolder(join(from, name), join(to, name));
    else await Deno.copyFile(join(from, name), join(to, name));
  }
}

/** Files that stand in a run's folder for others to look at, and that a resume does not read. */
const NOT_READ = /(^|\/)(\.lock|state\.json|tokenizer\.json|dense\/.*)$/;

/** Flips bits at so many places, spread over all files that a resume reads, and resumes after each. */
export async function playFlips({ places, seed }: { places: number; seed: number }): Promise<FlipsPlayed> {
  await using folder = await temporaryFolder();
  const site = await stoppedRun(folder.path);
  const names = (await Array.fromAsync(filesBelow(site.run))).map((path) => relative(site.run, path))
    .filter((name) => !NOT_READ.test(name)).sort();
  const targets = [
    ...names.map((name) => join(site.run, name)),
    ...["config.json", "model.safetensors", "tokenizer.json"].map((name) => join(site.model, name)),
    site.data,
  ];
  const kept = join(folder.path, "kept");
  await copyFolder(site.run, kept);
  const expected = await resume(folder.path);
  assertEquals(expected.said, []);
  const random = seeded(seed);
  const played: FlipsPlayed = { refused: 0, said: 0, harmless: 0, files: new Map() };
  for (let place = 0; place < places; place++) {
    await Deno.remove(site.run, { recursive: true });
    await copyFolder(kept, site.run);
    const path = targets[place % targets.length];
    const name = relative(folder.path, path);
    const before = await Deno.readFile(path);
    const after = before.slice();
    const at = random.integer(before.length);
    after[at] ^= 1 << random.integer(8);
    await Deno.writeFile(path, after);
    played.files.set(name, (played.files.get(name) ?? 0) + 1);
    const where = `${name}, byte ${at} of ${before.length}`;
    try {
      const { taken, said } = await resume(folder.path);
      if (said.length > 0) played.said++;
      else {
        assertEquals(taken, expected.taken, `${where}: taken without a word`);
        played.harmless++;
      }
    } catch (error) {
      if (!(error instanceof UserError)) throw error;
      assert(!error.message.includes("\n") && error.exitCode === 3, `${where}: ${error.message}`);
      played.refused++;
    }
    await Deno.writeFile(path, before);
  }
  return played;
}
