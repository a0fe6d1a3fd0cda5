/**
 * `deno task hostile [part…]`: everything that may bring the server down, tried on a server of its own process on
 * loopback. Prints one line a part and what failed, and leaves with 1 when anything did.
 *
 * @module
 */
import { crowd, hostileRequests, play } from "./requests.ts";
import { tryRubbish } from "./rubbish.ts";
import { type Findings, noFindings, type Site, withSite } from "./server.ts";

const SEED = 1;
/** Milliseconds for an answer: twice the server's own limit for a body that does not end. */
const LIMIT = 10_000;

/** Twenty more than there are places. */
const CROWD = 2020;
/** Twice the time after which a client that takes nothing is dropped. */
const CROWD_LIMIT = 60_000;

async function onSite(part: (site: Site) => Promise<Findings>): Promise<Findings> {
  let findings = noFindings();
  await withSite(async (site) => {
    findings = await part(site);
  });
  return findings;
}

/** The parts by name. */
const PARTS: Record<string, () => Promise<Findings>> = {
  requests: () => onSite((site) => play(site, hostileRequests(SEED), LIMIT)),
  crowd: () => onSite((site) => crowd(site, CROWD, CROWD_LIMIT)),
  rubbish: () => tryRubbish({ seed: SEED, limit: LIMIT }),
};

if (import.meta.main) {
  const chosen = Deno.args.length > 0 ? Deno.args : Object.keys(PARTS);
  let passed = 0;
  let failed = 0;
  for (const name of chosen) {
    const part = PARTS[name];
    if (!part) {
      console.error(`There is no part ${name}: ${Object.keys(PARTS).join(", ")}`);
      Deno.exit(2);
    }
    const { passed: good, failures, slowest } = await part();
    for (const failure of failures) console.log(`  ${failure}`);
    const seconds = (slowest.milliseconds / 1000).toFixed(2);
    console.log(
      `${name}: ${good} passed, ${failures.length} failed; the slowest took ${seconds} s: ${slowest.what}`,
    );
    passed += good;
    failed += failures.length;
  }
  console.log(`${passed} passed, ${failed} failed`);
  Deno.exit(failed > 0 ? 1 : 0);
}
