/**
 * `deno task hostile [part…]`: everything that may lose a user's work, take damage for truth, or bring the server down,
 * which is tried in a process of its own on loopback. Prints one line a part and what failed, and leaves with 1 when
 * anything did. The whole takes an hour on two slow cores.
 *
 * @module
 */
import { canMount, playDisks } from "./disks.ts";
import { playFlips } from "./flips.ts";
import { playKills } from "./kills.ts";
import { brokenModels, playModels } from "./models.ts";
import { playRankKills } from "./rank_kills.ts";
import { OPEN_MPI } from "../support/mpirun.ts";
import { crowd, hostileRequests, play } from "./requests.ts";
import { tryRubbish } from "./rubbish.ts";
import { playSweepKills } from "./sweep_kills.ts";
import { type Findings, noFindings, type Site, withSite } from "./server.ts";

const SEED = 1;
/** Milliseconds for an answer: three times the server's own limit for a body that does not end, and a little. */
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

const KILLS = 100;
/** Of ranks, of which there are two. */
const RANK_KILLS = 30;
/** Of a sweep of twelve runs. */
const SWEEP_KILLS = 10;
/** Bits that are flipped: fourteen in each of fifteen files. */
const FLIPS = 210;
/** KiB, from what holds no config.json to what holds the whole run. */
const DISKS = Array.from({ length: 40 }, (_, n) => 8 + 12 * n);

/** A part that ends at its first fault, with what it tells. */
async function told(of: number, body: () => Promise<string>): Promise<Findings> {
  try {
    return { ...noFindings(), passed: of, note: await body() };
  } catch (error) {
    return { ...noFindings(), failures: [(error as Error).message] };
  }
}

/** Each by itself, so that one fault does not hide the next. */
async function models(): Promise<Findings> {
  const findings = noFindings();
  for (const model of brokenModels(SEED)) {
    try {
      const { slowest } = await playModels([model], { evaluate: true });
      findings.passed++;
      const milliseconds = 1000 * slowest;
      if (milliseconds > findings.slowest.milliseconds) findings.slowest = { milliseconds, what: model.name };
    } catch (error) {
      findings.failures.push(`${model.name}: ${(error as Error).message.split("\n").join(" | ")}`);
    }
  }
  return findings;
}

/** The parts by name. */
const PARTS: Record<string, () => Promise<Findings>> = {
  models,
  flips: () =>
    told(FLIPS, async () => {
      const { refused, said, harmless } = await playFlips({ places: FLIPS, seed: SEED });
      return `${refused} refused, ${said} said, ${harmless} of no effect`;
    }),
  kills: () =>
    told(KILLS, async () => {
      const { kills, rivals, runs } = await playKills({ kills: KILLS, seed: SEED });
      return `${kills} kills, ${rivals} of a resume beside, ${runs} runs ended with the same bits`;
    }),
  ranks: () =>
    told(RANK_KILLS, async () => {
      if (!OPEN_MPI) throw new Error("Open MPI is needed: apt-get install openmpi-bin");
      const { kills, runs } = await playRankKills(OPEN_MPI, { kills: RANK_KILLS, size: 2, seed: SEED });
      return `${kills} kills of either rank, ${runs} runs ended with the same bits`;
    }),
  sweeps: () =>
    told(SWEEP_KILLS, async () => {
      const { alone, withRuns, runs } = await playSweepKills({ kills: SWEEP_KILLS, seed: SEED });
      return `${alone} kills of a sweep alone, ${withRuns} with its runs; ${runs} runs ended with the same table`;
    }),
  disks: () =>
    told(DISKS.length, async () => {
      if (!await canMount()) {
        throw new Error("file systems of a given size cannot be mounted here: needs root on Linux");
      }
      const { full, roomy, at } = await playDisks(DISKS);
      return `${full} disks full at ${at.size} kinds of file, ${roomy} roomy`;
    }),
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
    const { passed: good, failures, slowest, note } = await part();
    for (const failure of failures) console.log(`  ${failure}`);
    const seconds = (slowest.milliseconds / 1000).toFixed(2);
    const more = note ?? `the slowest took ${seconds} s: ${slowest.what}`;
    console.log(`${name}: ${good} passed, ${failures.length} failed; ${more}`);
    passed += good;
    failed += failures.length;
  }
  console.log(`${passed} passed, ${failed} failed`);
  Deno.exit(failed > 0 ? 1 : 0);
}
