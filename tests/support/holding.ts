/**
 * Preloaded into a command by `runMain`, which holds it at chosen moments: it then waits, whatever the clock says, for a
 * byte on standard input, while its test does what it has to do. What follows the moment has not begun, in the command's
 * thread neither: it is started by held_thread.ts.
 *
 * @module
 */

/** What the command is told by the variable HOLD_COMMAND. */
export interface Holding {
  /** Held when standard error has come to hold each of these, one after the other. */
  texts: string[];
  /** Held at this change of files, counted from 0; a write is held when half of it is written. */
  change?: number;
}

/** Stands on standard error when the command is held at a change of files. */
export const HELD_AT_CHANGE = "held at a change of files";
/** Stands there at the end of one that was to be held at a change, with how many there were. */
export const CHANGES = /(\d+) changes of files/;

/** Functions that change what stands in folders. */
const CHANGING = ["mkdir", "remove", "rename", "link", "symlink", "truncate", "writeTextFile"] as const;

const encoder = new TextEncoder();
const stderr = Deno.stderr.writeSync.bind(Deno.stderr);
const say = (text: string): void => void stderr(encoder.encode(text + "\n"));
/** Waits for the test; returns whether it has sent a signal in the meantime. */
function hold(): boolean {
  const answer = new Uint8Array(1);
  Deno.stdin.readSync(answer);
  return answer[0] === SIGNALLED;
}

/** What the test answers where it has sent a signal. */
export const SIGNALLED = 1;

/** The main thread shows what the command reports: held at a text, it keeps the command's thread from going on. */
function holdMainThread({ texts }: Holding): void {
  const paused = new Int32Array(new SharedArrayBuffer(4));
  const release = (): void => {
    Atomics.store(paused, 0, 0);
    Atomics.notify(paused, 0);
  };
  const { Worker } = globalThis;
  globalThis.Worker = class extends Worker {
    constructor(module: string | URL, options?: WorkerOptions) {
      super(new URL("held_thread.ts", import.meta.url), options);
      this.postMessage({ module: String(module), paused });
    }
    override postMessage(message: unknown): void {
      super.postMessage(message);
      // The signal has come through.
      if (message === "stop") release();
    }
  };
  const decoder = new TextDecoder();
  let shown = "";
  Deno.stderr.writeSync = (bytes) => {
    const count = stderr(bytes);
    shown += decoder.decode(bytes);
    for (; texts.length > 0 && shown.includes(texts[0]); texts.shift()) {
      Atomics.store(paused, 0, 1);
      if (!hold()) release();
    }
    return count;
  };
}

/** A command's thread waits with its reports while the main thread is held, and is held itself at changes of files. */
export function holdCommandThread({ change = Infinity }: Holding, paused: Int32Array): void {
  const thread = self as unknown as Worker;
  const post = thread.postMessage.bind(thread);
  let changes = 0;
  let written: Deno.FsFile | undefined;
  /** Whether the command is to be held here. */
  const counted = (): boolean => {
    written = undefined;
    return changes++ === change;
  };
  const heldAtChange = (): void => {
    say(HELD_AT_CHANGE);
    hold();
  };
  // deno-lint-ignore no-explicit-any
  const functions = Deno as any;
  for (const name of CHANGING) {
    const original = functions[name];
    functions[name] = (...args: unknown[]) => {
      if (counted()) heldAtChange();
      return original(...args);
    };
  }
  const { open } = Deno;
  Deno.open = (path, options) => {
    const writing = options?.write || options?.append;
    if (writing && counted()) heldAtChange();
    return open(path, options);
  };
  const { write, sync } = Deno.FsFile.prototype;
  Deno.FsFile.prototype.write = async function (bytes) {
    // What is written in pieces is one change.
    const again = written === this;
    if (again || !counted()) {
      written = this;
      return await write.call(this, bytes);
    }
    const half = await write.call(this, bytes.subarray(0, Math.ceil(bytes.length / 2)));
    heldAtChange();
    return half;
  };
  Deno.FsFile.prototype.sync = function () {
    if (counted()) heldAtChange();
    return sync.call(this);
  };
  thread.postMessage = (message: { ended?: number }) => {
    Atomics.wait(paused, 0, 1);
    if (message.ended !== undefined && change !== Infinity) say(`${changes} changes of files`);
    post(message);
  };
}

/** What the command is told, where it is one that is to be held. */
export function holdingTold(): Holding | undefined {
  const told = Deno.env.get("HOLD_COMMAND");
  return told === undefined ? undefined : JSON.parse(told);
}

const told = holdingTold();
if (told && !("DedicatedWorkerGlobalScope" in globalThis)) holdMainThread(told);
