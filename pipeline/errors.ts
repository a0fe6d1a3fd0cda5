/**
 * What can go wrong for a user, by exit code. A command prints the message on one line and leaves with the code;
 * anything else that is thrown is a bug of ours.
 *
 * @module
 */

/** Exit codes of every command. */
export const EXIT = { usage: 2, input: 3, adapter: 4, device: 5 } as const;

/** An error whose message is meant for the user, and the exit code that goes with it. */
export class UserError extends Error {
  /** The process's exit code; one of {@link EXIT}. */
  readonly exitCode: number;

  constructor(exitCode: number, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "UserError";
    this.exitCode = exitCode;
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
