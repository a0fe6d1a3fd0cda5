/** What ranks must have in common before they begin, and what a launcher has told them. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { LAUNCH_VARIABLES, launchOf, librariesFor } from "../../pipeline/parallel/mpi.ts";
import type { CommandThread } from "../../pipeline/command_thread.ts";
import { createExchange } from "../../pipeline/parallel/exchange.ts";
import {
  adapterFault,
  differenceOf,
  followOnDevice,
  openGpuOfRank,
  type RankAdapter,
  shownDevice,
} from "../../pipeline/ranks.ts";
import { openCheckedGpu } from "../../pipeline/training/prepare_run.ts";
import { GPT2 } from "../support/gpt2.ts";
import { SILENT } from "../support/prepared_run.ts";
import { ranksInProcess } from "../support/ranks_in_process.ts";

const ROOT = join(import.meta.dirname!, "../..");

const variables = (values: Record<string, string>) => (name: string): string | undefined => values[name];

Deno.test("rank and size come from whatever launcher there is, and one process alone is no rank", () => {
  const openMpi = { OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_SIZE: "4" };
  assertEquals(launchOf(variables(openMpi)), { rank: 1, size: 4, by: "Open MPI" });
  assertEquals(launchOf(variables({ PMI_RANK: "2", PMI_SIZE: "3" })), { rank: 2, size: 3, by: "MPICH" });
  const slurm = { SLURM_PROCID: "0", SLURM_STEP_NUM_TASKS: "8" };
  assertEquals(launchOf(variables(slurm)), { rank: 0, size: 8, by: "Slurm" });
  assertEquals(launchOf(variables({ ...slurm, ...openMpi }))?.by, "Open MPI");
  // A batch script is one process, whatever the job has been given.
  assertEquals(launchOf(variables({ SLURM_PROCID: "0", SLURM_NTASKS: "8" })), undefined);
  assertEquals(launchOf(variables({ PMI_RANK: "0", PMI_SIZE: "1" })), undefined);
  assertEquals(launchOf(variables({ OMPI_COMM_WORLD_RANK: "x", OMPI_COMM_WORLD_SIZE: "4" })), undefined);
  assertEquals(launchOf(variables({})), undefined);
});

Deno.test("the library of the launcher's own family is looked for first", () => {
  assert(librariesFor("Open MPI")[0].startsWith("libmpi"));
  assert(librariesFor("MPICH").indexOf("libmpich.so.12") < librariesFor("MPICH").indexOf("libmpi.so.40"));
  assertEquals(new Set(librariesFor("Slurm")), new Set(librariesFor("MPICH")));
});

Deno.test("a task may call foreign libraries where a launcher has started it as one of several, and only there", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const asked = "$(deno run --quiet --allow-env pipeline/parallel/permission.ts)";
  const asking = Object.entries<{ command: string }>(tasks).filter(([, { command }]) =>
    command.includes(asked)
  );
  assertEquals(asking.map(([name]) => name), [
    "sparsify",
    "pretrain",
    "evaluate",
    "circuits",
    "benchmark",
    "sweep",
    "overlap",
  ]);
  for (const [name, { command }] of Object.entries<{ command: string }>(tasks)) {
    assert(!command.includes("--allow-ffi"), name);
  }
  const printed = async (values: Record<string, string>): Promise<string> => {
    const none = Object.fromEntries(LAUNCH_VARIABLES.map((name) => [name, ""]));
    const { stdout } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "--quiet", "--allow-env", "pipeline/parallel/permission.ts"],
      cwd: ROOT,
      env: { ...none, ...values },
    }).output();
    return new TextDecoder().decode(stdout).trim();
  };
  assertEquals(await printed({}), "");
  assertEquals(await printed({ PMI_RANK: "0", PMI_SIZE: "2" }), "--allow-ffi");
});

const PROGRAM = { version: "1", deno: "2", code: "3", args: ["sparsify", "--lr", "1e-3"] };

Deno.test("ranks of unlike programs or settings are told what differs", () => {
  assertEquals(differenceOf([PROGRAM, { ...PROGRAM }]), undefined);
  const faults: [Partial<typeof PROGRAM>, string][] = [
    [{ version: "0.9" }, "rank 2 must run the same program as rank 0: version 0.9, and 1 at rank 0"],
    [{ deno: "2.1" }, "Deno 2.1, and 2 at rank 0"],
    [{ code: "abc" }, "its code differs, digest abc and 3"],
    [
      { args: ["sparsify", "--lr", "2e-3"] },
      "rank 2 must have the settings of rank 0: --lr 2e-3, and --lr 1e-3",
    ],
    [
      { args: ["sparsify"] },
      "rank 2 must have the settings of rank 0: sparsify, and sparsify --lr at rank 0",
    ],
  ];
  for (const [change, said] of faults) {
    assertStringIncludes(differenceOf([PROGRAM, PROGRAM, { ...PROGRAM, ...change }]) ?? "", said);
  }
});

Deno.test("two ranks on one GPU are refused unless they may share it; of a CPU driver they share the cores", () => {
  const gpu: RankAdapter = { host: "a", label: "X by Vulkan", software: false, shown: "" };
  const refuse = (adapters: RankAdapter[], shareAdapter = false) => adapterFault(adapters, { shareAdapter });
  assertStringIncludes(refuse([gpu, gpu]) ?? "", "rank 1 must have another GPU than rank 0");
  assertEquals(refuse([gpu, gpu], true), undefined);
  assertEquals(refuse([gpu, { ...gpu, host: "b" }]), undefined);
  assertEquals(refuse([gpu, { ...gpu, shown: "DRI_PRIME=pci-0000_03_00_0" }]), undefined);
  assertStringIncludes(
    refuse([gpu, { ...gpu, host: "b" }, { ...gpu, host: "b" }]) ?? "",
    "rank 2 must have another GPU than rank 1",
  );
  assertStringIncludes(
    refuse([gpu, { ...gpu, label: "Y by Vulkan" }]) ?? "",
    "the kind of adapter that rank 0 has, X by Vulkan: Y by",
  );
  const software = { ...gpu, software: true };
  assertEquals(refuse([software, software]), undefined);
});

Deno.test("a GPU is told from its neighbour by what showed it, under Slurm by the task that got one", () => {
  assertEquals(shownDevice(variables({})), "");
  assertEquals(shownDevice(variables({ NVIDIA_VISIBLE_DEVICES: "0" })), "NVIDIA_VISIBLE_DEVICES=0");
  // No Vulkan driver follows it.
  assertEquals(shownDevice(variables({ CUDA_VISIBLE_DEVICES: "0" })), "");
  // Ranks of one job step, by themselves no sign of a GPU each.
  assertEquals(shownDevice(variables({ SLURM_LOCALID: "1" })), "");
  const own = { SLURM_GPUS_PER_TASK: "1", NVIDIA_VISIBLE_DEVICES: "all" };
  const shown = ["0", "1"].map((local) => shownDevice(variables({ ...own, SLURM_LOCALID: local })));
  assertEquals(shown, [
    "NVIDIA_VISIBLE_DEVICES=all SLURM_LOCALID=0",
    "NVIDIA_VISIBLE_DEVICES=all SLURM_LOCALID=1",
  ]);
});

Deno.test({
  name: "every rank checks on its device what the workload of rank 0 takes",
  // Drivers keep threads.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    /** How many operations each rank checked. */
    const checked: (number | undefined)[] = [];
    const reporterOf = (rank: number): CommandThread["reporter"] => ({
      ...SILENT,
      activity: ({ of }) => checked[rank] = of ?? checked[rank],
    });
    const settings = { gpu: undefined, autotune: false, shareAdapter: true, rankLimit: 5 };
    const ranks = ranksInProcess(2).map((transport) => {
      const exchange = createExchange(transport, { limit: 5 });
      return { exchange, host: "here", begin: async () => {}, close: () => exchange.close() };
    });
    const thread: CommandThread = {
      reporter: reporterOf(1),
      signal: new AbortController().signal,
      beQuiet() {},
      print() {},
      write() {},
      leaveNet() {},
      goOnBy() {},
      beRank: () => ({ leave() {} }),
      logTo() {},
      savedAs() {},
      removeIfStopped() {},
      temporaryFolder: () => Promise.reject(new Error("none is asked for")),
    };
    let isHelped = false;
    async function lead(): Promise<boolean> {
      const [first] = ranks;
      await first.exchange.share(() => settings);
      const gpu = await openGpuOfRank(first, settings, () => ({ models: [GPT2] }), reporterOf(0));
      await gpu.end();
      await first.close();
      return true;
    }
    const help = (): Promise<object> => {
      isHelped = true;
      return Promise.resolve({});
    };
    const finished = await Promise.all([lead(), followOnDevice(ranks[1], thread, { help })]);
    assertEquals([finished, isHelped], [[true, true], true]);
    const everything = await openCheckedGpu(reporterOf(2), settings);
    await everything.end();
    const [first, second, all] = checked;
    assertEquals(second, first);
    assert(first! < all!, `${first} of ${all} operations`);
  },
});
