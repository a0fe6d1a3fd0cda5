/**
 * Commands as several processes by a real MPI, where there is one.
 *
 * @module
 */
import { join } from "node:path";

const ROOT = new URL("../../", import.meta.url).pathname;

/** Milliseconds after which ranks that hang are given up. */
const LIMIT = 10 * 60_000;

/** How a family's mpirun is called: also as root, and with more ranks than cores. */
export interface Mpirun {
  name: "Open MPI" | "MPICH";
  command: string;
  args: readonly string[];
}

async function find(
  name: Mpirun["name"],
  commands: readonly string[],
  says: RegExp,
): Promise<Mpirun | undefined> {
  for (const command of commands) {
    try {
      const { success, stdout } = await new Deno.Command(command, { args: ["--version"], stderr: "null" })
        .output();
      if (!success || !says.test(new TextDecoder().decode(stdout))) continue;
      return { name, command, args: name === "Open MPI" ? ["--allow-run-as-root", "--oversubscribe"] : [] };
    } catch {
      // Not there.
    }
  }
  return undefined;
}

/** Open MPI's mpirun, and MPICH's; undefined where it is not installed. */
export const OPEN_MPI = await find("Open MPI", ["mpirun.openmpi", "mpirun"], /Open MPI|OpenRTE/i);
export const MPICH = await find("MPICH", ["mpirun.mpich", "mpiexec.hydra", "mpirun"], /HYDRA|MPICH/i);

if (!OPEN_MPI && Deno.build.os === "linux") {
  console.warn("Open MPI is not here, and its ranks are not tested: apt-get install openmpi-bin");
}

/** How ranks ended. */
export interface RanksResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** The process that is a rank, found by its variables and a word of its command. */
async function processOf(rank: number, mark: string): Promise<number> {
  const script =
    `for of in $(grep -lzxE '(OMPI_COMM_WORLD|PMI)_RANK=${rank}' /proc/[0-9]*/environ 2>/dev/null); do
      line=\${of%environ}cmdline
      if grep -qzx run "$line" 2>/dev/null && grep -qzF '${mark}' "$line"; then echo "\${of}"; fi
    done`;
  const { stdout } = await new Deno.Command("sh", { args: ["-c", script], stderr: "null" }).output();
  const found = /\/proc\/(\d+)\//.exec(new TextDecoder().decode(stdout));
  if (!found) throw new Error(`no process is rank ${rank}`);
  return Number(found[1]);
}

/** A group of ranks that is running. */
export interface RunningRanks {
  readonly ended: boolean;
  /** All of standard error so far. */
  readonly said: string;
  /** Sends a signal to a rank's own process, or to mpirun. */
  send(signal: Deno.Signal, to: number | "mpirun"): Promise<void>;
}

/** A rank's arguments, and variables that it alone has, as `NAME=value`. */
export interface RankArguments {
  args: string[];
  env?: string[];
}

/**
 * Runs a command of pipeline/main.ts as ranks.
 *
 * @param given the arguments of all, or of each
 */
export async function runRanks(
  { command, args }: Mpirun,
  size: number,
  given: string[] | ((rank: number) => RankArguments),
  { meanwhile, env = {}, mark, byTask = false }: {
    /** What is done to the ranks while they run; `said`: all of standard error so far. */
    meanwhile?(ranks: RunningRanks): Promise<void>;
    env?: Record<string, string>;
    /** A word that stands in each rank's arguments and in no other process's. */
    mark: string;
    /** As users start it, by `deno task`. */
    byTask?: boolean;
  },
): Promise<RanksResult> {
  // deno-fmt-ignore
  const program = byTask ? [Deno.execPath(), "task", "--quiet"] : [Deno.execPath(), "run", "--no-check", "--quiet", "--allow-read",
    "--allow-write", "--allow-env", "--allow-ffi", "--allow-sys=systemMemoryInfo,statfs", "--allow-net=127.0.0.1",
    join(ROOT, "pipeline/main.ts")];
  const launched = typeof given === "function"
    ? Array.from({ length: size }, (_, rank) => {
      const { args, env = [] } = given(rank);
      return [...(rank > 0 ? [":"] : []), "-n", "1", "env", ...env, ...program, ...args];
    }).flat()
    : ["-n", String(size), ...program, ...given];
  const child = new Deno.Command(command, {
    args: [...args, ...launched],
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
    env: {
      NO_COLOR: "1",
      XDG_RUNTIME_DIR: Deno.env.get("XDG_RUNTIME_DIR") ?? "/tmp",
      HF_HUB_OFFLINE: "1",
      ...env,
    },
  }).spawn();
  let ended = false;
  let stderr = "";
  const ranks: RunningRanks = {
    get ended() {
      return ended;
    },
    get said() {
      return stderr;
    },
    async send(signal, to) {
      if (to === "mpirun") child.kill(signal);
      else Deno.kill(await processOf(to, mark), signal);
    },
  };
  // By this mpirun ends its ranks, which would hold its output open without it.
  const timer = setTimeout(() => child.kill("SIGTERM"), LIMIT);
  const listen = async (): Promise<void> => {
    for await (const text of child.stderr.pipeThrough(new TextDecoderStream())) stderr += text;
    ended = true;
  };
  const [{ code }, stdout] = await Promise.all([
    child.status,
    new Response(child.stdout).text(),
    listen(),
    meanwhile?.(ranks),
  ]);
  clearTimeout(timer);
  return { code, stdout, stderr };
}
