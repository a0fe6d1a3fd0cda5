/**
 * MPI by Deno's foreign function interface: Open MPI, and MPICH with what follows its binary interface (Intel MPI, Cray,
 * MVAPICH). Only bytes are moved: what is summed is summed here, so that neither the library nor the network decides in
 * which order.
 *
 * Messages are sent and received without blocking and looked after by a timer, so that a rank that waits for another
 * leaves the processor to it, can be told to stop, and notices one that does not come. What moves much at once
 * (`allToAll`, `allGather`, `broadcast`) runs on another thread, one call at a time, as MPI_THREAD_SERIALIZED demands.
 *
 * @module
 */
import { usageError, UserError } from "../errors.ts";
import type { Transport } from "./transport.ts";

/** What a process knows of being one of several before it has asked MPI. */
export interface Launch {
  rank: number;
  size: number;
  /** Whose variables said so: `Open MPI`, `MPICH`, or `Slurm`, which starts either. */
  by: "Open MPI" | "MPICH" | "Slurm";
}

/** Variables that a launcher sets in every process that it starts, with the ranks' number and count. */
const LAUNCHERS = [
  ["Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"],
  ["MPICH", "PMI_RANK", "PMI_SIZE"],
  // Set in the tasks that srun starts, and not in the batch script, in which SLURM_NTASKS stands already.
  ["Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"],
] as const;

/** All variables that {@link launchOf} reads. */
export const LAUNCH_VARIABLES: readonly string[] = LAUNCHERS.flatMap(([, rank, size]) => [rank, size]);

/**
 * Which of how many processes this one is; undefined where no launcher has said so, or there is one alone.
 *
 * @param variable the environment
 */
export function launchOf(variable: (name: string) => string | undefined): Launch | undefined {
  for (const [by, rankName, sizeName] of LAUNCHERS) {
    const [rank, size] = [variable(rankName), variable(sizeName)].map((text) =>
      text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined
    );
    if (rank !== undefined && size !== undefined && size > 1) return { rank, size, by };
  }
  return undefined;
}

const OPEN_MPI = Deno.build.os === "darwin"
  ? ["libmpi.40.dylib", "/opt/homebrew/lib/libmpi.40.dylib", "libmpi.dylib"]
  : ["libmpi.so.40", "libmpi.so"];
const MPICH = Deno.build.os === "darwin"
  ? ["libmpi.12.dylib", "/opt/homebrew/lib/libmpi.12.dylib", "libmpich.12.dylib"]
  : ["libmpich.so.12", "libmpi.so.12", "libmpi_cray.so.12"];

/** The names under which the library of a launcher is looked for, in order. */
export function librariesFor(by: Launch["by"]): readonly string[] {
  return by === "MPICH" ? [...MPICH, ...OPEN_MPI] : [...OPEN_MPI, ...MPICH];
}

/** How the two families of libraries differ: their handles, and what stands for which. */
interface Family {
  handle: "pointer" | "i32";
  /** MPI_COMM_WORLD, MPI_BYTE and MPI_ERRORS_RETURN: handles, or the numbers that MPI_*_f2c makes handles of. */
  world: number;
  byte: number;
  errorsReturn: number;
}

/** Handles are pointers, to be had for Fortran's numbers (ompi/include/mpif-config.h). */
const OF_OPEN_MPI: Family = { handle: "pointer", world: 0, byte: 1, errorsReturn: 2 };
/** Handles are numbers (mpi.h, the same in all that follow the ABI Compatibility Initiative). */
const OF_MPICH: Family = { handle: "i32", world: 0x44000000, byte: 0x4c00010d, errorsReturn: 0x54000001 };

const MPI_THREAD_SERIALIZED = 2;
const MAX_LIBRARY_VERSION = 8192;
const MAX_TEXT = 1024;
/** At least that of MPI_Status in either family. */
const STATUS_BYTES = 64;
/** Tag of every message: those between two ranks keep their order. */
const TAG = 17;
/** Looks without a pause, and pauses of one millisecond, before pauses grow. */
const EAGER_LOOKS = 50;
const SHORT_PAUSES = 20;
const LONGEST_PAUSE_MS = 5;

type Handle = number | Deno.PointerValue;

/** The functions of a library, as they are called here. */
interface Functions {
  MPI_Init_thread(argc: null, argv: null, required: number, provided: Uint8Array): number;
  MPI_Finalize(): number;
  MPI_Abort(world: Handle, code: number): number;
  MPI_Comm_rank(world: Handle, rank: Uint8Array): number;
  MPI_Comm_size(world: Handle, size: Uint8Array): number;
  MPI_Comm_set_errhandler(world: Handle, handler: Handle): number;
  MPI_Get_processor_name(name: Uint8Array, length: Uint8Array): number;
  MPI_Error_string(code: number, text: Uint8Array, length: Uint8Array): number;
  MPI_Isend(
    data: Uint8Array,
    count: number,
    type: Handle,
    to: number,
    tag: number,
    world: Handle,
    request: Uint8Array,
  ): number;
  MPI_Irecv(
    data: Uint8Array,
    count: number,
    type: Handle,
    from: number,
    tag: number,
    world: Handle,
    request: Uint8Array,
  ): number;
  MPI_Test(request: Uint8Array, flag: Uint8Array, status: Uint8Array): number;
  MPI_Bcast(data: Uint8Array, count: number, type: Handle, root: number, world: Handle): Promise<number>;
  MPI_Alltoall(
    send: Uint8Array,
    sendCount: number,
    sendType: Handle,
    receive: Uint8Array,
    receiveCount: number,
    receiveType: Handle,
    world: Handle,
  ): Promise<number>;
  MPI_Allgather(
    send: Uint8Array,
    sendCount: number,
    sendType: Handle,
    receive: Uint8Array,
    receiveCount: number,
    receiveType: Handle,
    world: Handle,
  ): Promise<number>;
}

function functionsOf(handle: Family["handle"]): Deno.ForeignLibraryInterface {
  const move = [
    "buffer",
    "i32",
    handle,
    "buffer",
    "i32",
    handle,
    handle,
  ] as const satisfies Deno.NativeType[];
  const message = [
    "buffer",
    "i32",
    handle,
    "i32",
    "i32",
    handle,
    "buffer",
  ] as const satisfies Deno.NativeType[];
  return {
    MPI_Init_thread: { parameters: ["pointer", "pointer", "i32", "buffer"], result: "i32" },
    MPI_Finalize: { parameters: [], result: "i32" },
    MPI_Abort: { parameters: [handle, "i32"], result: "i32" },
    MPI_Comm_rank: { parameters: [handle, "buffer"], result: "i32" },
    MPI_Comm_size: { parameters: [handle, "buffer"], result: "i32" },
    MPI_Comm_set_errhandler: { parameters: [handle, handle], result: "i32" },
    MPI_Get_processor_name: { parameters: ["buffer", "buffer"], result: "i32" },
    MPI_Error_string: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    MPI_Isend: { parameters: message, result: "i32" },
    MPI_Irecv: { parameters: message, result: "i32" },
    MPI_Test: { parameters: ["buffer", "buffer", "buffer"], result: "i32" },
    MPI_Bcast: { parameters: ["buffer", "i32", handle, "i32", handle], result: "i32", nonblocking: true },
    MPI_Alltoall: { parameters: move, result: "i32", nonblocking: true },
    MPI_Allgather: { parameters: move, result: "i32", nonblocking: true },
  };
}

/** Memory that stays where it is: V8 moves small arrays that have none of their own. */
const bytes = (length: number): Uint8Array<ArrayBuffer> => new Uint8Array(new ArrayBuffer(length));

const textOf = (data: Uint8Array): string => new TextDecoder().decode(data.subarray(0, data.indexOf(0)));
const numberOf = (data: Uint8Array): number => new DataView(data.buffer).getInt32(0, true);

/** A library that was opened, and which family it is of. */
interface Library {
  name: string;
  /** As it says itself, one line. */
  version: string;
  family: Family;
}

/**
 * Opens a library and asks which it is.
 *
 * @throws what Deno throws where it cannot be opened or is none of MPI
 */
function identify(name: string): Library {
  const opened = Deno.dlopen(name, {
    MPI_Get_library_version: { parameters: ["buffer", "buffer"], result: "i32" },
  });
  try {
    const [text, length] = [bytes(MAX_LIBRARY_VERSION), bytes(4)];
    opened.symbols.MPI_Get_library_version(text, length);
    const version = textOf(text).trim().split("\n")[0].split(",")[0].replace(/\s+/g, " ");
    return { name, version, family: /open mpi|open-mpi/i.test(version) ? OF_OPEN_MPI : OF_MPICH };
  } finally {
    opened.close();
  }
}

/**
 * Finds the library that goes with a launcher.
 *
 * @param path of the library; left out: the usual names are tried
 * @throws {UserError} when there is none
 */
function findLibrary(launch: Launch, path: string | undefined): Library {
  const names = path === undefined ? librariesFor(launch.by) : [path];
  const reasons: string[] = [];
  for (const name of names) {
    try {
      return identify(name);
    } catch (error) {
      if (error instanceof Deno.errors.NotCapable) {
        throw usageError(
          `Cannot use MPI as its library is called by Deno's foreign function interface, for which it needs the permission ffi: ` +
            `deno task gives it where mpirun or srun starts it`,
          { cause: error },
        );
      }
      reasons.push((error as Error).message.split("\n")[0]);
    }
  }
  throw usageError(
    path === undefined
      ? `Cannot be rank ${launch.rank} of ${launch.size} as no MPI library was found (${
        names.join(", ")
      }): install ` +
        `Open MPI or MPICH, or name it by --mpi PATH`
      : `Cannot use --mpi ${path} as it must be an MPI library: ${reasons[0]}`,
  );
}

/** A process among others, by MPI. */
export interface Mpi extends Transport {
  /** The library, as it says itself. */
  readonly version: string;
  /** The library's name or path. */
  readonly library: string;
}

/**
 * Joins the other processes that a launcher started; all of them must.
 *
 * @param path of MPI's library; left out: the usual names are tried
 * @throws {UserError} when there is no library, or it does not find the others
 */
export function openMpi(launch: Launch, path?: string): Mpi {
  const library = findLibrary(launch, path);
  const { handle, world: worldNumber, byte: byteNumber, errorsReturn } = library.family;
  const functions = Deno.dlopen(library.name, functionsOf(handle)).symbols as unknown as Functions;
  let [world, byte, returning]: Handle[] = [worldNumber, byteNumber, errorsReturn];
  const provided = bytes(4);
  if (functions.MPI_Init_thread(null, null, MPI_THREAD_SERIALIZED, provided) !== 0) {
    throw usageError(`Cannot begin as ${library.version} refused to: MPI_Init_thread failed`);
  }
  if (numberOf(provided) < MPI_THREAD_SERIALIZED) {
    throw usageError(
      `Cannot use ${library.version} as it must allow calls from several threads, one at a time ` +
        `(MPI_THREAD_SERIALIZED, ${MPI_THREAD_SERIALIZED}): it allows level ${numberOf(provided)}`,
    );
  }
  if (handle === "pointer") {
    const convert = { parameters: ["i32"], result: "pointer" } as const;
    const { symbols } = Deno.dlopen(library.name, {
      MPI_Comm_f2c: convert,
      MPI_Type_f2c: convert,
      MPI_Errhandler_f2c: convert,
    });
    world = symbols.MPI_Comm_f2c(worldNumber);
    byte = symbols.MPI_Type_f2c(byteNumber);
    returning = symbols.MPI_Errhandler_f2c(errorsReturn);
  }
  functions.MPI_Comm_set_errhandler(world, returning);
  const found = bytes(4);
  functions.MPI_Comm_rank(world, found);
  const rank = numberOf(found);
  functions.MPI_Comm_size(world, found);
  const size = numberOf(found);
  if (size !== launch.size) {
    throw usageError(
      `Cannot be rank ${launch.rank} of ${launch.size}, as ${launch.by} said, as ${library.version} (${library.name}) finds ` +
        `${size}: start with the mpirun of that library, or name the one that goes with it by --mpi PATH`,
    );
  }
  const name = bytes(MAX_TEXT);
  functions.MPI_Get_processor_name(name, found);

  function check(code: number, what: string): void {
    if (code === 0) return;
    const text = bytes(MAX_TEXT);
    functions.MPI_Error_string(code, text, bytes(4));
    throw new UserError(1, `Cannot go on as rank ${rank} failed in ${what}: ${textOf(text)}`);
  }

  /** What is under way on another thread; nothing may be called until it is over. */
  let busy: Promise<unknown> = Promise.resolve();
  function alone<Result>(work: () => Promise<Result>): Promise<Result> {
    const result = busy.then(work);
    busy = result.catch(() => {});
    return result;
  }

  /** Looks after a message until it has gone or come; `expired` is asked in every pause. */
  async function complete(request: Uint8Array, what: string, expired?: () => void): Promise<void> {
    const [flag, status] = [bytes(4), bytes(STATUS_BYTES)];
    for (let looks = 0;; looks++) {
      check(functions.MPI_Test(request, flag, status), what);
      if (numberOf(flag) !== 0) return;
      if (looks < EAGER_LOOKS) continue;
      expired?.();
      const pause = Math.min(LONGEST_PAUSE_MS, 1 + Math.max(0, looks - EAGER_LOOKS - SHORT_PAUSES) / 20);
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  return {
    rank,
    size,
    host: textOf(name),
    library: library.name,
    version: library.version,
    async send(to, data) {
      await busy;
      const request = bytes(8);
      check(functions.MPI_Isend(data, data.length, byte, to, TAG, world, request), "MPI_Isend");
      await complete(request, "MPI_Isend");
    },
    async receive(from, data, expired) {
      await busy;
      const request = bytes(8);
      check(functions.MPI_Irecv(data, data.length, byte, from, TAG, world, request), "MPI_Irecv");
      await complete(request, "MPI_Irecv", expired);
    },
    broadcast: (data) =>
      alone(async () => check(await functions.MPI_Bcast(data, data.length, byte, 0, world), "MPI_Bcast")),
    allToAll: (send, receive) =>
      alone(async () => {
        const block = send.length / size;
        check(
          await functions.MPI_Alltoall(send, block, byte, receive, block, byte, world),
          "MPI_Alltoall",
        );
      }),
    allGather: (send, receive) =>
      alone(async () =>
        check(
          await functions.MPI_Allgather(send, send.length, byte, receive, send.length, byte, world),
          "MPI_Allgather",
        )
      ),
    close() {
      functions.MPI_Finalize();
    },
    abort(code) {
      functions.MPI_Abort(world, code);
    },
  };
}
