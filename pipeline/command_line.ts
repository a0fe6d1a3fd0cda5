/**
 * The edge between a command and the shell: errors to one line and an exit code, Ctrl-C to an orderly stop.
 *
 * @module
 */
import { tmpdir } from "node:os";
import { AdapterError } from "../kernels/core/gpu_adapters.ts";
import { DeviceError } from "../kernels/core/device.ts";
import { diskFullError, EXIT, UserError } from "./errors.ts";
import { isNullDevice, PROJECT, reasonOf } from "./files.ts";

/**
 * 128 + SIGPIPE, as shells report a process that wrote to a closed pipe: 0 would call an unfinished run a finished one.
 */
export const BROKEN_PIPE = 141;
/** 128 + SIGINT, of what was stopped. */
export const STOPPED = 130;
/** How Deno ends the message of an error that came from the operating system, such as a full disk. */
const FROM_SYSTEM = /\(os error \d+\)/;

/** Exit code and message for anything that was thrown. */
export function describeError(thrown: unknown): { exitCode: number; message: string } {
  const error = diskFullError("its output", thrown) ?? thrown;
  if (error instanceof UserError) return { exitCode: error.exitCode, message: error.message };
  if (error instanceof AdapterError) return { exitCode: EXIT.adapter, message: error.message };
  if (error instanceof DeviceError) return { exitCode: EXIT.device, message: error.message };
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof Error && FROM_SYSTEM.test(text)) {
    return {
      exitCode: EXIT.device,
      message: `Cannot go on as the system refused something: ${reasonOf(error)}`,
    };
  }
  const name = error instanceof Error ? `${error.name}: ` : "";
  return { exitCode: 1, message: `${name}${text} (this is a bug; --debug shows where)` };
}

/**
 * Runs a command to its end and leaves the process: 0, or the code that belongs to what was thrown, whose message goes
 * to standard error on one line. With `debug` the stack follows.
 *
 * @param options `onFailure` is called behind the message with the code, for whoever must end with this process
 */
export async function runCommand(
  command: () => Promise<void>,
  { debug, onFailure }: { debug: boolean; onFailure?(exitCode: number): void },
): Promise<never> {
  try {
    await command();
    Deno.exit(0);
  } catch (error) {
    // The reader of a pipe may leave when it has seen enough.
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(BROKEN_PIPE);
    const { exitCode, message } = describeError(error);
    console.error(`error: ${debug ? message : message.replace(/\s*\n\s*/g, " ")}`);
    if (debug) console.error(error);
    onFailure?.(exitCode);
    Deno.exit(exitCode);
  }
}

/** What asks a process to end: Ctrl-C, whoever manages it, and the terminal that is closed. */
const STOP_SIGNALS: readonly Deno.Signal[] = Deno.build.os === "windows"
  ? ["SIGINT", "SIGBREAK"]
  : ["SIGINT", "SIGTERM", "SIGHUP"];
/** With the first listener of any signal Deno takes hang-ups itself and ends the process: so one that does nothing. */
const OUTLIVES_TERMINAL = isUnderNohup();

/**
 * Whether nohup started the process. Deno does not tell which signals are ignored; but where standard input was a
 * terminal, nohup puts the null device there, opened so that it cannot be read.
 */
function isUnderNohup(): boolean {
  if (Deno.build.os === "windows" || !isNullDevice(0)) return false;
  try {
    Deno.stdin.readSync(new Uint8Array(1));
    return false;
  } catch {
    return true;
  }
}

/** Listens to what asks the process to end; gives back what ends the listening. */
export function onStopSignal(stop: () => void): () => void {
  const listeners = STOP_SIGNALS.map((signal) =>
    [signal, signal === "SIGHUP" && OUTLIVES_TERMINAL ? () => {} : stop] as const
  );
  for (const [signal, listener] of listeners) Deno.addSignalListener(signal, listener);
  return () => {
    for (const [signal, listener] of listeners) Deno.removeSignalListener(signal, listener);
  };
}

/**
 * Makes of the signal for a file that outgrows its limit (`ulimit -f`), which would end the process without a word, an
 * error of whoever writes. Called where {@link onStopSignal} is: with the first listener of any signal Deno takes hang-ups
 * itself.
 */
export function surviveFileLimit(): void {
  if (Deno.build.os !== "windows") Deno.addSignalListener("SIGXFSZ", () => {});
}

/** Milliseconds in which another signal is the same: `deno task` passes on what the terminal has sent already. */
const ONE_WISH = 1000;

/** Aborts on the first Ctrl-C, termination or hang-up; a second one, a second later, ends the process at once. */
export function stopSignal(onStop: () => void): AbortSignal {
  const controller = new AbortController();
  let since = 0;
  const stop = (): void => {
    if (controller.signal.aborted) {
      if (performance.now() - since >= ONE_WISH) Deno.exit(STOPPED);
      return;
    }
    since = performance.now();
    controller.abort();
    onStop();
  };
  surviveFileLimit();
  onStopSignal(stop);
  return controller.signal;
}

/**
 * The folder that the user stands in, where that is not the working folder: `deno task` starts in the project's and
 * says in INIT_CWD where it was called.
 */
export function userFolder(
  environment: (name: string) => string | undefined = Deno.env.get,
  workingFolder: string = Deno.cwd(),
): string | undefined {
  const called = environment("INIT_CWD");
  return called && workingFolder === PROJECT && called !== workingFolder ? called : undefined;
}

/** Whether standard error is a terminal whose last line can be written anew. */
export function isInteractive(): boolean {
  return Deno.stderr.isTerminal() && Deno.env.get("TERM") !== "dumb";
}

/** Columns of the terminal; 100 where there is none, or it has been closed meanwhile. */
export function terminalColumns(): number {
  try {
    return Deno.consoleSize().columns;
  } catch {
    return 100;
  }
}

/** Writes to standard error, which may be a terminal that has been closed meanwhile. */
export function writeError(text: string): void {
  try {
    Deno.stderr.writeSync(new TextEncoder().encode(text));
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) throw error;
  }
}

/**
 * What Mesa's drivers read of the environment, where nobody has set it. A session folder: a server has none, and they
 * complain about that on standard error, though none is needed here. Of the CPU driver twice as many threads as there are
 * processors: it gives each thread its share of a dispatch beforehand, so that all wait for one that has to wait for its
 * processor. In shares half as large a step takes three quarters of the time (docs/log.md).
 */
export function prepareMesa(): void {
  if (Deno.build.os !== "linux") return;
  const wanted = { XDG_RUNTIME_DIR: tmpdir(), LP_NUM_THREADS: String(2 * navigator.hardwareConcurrency) };
  for (const [name, value] of Object.entries(wanted)) if (!Deno.env.get(name)) Deno.env.set(name, value);
}
