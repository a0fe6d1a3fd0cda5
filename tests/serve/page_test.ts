/**
 * The page in headless Chromium, and what it weighs. Skipped where no Chromium is found (Debian: apt-get install
 * chromium), as a browser is not among what the project installs.
 */
import { assert, assertEquals } from "@std/assert";
import { readAssets } from "../../serve/assets.ts";
import { CHROMIUM } from "../support/chromium.ts";

if (!CHROMIUM) console.log("page_test: no Chromium was found, so the page is not tried in a browser");

Deno.test({
  name: "the page in a browser: every test of the three files in_browser passes",
  ignore: !CHROMIUM,
  async fn() {
    const tests = ["page_in_browser.ts", "statements_in_browser.ts", "reports_in_browser.ts"].map((name) =>
      new URL(name, import.meta.url).pathname
    );
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["test", "--no-check", "--allow-all", ...tests, "--", CHROMIUM!],
      env: { NO_COLOR: "1" },
    }).output();
    const [output, errors] = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes));
    if (code !== 0) throw new Error(failuresIn(output) + errors);
    assert(/\b47 passed \| 0 failed\b/.test(output), output);
  },
});

/** Which tests failed and why, of what `deno test` printed; all of it where it does not say. */
function failuresIn(output: string): string {
  const [, why = output] = /\n ERRORS \n([^]*)/.exec(output) ?? [];
  const names = [...output.matchAll(/^(.+) \.\.\. FAILED\b.*$/gm)].map(([, name]) => name);
  return `In the browser failed:\n${names.map((name) => `- ${name}\n`).join("")}${why}`;
}

Deno.test("of tests in the browser that failed the names come first, then why", () => {
  const told = failuresIn(
    "a page ... ok (1s)\nanother ... FAILED (2s)\n\n ERRORS \n\nanother => ./a.ts:1:1\nerror: it is not so\n",
  );
  assertEquals(told, "In the browser failed:\n- another\n\nanother => ./a.ts:1:1\nerror: it is not so\n");
  assertEquals(failuresIn("no module"), "In the browser failed:\nno module");
});

Deno.test("all that the page loads is less than 300 KB", async () => {
  const assets = await readAssets();
  const bytes = [...assets].filter(([path]) => path !== "/").reduce(
    (sum, [, asset]) => sum + asset.bytes.length,
    0,
  );
  // Measured: 99 KB.
  assert(bytes < 300_000, `${bytes} bytes`);
});
