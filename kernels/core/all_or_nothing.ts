/**
 * Preparations of which nothing is left where they fail. What one has made so far lies in many hands, of some the maker
 * itself has failed; so it is kept account of here, by who makes and who frees buffers.
 *
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";

/** What was made in a preparation that is under way, and not freed: buffers, each with what frees it. */
interface Account {
  held: Map<GPUBuffer, () => void>;
  /** Of the preparation that this one is a part of. */
  within: Account | undefined;
  state: "open" | "kept" | "freed";
}

const current = new AsyncLocalStorage<Account>();
const accounts = new WeakMap<GPUBuffer, Account>();

/**
 * Prepares something. Where that fails, every tensor and uniform that was made for it is freed; of other work that goes
 * on in the meantime nothing is.
 */
export async function allOrNothing<Result>(prepare: () => Promise<Result>): Promise<Result> {
  const account: Account = { held: new Map(), within: openAccount(), state: "open" };
  try {
    const result = await current.run(account, prepare);
    account.state = "kept";
    for (const [buffer, free] of account.held) enter(account.within, buffer, free);
    return result;
  } catch (error) {
    account.state = "freed";
    for (const free of [...account.held.values()]) free();
    throw error;
  }
}

/** The innermost preparation under way here that has not come to its end. */
function openAccount(): Account | undefined {
  let account = current.getStore();
  while (account?.state === "kept") account = account.within;
  return account;
}

function enter(account: Account | undefined, buffer: GPUBuffer, free: () => void): void {
  accounts.delete(buffer);
  if (!account) return;
  // What it is a part of may have failed in the meantime.
  if (account.state === "freed") return free();
  account.held.set(buffer, free);
  accounts.set(buffer, account);
}

/**
 * Makes a buffer, which `free` frees.
 *
 * @throws {RangeError} where the preparation that it is made for has failed
 */
export function madeFor<Made extends { buffer: GPUBuffer }>(
  label: string,
  make: () => Made,
  free: (made: Made) => void,
): Made {
  const account = openAccount();
  if (account?.state === "freed") {
    throw new RangeError(`Cannot create ${label} as the preparation that it is for has failed`);
  }
  const made = make();
  enter(account, made.buffer, () => free(made));
  return made;
}

/** Says that a buffer is freed. */
export function freed(buffer: GPUBuffer): void {
  accounts.get(buffer)?.held.delete(buffer);
  accounts.delete(buffer);
}
