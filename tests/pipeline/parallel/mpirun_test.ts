/** Ranks that are processes, by Open MPI and MPICH: a run's bits, and what becomes of it when a rank fails. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { isThere, playRankKills, untilIn } from "../../hostile/rank_kills.ts";
import { outcome, SMALL_RUN } from "../../hostile/kills.ts";
import { MPICH, OPEN_MPI, type RankArguments, runRanks } from "../../support/mpirun.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { ADDITION, runMain, writeTinyModel } from "../../support/tiny_model.ts";

const ignore = OPEN_MPI === undefined;

/** A folder of runs with a tiny model, and the arguments of a run of 20 steps in it. */
async function site(): Promise<
  AsyncDisposable & { path: string; run(name: string): string[]; mark: string }
> {
  const folder = await temporaryFolder();
  const model = join(folder.path, "tiny");
  await writeTinyModel(model);
  const settings = ["--model", model, ...SMALL_RUN, "--no-autotune", "--no-control", "--runs", folder.path];
  return {
    path: folder.path,
    mark: folder.path,
    run: (name) => ["sparsify", ...settings, "--name", name],
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

/** Errors that ranks told, each once. */
const errorsIn = (stderr: string): string[] =>
  [...stderr.matchAll(/^error: (.*)$/gm)].map(([, error]) => error);

Deno.test({
  name:
    "with mpirun before it the task runs as ranks, to the same bits by either MPI, and each rank but the first has a log",
  ignore,
  async fn() {
    await using folder = await site();
    const { mark } = folder;
    const open = await runRanks(OPEN_MPI!, 2, folder.run("open"), { mark, byTask: true });
    assertEquals(open.code, 0, open.stderr);
    assertEquals(open.stdout.match(/^sparse/gm)?.length, 1, open.stdout);
    assertStringIncludes(open.stderr, "2 ranks by Open MPI");
    assertMatch(open.stderr, /rank 1: .* on /);
    const bits = await outcome(join(folder.path, "open"));
    assertEquals(bits.rows.length, 20);
    assertEquals(JSON.parse(await Deno.readTextFile(join(folder.path, "open", "config.json"))).ranks, 2);
    assertStringIncludes(await Deno.readTextFile(join(folder.path, "open", "rank-1.log")), "rank 1, ");
    // Each rank keeps the moments of its share alone, and the checkpoint all.
    const args = [...folder.run("divided"), "--shard-optimizer"];
    const divided = await runRanks(OPEN_MPI!, 2, args, { mark });
    assertEquals(divided.code, 0, divided.stderr);
    assertEquals(await outcome(join(folder.path, "divided")), bits);
    if (!MPICH) return;
    const mpich = await runRanks(MPICH, 2, folder.run("mpich"), { mark });
    assertEquals(mpich.code, 0, mpich.stderr);
    assertStringIncludes(mpich.stderr, "2 ranks by MPICH");
    assertEquals(await outcome(join(folder.path, "mpich")), bits);
  },
});

Deno.test({
  name:
    "layers that are divided among ranks give the bits of one process, in two pipelines those of two ranks, and any goes on from any",
  ignore,
  async fn() {
    await using folder = await site();
    const { mark } = folder;
    const outcomeOf = (name: string) => outcome(join(folder.path, name));
    const alone = await runMain(folder.run("alone"));
    assertEquals(alone.code, 0, alone.stderr);
    const bits = await outcomeOf("alone");
    const stages = ["--stages", "2"];
    const staged = await runRanks(OPEN_MPI!, 2, [...folder.run("staged"), ...stages], { mark, byTask: true });
    assertEquals(staged.code, 0, staged.stderr);
    assertEquals(await outcomeOf("staged"), bits);
    const checkpoint = join(folder.path, "stopped", "checkpoints", "sparse-0000005.safetensors");
    const stopped = await runRanks(OPEN_MPI!, 2, [...folder.run("stopped"), ...stages], {
      mark,
      async meanwhile(ranks) {
        await untilIn(ranks, () => isThere(checkpoint));
        await ranks.send("SIGTERM", 1);
      },
    });
    assertEquals(stopped.code, 130, stopped.stderr);
    const resume = ["sparsify", "--resume", "stopped", "--runs", folder.path];
    const refused = await runMain(resume);
    assertEquals(refused.code, 2, refused.stderr);
    assertStringIncludes(refused.stderr, "Cannot use --stages 2 as the number of ranks");
    const gone = await runMain([...resume, "--stages", "1"]);
    assertEquals(gone.code, 0, gone.stderr);
    assertEquals(await outcomeOf("stopped"), bits);
    const adapters = ["--lora", "4", "--frozen", "f16", "--dtype", "f16", "--recompute"];
    const lora = await runMain([...folder.run("lora"), ...adapters]);
    assertEquals(lora.code, 0, lora.stderr);
    const stagedLora = await runRanks(OPEN_MPI!, 2, [...folder.run("staged-lora"), ...adapters, ...stages], {
      mark,
    });
    assertEquals(stagedLora.code, 0, stagedLora.stderr);
    assertEquals(await outcomeOf("staged-lora"), await outcomeOf("lora"));
    const two = await runRanks(OPEN_MPI!, 2, folder.run("two"), { mark });
    assertEquals(two.code, 0, two.stderr);
    const args = [...folder.run("both"), ...stages, "--shard-optimizer"];
    const both = await runRanks(MPICH ?? OPEN_MPI!, 4, args, { mark });
    assertEquals(both.code, 0, both.stderr);
    assertEquals(await outcomeOf("both"), await outcomeOf("two"));
  },
});

Deno.test({
  name: "a model is evaluated by ranks that share its batches to the figures of one process, told once",
  ignore,
  async fn() {
    await using folder = await site();
    const model = join(folder.path, "tiny");
    // deno-fmt-ignore
    const args = ["evaluate", "--model", model, "--data", ADDITION.data, "--context", "8", "--batch", "4",
      "--split", "all", "--eval-tokens", "200", "--json"];
    const alone = await runMain(args);
    assertEquals(alone.code, 0, alone.stderr);
    const ranks = await runRanks(OPEN_MPI!, 3, args, { mark: folder.mark });
    assertEquals(ranks.code, 0, ranks.stderr);
    assertEquals(JSON.parse(ranks.stdout), JSON.parse(alone.stdout));
    assertStringIncludes(ranks.stderr, "3 ranks by Open MPI");
    // What rank 0 finds wrong before the others are needed ends them too.
    const wrong = await runRanks(OPEN_MPI!, 2, [...args, "--context", "9999"], { mark: folder.mark });
    assertEquals(wrong.code, 3, wrong.stderr);
    assertEquals(errorsIn(wrong.stderr).length, 1, wrong.stderr);
    const help = await runRanks(OPEN_MPI!, 2, ["evaluate", "--help"], { mark: folder.mark });
    assertEquals([help.code, help.stdout.match(/^Usage/gm)?.length], [0, 1], help.stderr);
  },
});

Deno.test({
  name: "ranks that cannot work together refuse to begin, say why once, and leave nothing behind",
  ignore,
  async fn() {
    await using folder = await site();
    const { mark } = folder;
    const others: [string, number, number, (rank: number) => RankArguments][] = [
      [
        "rank 0: Cannot begin as rank 1 must have the settings of rank 0: --seed 2, and --seed 1 at rank 0",
        2,
        2,
        (rank) => ({ args: [...folder.run("refused"), "--seed", String(rank + 1)] }),
      ],
      [
        "rank 0: Cannot divide a step among 3 ranks as its rows, --batch 16 times --accumulate 2, must be a multiple of 3: 32",
        3,
        2,
        () => ({ args: folder.run("refused") }),
      ],
      [
        "rank 0: Cannot use --stages 3 as the model has fewer layers: 2",
        3,
        2,
        () => ({ args: [...folder.run("refused"), "--stages", "3"] }),
      ],
      [
        "rank 0: Cannot load nowhere-to-be-found as it is not in the cache",
        2,
        3,
        () => ({ args: [...folder.run("refused"), "--model", "nowhere-to-be-found"] }),
      ],
      [
        "rank 1: Cannot open a GPU as WebGPU requires",
        2,
        4,
        (rank) => ({
          args: folder.run("refused"),
          // There is none on Linux.
          env: rank === 1 ? ["DENO_WEBGPU_BACKEND=dx12"] : [],
        }),
      ],
      [
        "Cannot use --mpi /nowhere.so as it must be an MPI library",
        2,
        2,
        () => ({ args: [...folder.run("refused"), "--mpi", "/nowhere.so"] }),
      ],
    ];
    for (const [said, size, exitCode, argsOf] of others) {
      const { code, stderr } = await runRanks(OPEN_MPI!, size, argsOf, { mark });
      assertStringIncludes(errorsIn(stderr)[0] ?? stderr, said);
      assertEquals(code, exitCode, stderr);
      assertEquals(await isThere(join(folder.path, "refused", "config.json")), false, said);
    }
  },
});

Deno.test({
  name:
    "a rank that dies ends all, with what was saved named; asked to stop, any rank brings all to a checkpoint",
  ignore,
  async fn() {
    await using folder = await site();
    const { mark } = folder;
    const whole = await runRanks(OPEN_MPI!, 2, folder.run("whole"), { mark });
    assertEquals(whole.code, 0, whole.stderr);
    const run = join(folder.path, "disturbed");
    const checkpoint = (step: number) =>
      join(run, "checkpoints", `sparse-${String(step).padStart(7, "0")}.safetensors`);
    const resume = ["sparsify", "--resume", "disturbed", "--runs", folder.path];
    const stopped = await runRanks(OPEN_MPI!, 2, folder.run("disturbed"), {
      mark,
      async meanwhile(ranks) {
        await untilIn(ranks, () => isThere(checkpoint(5)));
        await ranks.send("SIGTERM", 1);
      },
    });
    assertEquals(stopped.code, 130, stopped.stderr);
    assertStringIncludes(stopped.stderr, "stopped; go on by: deno task sparsify --resume disturbed");
    assertEquals(errorsIn(stopped.stderr), []);
    const died = await runRanks(OPEN_MPI!, 2, resume, {
      mark,
      async meanwhile(ranks) {
        await untilIn(ranks, () => isThere(checkpoint(15)));
        await ranks.send("SIGKILL", 1);
      },
    });
    assert(died.code !== 0, died.stderr);
    assertMatch(
      died.stderr,
      /saved so far: step \d+ of the sparse phase; go on by: deno task sparsify --resume/,
    );
    const ended = await runRanks(OPEN_MPI!, 2, resume, { mark });
    assertEquals(ended.code, 0, ended.stderr);
    assertEquals(await outcome(run), await outcome(join(folder.path, "whole")));
  },
});

Deno.test({
  name: "a rank that hangs is named after the limit, and all end",
  ignore,
  async fn() {
    await using folder = await site();
    const { code, stderr } = await runRanks(OPEN_MPI!, 2, [...folder.run("hung"), "--rank-limit", "0.1"], {
      mark: folder.mark,
      async meanwhile(ranks) {
        await untilIn(ranks, () => isThere(join(folder.path, "hung", "checkpoints")));
        await ranks.send("SIGSTOP", 1);
      },
    });
    assertEquals(code, 1, stderr);
    assertMatch(
      errorsIn(stderr)[0],
      /^rank 0: Cannot go on as (rank 1|a rank) did not come to .* within 0.1 minutes of the others/,
    );
    assertStringIncludes(errorsIn(stderr)[0], "go on by deno task sparsify --resume hung");
  },
});

Deno.test({
  name: "whichever rank is killed, and whenever, a run ends with the bits of one that was not",
  ignore,
  async fn() {
    const { kills, runs } = await playRankKills(OPEN_MPI!, { kills: 3, size: 2, seed: 4 });
    assertEquals([kills, runs >= 1], [3, true]);
  },
});
