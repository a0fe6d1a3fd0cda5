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
    const output = new TextDecoder().decode(stdout);
    assertEquals(code, 0, output + new TextDecoder().decode(stderr));
    assert(/\b47 passed \| 0 failed\b/.test(output), output);
  },
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
