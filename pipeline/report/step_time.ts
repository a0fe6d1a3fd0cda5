/**
 * The time of a step that ranks share, told before it is run: what each computes, at a rate that was measured, and how much
 * of the exchange of gradients lies behind backward.
 *
 * @module
 */
import type { StretchArithmetic } from "../model/arithmetic.ts";

/**
 * Bytes a second of gradients that a rank reads from the device, adds in float64 and writes back, beside what the network
 * takes; and seconds in which it waits for a bucket to be there. Both as measured here, on two cores with slow memory, with a
 * network that takes no time: docs/servers.md.
 */
export const HOST = { bytesPerSecond: 7e8, bucketSeconds: 0.011 };

/** A step as ranks do it. */
export interface SharedStep {
  ranks: number;
  /** Seconds in which each rank computes its share. */
  compute: number;
  /** FLOP of that, counted as the stretches are. */
  flop: number;
  /** Backward of the last micro-batch. */
  stretches: readonly StretchArithmetic[];
  /** Bytes that a rank sends in a second, and gets in the same. */
  network: number;
  host: typeof HOST;
  /**
   * Whether the device computes while the host reads, adds and writes: a GPU does. A CPU driver computes on the same cores, and
   * is given a stretch when the one before has been read.
   */
  isApart: boolean;
  /** Whether ranks divide the moments: then weights are gathered behind the update. */
  shardOptimizer: boolean;
}

/** Seconds of a step. */
export interface StepTime {
  /** What a rank computes. */
  compute: number;
  /** What the exchange takes, of gradients and, where moments are divided, of weights. */
  exchange: number;
  /** As much of that as is the network's; the rest is the host's. */
  network: number;
  /** As much of the exchange as lies behind backward. */
  hidden: number;
  /** All of it. */
  step: number;
}

/**
 * The time of a step. The gradients of a stretch of the last micro-batch's backward are moved behind it, bucket after bucket,
 * while backward goes on; each rank sends every other its block of them and gets the sums, so that of b bytes
 * 2 b (N − 1) / N go each way. Weights that are gathered, half of that, wait for the update.
 */
export function timeOfStep(
  { ranks, compute, flop, stretches, network, host, isApart, shardOptimizer }: SharedStep,
): StepTime {
  const share = (ranks - 1) / ranks;
  const onHost = (bytes: number): number => host.bucketSeconds + bytes / host.bytesPerSecond;
  const moved = (bytes: number): number => bytes * share / network;
  const perFlop = compute / flop;
  let end = compute - perFlop * stretches.reduce((sum, { flop }) => sum + flop, 0);
  let free = 0;
  let exchange = 0;
  for (const { flop, bytes } of stretches) {
    end += perFlop * flop;
    if (bytes === 0) continue;
    const takes = onHost(bytes) + (shardOptimizer ? 1 : 2) * moved(bytes);
    free = Math.max(free, end) + takes;
    exchange += takes;
    if (!isApart) end += onHost(bytes);
  }
  const all = stretches.reduce((sum, { bytes }) => sum + bytes, 0);
  const gathered = shardOptimizer ? onHost(all) + moved(all) : 0;
  exchange += gathered;
  const step = Math.max(free, end) + gathered;
  return { compute, exchange, network: 2 * moved(all), hidden: exchange - (step - compute), step };
}
