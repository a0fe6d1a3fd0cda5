/** Runs that are steered from outside. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "node:path";
import {
  openControl,
  readControl,
  readSlackChanges,
  requestControl,
  type SlackChange,
} from "../../../pipeline/runs/control.ts";
import { UserError } from "../../../pipeline/errors.ts";
import { readMetrics } from "../../../pipeline/runs/metrics.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION, runMain, writeTinyModel } from "../../support/tiny_model.ts";

const NEVER = new AbortController().signal;

async function opened(run: string) {
  const told: string[] = [];
  const control = await openControl({
    id: "a run",
    run,
    onPause: (paused) => void told.push(paused ? "paused" : "going on"),
    onSlack: ({ step, slack }) => told.push(`slack ${slack} at ${step}`),
    onProblem: (message) => told.push(`problem: ${message}`),
  });
  const before = (step: number, constrained = true, signal = NEVER) =>
    control.beforeStep({ phase: "sparse", step, constrained }, signal);
  return { control, told, before };
}

/** Waits until a run's wishes have been looked at so many times more. */
function lookedAt(run: string, times: number): Promise<void> {
  const { stat } = Deno;
  return new Promise((resolve) => {
    Deno.stat = (path) => {
      if (path === join(run, "control.json") && --times < 0) {
        Deno.stat = stat;
        resolve();
      }
      return stat(path);
    };
  });
}

Deno.test("without a wish nothing happens; wishes add up", async () => {
  await using folder = await temporaryFolder();
  const { before, told } = await opened(folder.path);
  assertEquals(await before(0), { stop: false });
  assertEquals(await readControl(folder.path), { paused: false, stop: false, slack: null });
  await requestControl(folder.path, { slack: 0.5 });
  assertEquals(await requestControl(folder.path, { stop: true }), { paused: false, stop: true, slack: 0.5 });
  assertEquals(await before(1), { stop: true });
  assertEquals(told, ["slack 0.5 at 1"]);
});

Deno.test("a paused run waits until it may go on, is to stop, or is ended", async () => {
  await using folder = await temporaryFolder();
  const { before, told } = await opened(folder.path);
  const within = async (step: Promise<{ stop: boolean }>) =>
    await Promise.race([step, lookedAt(folder.path, 5).then(() => "waits")]);
  await requestControl(folder.path, { paused: true });
  const waiting = before(0);
  assertEquals(await within(waiting), "waits");
  await requestControl(folder.path, { paused: false });
  assertEquals(await waiting, { stop: false });
  await requestControl(folder.path, { paused: true });
  const stopped = before(1);
  assertEquals(await within(stopped), "waits");
  await requestControl(folder.path, { stop: true });
  assertEquals(await stopped, { stop: true });
  await requestControl(folder.path, { paused: true, stop: false });
  const ended = new AbortController();
  const last = before(2, true, ended.signal);
  assertEquals(await within(last), "waits");
  ended.abort();
  assertEquals(await last, { stop: false });
  assertEquals(told, ["paused", "going on", "paused", "going on", "paused", "going on"]);
});

Deno.test("slack holds from its step on, only where there is a constraint, and is followed again after a resume", async () => {
  await using folder = await temporaryFolder();
  const first = await opened(folder.path);
  await first.before(0);
  await requestControl(folder.path, { slack: 0.1 });
  await first.before(5, false);
  assertEquals(first.told, [], "a phase without a constraint has no slack");
  await first.before(6);
  await first.before(7);
  await requestControl(folder.path, { slack: 0.2 });
  await first.before(9);
  const journal: SlackChange[] = [{ phase: "sparse", step: 6, slack: 0.1 }, {
    phase: "sparse",
    step: 9,
    slack: 0.2,
  }];
  assertEquals(await readSlackChanges(folder.path), journal);

  // Resumed from step 4: the steps up to 9 are decided, whatever is wished now.
  await requestControl(folder.path, { slack: 0.3 });
  const again = await opened(folder.path);
  for (let step = 4; step < 9; step++) await again.before(step);
  assertEquals([4, 6, 8, 9].map((step) => again.control.slackAt("sparse", step)), [undefined, 0.1, 0.1, 0.2]);
  assertEquals(again.control.slackAt("control", 9), undefined);
  assertEquals(again.told, []);
  await again.before(9);
  assertEquals(again.told, ["slack 0.3 at 9"]);
});

Deno.test("a resumed run forgets that it was paused or stopped, and keeps the slack", async () => {
  await using folder = await temporaryFolder();
  await requestControl(folder.path, { paused: true, stop: true, slack: 0.1 });
  const { before } = await opened(folder.path);
  assertEquals(await before(0), { stop: false });
  assertEquals(await readControl(folder.path), { paused: false, stop: false, slack: 0.1 });
});

Deno.test("a wish that cannot be read is told once, and what was wanted before goes on", async () => {
  await using folder = await temporaryFolder();
  const { before, told } = await opened(folder.path);
  for (const [n, content] of ["{", '{"paused":1}', '{"slack":"much"}', '{"slack":1000}'].entries()) {
    const path = join(folder.path, "control.json");
    await Deno.writeTextFile(path, content);
    // Another time stamp than the last.
    await Deno.utime(path, n, n);
    assertEquals(await before(2 * n), { stop: false });
    assertEquals(await before(2 * n + 1), { stop: false });
    assertEquals(told.length, n + 1, told.join("\n"));
    await assertRejects(() => readControl(folder.path), UserError, "control.json");
  }
});

Deno.test("a run is paused, given more slack, stopped, resumed to the same bits, and finished", async () => {
  await using folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  // deno-fmt-ignore
  const settings = ["--model", model, "--data", ADDITION.data, "--context", "8", "--batch", "16", "--steps", "30",
    "--warmup", "5", "--lr", "0.01", "--no-control", "--eval-every", "10", "--checkpoint-every", "10",
    "--validation-tokens", "512", "--eval-tokens", "512", "--slack", "0.5", "--runs", folder.path];
  const run = join(folder.path, "steered");
  const state = async () => JSON.parse(await Deno.readTextFile(join(run, "state.json"))).state;
  const until = async (wanted: string) => {
    for (let n = 0; n < 12_000; n++) {
      if (await state().catch(() => "") === wanted) return;
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
    throw new Error(`not ${wanted} within five minutes`);
  };

  let goesOn: Promise<void> | undefined;
  const { code, stderr } = await runMain(["sparsify", ...settings, "--name", "steered"], {
    hold: [
      // Before the first step.
      { when: "dense loss", meanwhile: async () => void await requestControl(run, { paused: true }) },
      {
        when: "paused from outside",
        meanwhile() {
          goesOn = (async () => {
            await until("paused");
            await requestControl(run, { slack: 0.75 });
            await requestControl(run, { paused: false });
          })();
        },
      },
      {
        when: "slack 0.75 from step",
        async meanwhile() {
          await until("training");
          await requestControl(run, { stop: true });
        },
      },
    ],
  });
  await goesOn;
  assertEquals([code, await state()], [130, "stopped"], stderr);

  const second = await runMain(["sparsify", "--resume", "steered", "--runs", folder.path]);
  assertEquals([second.code, await state()], [0, "finished"], second.stderr);
  const [{ step: changedAt, slack }] = await readSlackChanges(run);
  assertEquals(slack, 0.75);
  const { dense_validation_ce, target_loss } = JSON.parse(await Deno.readTextFile(join(run, "summary.json")));
  assert(Math.abs(target_loss - dense_validation_ce - 0.75) < 1e-9);
  for (const { step, target } of await readMetrics(join(run, "metrics.arrows"))) {
    // Rows count steps done, from 1; the journal counts them from 0.
    const expected = dense_validation_ce + (step - 1 >= changedAt ? 0.75 : 0.5);
    assert(Math.abs(target! - expected) < 1e-6, `step ${step}`);
  }
});
