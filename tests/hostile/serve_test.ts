/** A sample of what `deno task hostile` tries in full: hostile requests, and rubbish among the runs. */
import { assert, assertEquals } from "@std/assert";
import { hostileRequests, play, sampleOf } from "./requests.ts";
import { RUBBISH, tryRubbish } from "./rubbish.ts";
import { type Findings, withSite } from "./server.ts";

const SEED = 7;
/** Sixty times what the full run allows, so that a slow machine does not fail. */
const LIMIT = 600_000;

function report({ passed, failures, slowest }: Findings): void {
  console.log(
    `${passed} passed; the slowest took ${(slowest.milliseconds / 1000).toFixed(2)} s: ${slowest.what}`,
  );
  assertEquals(failures, []);
}

Deno.test("hostile requests are the same for the same seed, and at least 4,000", () => {
  const names = (seed: number) => hostileRequests(seed).map(({ name }) => name);
  assertEquals(names(1), names(1));
  assert(names(1).length >= 4000);
  assert(new Set(names(1)).size > 2000);
});

Deno.test("a sample of hostile requests brings the server to no fault, no silence and no end", async () => {
  await withSite(async (site) => report(await play(site, sampleOf(hostileRequests(SEED), 600, SEED), LIMIT)));
});

Deno.test("a sample of rubbish among the runs leaves the healthy run whole, and every address answered", async () => {
  assert(RUBBISH.length >= 200 && new Set(RUBBISH.map(({ name }) => name)).size === RUBBISH.length);
  report(await tryRubbish({ seed: SEED, count: 30, limit: LIMIT }));
});
