/**
 * A server of fake runs with the page in headless Chromium, for the tests that page_test.ts runs in a process of their
 * own, with the browser's path as argument.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import { type Browser, type BrowserContext, chromium, type Locator, type Page } from "playwright-core";
import { createApp } from "../../serve/app.ts";
import { readAssets } from "../../serve/assets.ts";
import type { Explorer } from "../../serve/explorer.ts";
import { openRuns } from "../../serve/runs.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

const CHROMIUM = Deno.args[0];

/** What steers runs of the sites. */
export const TOKEN = "a-token-for-tests-only";

/** Milliseconds after which what does not come is given up: on a machine that is busy everything comes, but late. */
const LIMIT = 5 * 60_000;
/** Milliseconds between looks at what is to change. */
const LOOK_MS = 50;

/** One for all tests, begun by the first: each has its own pages, storage and cache in it. */
let browser: Promise<Browser> | undefined;
Deno.test.afterAll(async () => await (await browser)?.close());

/** A server of a folder of runs, and a page in the browser. */
export interface Site {
  folder: string;
  page: Page;
  /** Opens a page as another person would, who shares nothing with the first; it is closed with the site. */
  another(): Promise<Page>;
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
            // A run is waited for until it is read, and a request until it has come, however long that takes.
            runs: openRuns(folder.path, () => now += 1000, { wait: LIMIT, slowList: Infinity }),
            bodyMilliseconds: LIMIT,
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
        browser ??= chromium.launch({
          executablePath: CHROMIUM,
          args: ["--no-sandbox", "--disable-gpu"],
          timeout: LIMIT,
        });
        const contexts: BrowserContext[] = [];
        const another = async (): Promise<Page> => {
          const context = await (await browser!).newContext();
          contexts.push(context);
          // Of the context: what a page opens has it too.
          context.setDefaultTimeout(LIMIT);
          return await context.newPage();
        };
        try {
          const page = await another();
          const complaints: string[] = [];
          page.on("console", (message) => {
            if (["error", "warning"].includes(message.type())) complaints.push(message.text());
          });
          page.on("pageerror", (error) => complaints.push(error.message));
          const url = `http://127.0.0.1:${port}`;
          await body({ folder: folder.path, page, another, url, complaints, stop, start });
        } finally {
          for (const context of contexts) {
            // Requests that a test holds back may be on their way.
            for (const page of context.pages()) await page.unrouteAll({ behavior: "ignoreErrors" });
            await context.close();
          }
          await stop();
        }
      },
    });
}

/**
 * Reads what follows from news of the server, again and again until it is as expected: rows, a run's state and what is
 * asked for anew come one after the other, and each is shown when it is there.
 */
export async function becomes<Value>(
  read: () => Promise<Value>,
  expected: Value,
  why?: string,
): Promise<void> {
  for (const end = performance.now() + LIMIT;;) {
    const found = await read();
    try {
      return assertEquals(found, expected, why);
    } catch (error) {
      if (performance.now() > end) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

/** Waits until the page has painted what it was told before. */
export async function painted(page: Page): Promise<void> {
  await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");
}

/** Where the page is, also within it: what playwright says of that comes later. */
export const addressOf = (page: Page): Promise<string> => page.evaluate("location.href");

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

/** What axe complains of, once the page has painted what it was told. */
export async function violations(page: Page): Promise<string[]> {
  await painted(page);
  await page.evaluate(AXE);
  return await page.evaluate(
    `axe.run({ preload: { assets: ["cssom", "media"], timeout: ${LIMIT} } }).then(({ violations }) => violations.flatMap(({ id, nodes }) => nodes.map(({ html, failureSummary }) =>
      id + ": " + html.slice(0, 200) + " " + failureSummary)))`,
  ) as string[];
}
