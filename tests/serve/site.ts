/**
 * A server of fake runs with the page in headless Chromium, for the tests that page_test.ts runs in a process of their
 * own, with the browser's path as argument.
 *
 * @module
 */
import { type Browser, chromium, type Locator, type Page } from "playwright-core";
import { createApp } from "../../serve/app.ts";
import { readAssets } from "../../serve/assets.ts";
import type { Explorer } from "../../serve/explorer.ts";
import { openRuns } from "../../serve/runs.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

const CHROMIUM = Deno.args[0];

/** What steers runs of the sites. */
export const TOKEN = "a-token-for-tests-only";

/** Milliseconds after which what does not come is given up. */
const LIMIT = 5 * 60_000;

/** One for all tests, begun by the first: each has its own pages, storage and cache in it. */
let browser: Promise<Browser> | undefined;
Deno.test.afterAll(async () => await (await browser)?.close());

/** A server of a folder of runs, and a page in the browser. */
export interface Site {
  folder: string;
  page: Page;
  url: string;
  /** What the page complained of. */
  complaints: string[];
  /** Ends the server, without a word to its clients. */
  stop(): Promise<void>;
  /** Starts it again on the same port; `tokenToRead` as beyond loopback. */
  start(options?: { token?: string; tokenToRead?: boolean }): Promise<void>;
}

/** Tests of the page on a server that looks into models by this explorer. */
export function siteTest(explorer: Explorer) {
  return (name: string, body: (site: Site) => Promise<void>): void =>
    Deno.test({
      name,
      // The browser is a process with pipes of its own.
      sanitizeOps: false,
      sanitizeResources: false,
      async fn() {
        await using folder = await temporaryFolder();
        const assets = await readAssets();
        let server: Deno.HttpServer | undefined;
        let ending = new AbortController();
        let port = 0;
        const start: Site["start"] = async ({ token = TOKEN, tokenToRead = false } = {}) => {
          ending = new AbortController();
          // A quarter of a second passes between looks at a run, whatever the clock says: each is a new one.
          let now = 0;
          const app = createApp({
            runs: openRuns(folder.path, () => now += 1000),
            explorer,
            assets,
            token,
            tokenToRead,
            allowedHosts: [],
            signal: ending.signal,
          });
          server = Deno.serve(
            { hostname: "127.0.0.1", port, signal: ending.signal, onListen() {} },
            app.fetch,
          );
          port = (server.addr as Deno.NetAddr).port;
          await Promise.resolve();
        };
        const stop = async (): Promise<void> => {
          ending.abort();
          await server?.finished;
        };
        await start();
        browser ??= chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", "--disable-gpu"] });
        const context = await (await browser).newContext();
        try {
          const page = await context.newPage();
          page.setDefaultTimeout(LIMIT);
          const complaints: string[] = [];
          page.on("console", (message) => {
            if (["error", "warning"].includes(message.type())) complaints.push(message.text());
          });
          page.on("pageerror", (error) => complaints.push(error.message));
          await body({ folder: folder.path, page, url: `http://127.0.0.1:${port}`, complaints, stop, start });
        } finally {
          await context.close();
          await stop();
        }
      },
    });
}

/** Unfolds what can be folded away, until the page has heard of it. */
export async function unfold(details: Locator): Promise<void> {
  await details.evaluate((at) =>
    new Promise<void>((resolve) => {
      if (at.hasAttribute("open")) return resolve();
      at.addEventListener("toggle", () => resolve(), { once: true });
      at.querySelector("summary")!.click();
    })
  );
}

const AXE = await Deno.readTextFile(new URL("axe.min.js", import.meta.resolve("axe-core")));

/** What axe complains of. */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(AXE);
  return await page.evaluate(
    `axe.run().then(({ violations }) => violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) =>
      id + ": " + html.slice(0, 200) + " " + failureSummary)))`,
  ) as string[];
}
