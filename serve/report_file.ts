/**
 * A run's report as a file to be sent: bounded, in pieces, with the policy that lets through what stands in it.
 *
 * @module
 */
import { UserError } from "../pipeline/errors.ts";
import { openRegular, readBytes } from "../pipeline/files.ts";
import { ownInfo } from "./own_files.ts";
import { problem } from "./problem.ts";
import { stampOf } from "./run_reader.ts";
import { reportPolicy } from "./security.ts";

/** A report of 10,000 steps has half a megabyte. */
export const MAX_REPORT_BYTES = 32 << 20;
const PIECE_BYTES = 64 << 10;
const POLICIES_KEPT = 64;

/** A report that can be sent. */
export interface Report {
  bytes: number;
  /** Its content security policy. */
  policy: string;
  /** Opens it; it is closed at its end, or when the stream is cancelled. */
  open(): ReadableStream<Uint8Array<ArrayBuffer>>;
}

/** Policies of the reports that were asked for last, by path. */
const policies = new Map<string, { stamp: string; policy: string }>();
/** One report at a time is read for its policy, so that many clients need no more memory than one. */
let turn: Promise<unknown> = Promise.resolve();

/**
 * Opens a report.
 *
 * @throws {HTTPException} 413 when it is too large, 404 when it is gone
 */
export async function openReport(path: string): Promise<Report | undefined> {
  const info = await ownInfo(path);
  if (!info?.isFile) return undefined;
  if (info.size > MAX_REPORT_BYTES) {
    throw problem(
      413,
      `Cannot show a report of ${info.size} bytes as it must have at most ${MAX_REPORT_BYTES}`,
    );
  }
  const policy = policyOf(path, stampOf(info));
  turn = policy.catch(() => {});
  try {
    return {
      bytes: info.size,
      policy: await policy,
      open: () => ReadableStream.from(piecesOf(path, info.size)),
    };
  } catch (error) {
    if (error instanceof UserError) throw problem(404, "The report cannot be read");
    throw error;
  }
}

async function policyOf(path: string, stamp: string): Promise<string> {
  await turn;
  const known = policies.get(path);
  if (known?.stamp === stamp) return known.policy;
  const policy = reportPolicy(await readBytes(path, MAX_REPORT_BYTES));
  policies.delete(path);
  policies.set(path, { stamp, policy });
  if (policies.size > POLICIES_KEPT) policies.delete(policies.keys().next().value!);
  return policy;
}

async function* piecesOf(path: string, bytes: number): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  const { file } = await openRegular(path);
  using _ = file;
  for (let left = bytes; left > 0;) {
    const piece = new Uint8Array(Math.min(PIECE_BYTES, left));
    const count = await file.read(piece);
    if (count === null) return;
    left -= count;
    yield piece.subarray(0, count);
  }
}
