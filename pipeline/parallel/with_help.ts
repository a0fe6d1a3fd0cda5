/**
 * What rank 0 alone does and needs the others for now and then, such as writing a file of what lies at several ranks.
 *
 * @module
 */
import type { Exchange } from "./exchange.ts";

/**
 * Does `work` at rank 0, and `help` at every rank whenever `work` asks for it, with what it is asked. While `work` is at
 * something else the others are told that it goes on. What `work` asks for while earlier help is under way waits for it. A
 * call of all ranks; without others it is `work` alone.
 *
 * @param help a call of all ranks; what it gives at rank 0 is what `work` gets
 * @param partsOf what of it each of so many ranks is asked; left out: all of it
 */
export async function withHelp<Asked, Given>(
  exchange: Exchange | undefined,
  help: (asked: Asked) => Promise<Given>,
  work: (ask: (asked: Asked) => Promise<Given>) => Promise<void>,
  partsOf?: (asked: Asked, ranks: number) => readonly Asked[],
): Promise<void> {
  if (!exchange) return await work(help);
  type Next = { asked: Asked } | undefined;
  /** What is next at this rank, of what is next at rank 0. */
  const hear = (next: () => Promise<Next>): Promise<Next> => {
    if (!partsOf) return exchange.share(next);
    return exchange.deal<Next>(async () => {
      const all = await next();
      return all
        ? partsOf(all.asked, exchange.size).map((asked) => ({ asked }))
        : new Array<Next>(exchange.size).fill(undefined);
    });
  };
  if (exchange.rank !== 0) {
    for (;;) {
      const next = await hear(() => Promise.resolve(undefined));
      if (!next) return;
      await help(next.asked);
    }
  }
  let { promise: asking, resolve: tell } = Promise.withResolvers<{ asked: Asked }>();
  let answer: (given: Promise<Given>) => void;
  const askNow = (asked: Asked): Promise<Given> => {
    const { promise, resolve } = Promise.withResolvers<Given>();
    answer = resolve;
    tell({ asked });
    return promise;
  };
  let earlier: Promise<unknown> = Promise.resolve();
  const done = work((asked) => {
    const given = earlier.then(() => askNow(asked));
    earlier = given.catch(() => {});
    return given;
  }).then(() => undefined);
  // Where help fails nobody waits for the work any more.
  done.catch(() => {});
  for (;;) {
    const next = await hear(() => Promise.race([asking, done]));
    if (!next) return;
    ({ promise: asking, resolve: tell } = Promise.withResolvers<{ asked: Asked }>());
    const given = help(next.asked);
    answer!(given);
    await given;
  }
}
