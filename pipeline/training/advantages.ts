/**
 * What a sample's log-likelihood weighs in the policy gradient: its reward beside those of the other samples of the same
 * prompt.
 *
 * @module
 */

/** How advantages are made of rewards. */
export type Algorithm = typeof ALGORITHMS[number];

/** Leave-one-out (REINFORCE with the mean of the others as the baseline, arXiv 2402.14740) and GRPO (arXiv 2402.03300). */
export const ALGORITHMS = ["leave-one-out", "grpo"] as const;

/** Added to the standard deviation, as TRL does. */
const EPSILON = 1e-4;

/**
 * Advantages of samples, those of a prompt one behind the other.
 *
 * - `leave-one-out`: A_i = r_i less the mean of the others' rewards.
 * - `grpo`: A_i = (r_i − mean) / (sd + 1e-4), sd over n − 1. Its clipped ratio of new to old likelihoods is 1 where each
 *   roll-out has one update, and is not computed.
 *
 * @param rewards a multiple of `group`
 * @param group samples of a prompt, 2 or more
 * @throws {RangeError} when the group is smaller, or does not divide the rewards
 */
export function advantagesOf(
  rewards: ArrayLike<number>,
  { algorithm, group }: { algorithm: Algorithm; group: number },
): Float64Array {
  if (!Number.isInteger(group) || group < 2 || rewards.length % group !== 0) {
    throw new RangeError(
      `Cannot compare samples of a prompt as there must be 2 or more of each: ${rewards.length} in groups of ${group}`,
    );
  }
  const advantages = new Float64Array(rewards.length);
  for (let first = 0; first < rewards.length; first += group) {
    const own = Array.from({ length: group }, (_, n) => rewards[first + n]);
    const mean = own.reduce((sum, reward) => sum + reward, 0) / group;
    const variance = own.reduce((sum, reward) => sum + (reward - mean) ** 2, 0) / (group - 1);
    const scale = algorithm === "grpo" ? 1 / (Math.sqrt(variance) + EPSILON) : group / (group - 1);
    own.forEach((reward, n) => advantages[first + n] = scale * (reward - mean));
  }
  return advantages;
}
