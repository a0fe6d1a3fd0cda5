/**
 * What can go wrong for a user, by exit code. A command prints the message on one line and leaves with the code;
 * anything else that is thrown is a bug of ours.
 *
 * @module
 */

/** Exit codes of every command. `device` stands for what the machine has too little of: memory, or disk. */
export const EXIT = { usage: 2, input: 3, adapter: 4, device: 5 } as const;

/** An error whose message is meant for the user, and the exit code that goes with it. */
export class UserError extends Error {
  /** The process's exit code; one of {@link EXIT}. */
  readonly exitCode: number;

  /** An error with its exit code, one of {@link EXIT}. */
  constructor(exitCode: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "UserError";
    this.exitCode = exitCode;
  }
}

/** Training whose gradients or loss are no longer finite, in which the same settings end again: exit code 1. */
export class DivergedError extends UserError {
  /** Whether the loss had run away before, so that nothing good comes of the last checkpoint. */
  readonly isLost: boolean;

  /** An error with exit code 1. */
  constructor(message: string, { isLost = false }: { isLost?: boolean } = {}) {
    super(1, message);
    this.name = "DivergedError";
    this.isLost = isLost;
  }
}

/** A model whose loss is not finite, with which no run can begin: exit code 3. */
export class UnmeasurableError extends UserError {
  /** An error with exit code 3. */
  constructor(message: string) {
    super(EXIT.input, message);
    this.name = "UnmeasurableError";
  }
}

/** An unknown flag, a missing file, a number out of range: exit code 2. */
export function usageError(message: string, options?: ErrorOptions): UserError {
  return new UserError(EXIT.usage, message, options);
}

/** A model or data file that cannot be used: exit code 3. */
export function inputError(message: string, options?: ErrorOptions): UserError {
  return new UserError(EXIT.input, message, options);
}

/** How the system says that a disk, or a user's share of it, is full: Linux and macOS, quotas there, Windows. */
const DISK_FULL = /\(os error (28|122|69|112)\)/;
const FROM_SYSTEM = /^(.*) \(os error \d+\)/;

/** The error of a disk that is full, where that is what was thrown: exit code 5. */
export function diskFullError(what: string, error: unknown): UserError | undefined {
  if (error instanceof UserError || !(error instanceof Error) || !DISK_FULL.test(error.message)) {
    return undefined;
  }
  return new UserError(EXIT.device, `Cannot write ${what} as the disk is full: make room on it`, {
    cause: error,
  });
}

/** What stands in the way of a path, which another would not have: a file where a folder is to be, or the like. */
const IN_THE_WAY = [Deno.errors.NotADirectory, Deno.errors.IsADirectory, Deno.errors.AlreadyExists];

/** Why Deno keeps a path from programs, such as those below /proc and /dev. */
export const OF_THE_SYSTEM = "it is one of the system's own files, which are left alone";

/**
 * The error of a path that could not be written: exit code 5, and 2 where something stands in its way, or Deno keeps it from
 * programs; what came from neither it nor the system stays as it is.
 */
export function storageError(path: string, error: unknown): unknown {
  const full = diskFullError(path, error);
  if (full || error instanceof UserError || !(error instanceof Error)) return full ?? error;
  if (error instanceof Deno.errors.NotCapable) {
    return usageError(`Cannot write ${path}: ${OF_THE_SYSTEM}`, { cause: error });
  }
  const [, reason] = FROM_SYSTEM.exec(error.message) ?? [];
  if (reason === undefined) return error;
  const exitCode = IN_THE_WAY.some((kind) => error instanceof kind) ? EXIT.usage : EXIT.device;
  return new UserError(exitCode, `Cannot write ${path}: ${reason}`, { cause: error });
}
