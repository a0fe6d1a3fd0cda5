/**
 * Some ranks among all, which move what they move together by messages from one to another, so that no others need to call
 * anything.
 *
 * @module
 */
import type { Transport } from "./transport.ts";

/**
 * A rank's transport to the members of a group. Its messages keep their order with those to the same rank outside the group.
 *
 * @param members ranks of `transport`, this one among them; their places are their numbers in the group
 */
export function groupOf(transport: Transport, members: readonly number[]): Transport {
  const rank = members.indexOf(transport.rank);
  const all = [...members.keys()];
  const others = all.filter((other) => other !== rank);
  const send = (to: number, data: Uint8Array): Promise<void> => transport.send(members[to], data);
  const receive = (from: number, data: Uint8Array, expired?: () => void): Promise<void> =>
    transport.receive(members[from], data, expired);

  /** Moves a block to and from each of the others. */
  async function move(sent: (to: number) => Uint8Array, received: Uint8Array): Promise<void> {
    const block = received.length / members.length;
    const placeOf = (from: number): Uint8Array => received.subarray(from * block, (from + 1) * block);
    placeOf(rank).set(sent(rank));
    await Promise.all(others.flatMap((other) => [send(other, sent(other)), receive(other, placeOf(other))]));
  }

  return {
    rank,
    size: members.length,
    host: transport.host,
    send,
    receive,
    async broadcast(data) {
      if (rank !== 0) return await receive(0, data);
      await Promise.all(others.map((to) => send(to, data)));
    },
    async allToAll(sent, received) {
      const block = sent.length / members.length;
      await move((to) => sent.subarray(to * block, (to + 1) * block), received);
    },
    allGather: (sent, received) => move(() => sent, received),
    // The others outside it go on.
    close() {},
    abort: (code) => transport.abort(code),
  };
}
