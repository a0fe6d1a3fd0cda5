/** That the list of faults is not stale; `deno task mutants` plants them. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { MUTANTS, occurrences } from "./mutants.ts";

const ROOT = new URL("../", import.meta.url);

Deno.test("what a fault replaces stands exactly once in its file, and its test is there", async () => {
  for (const { name, file, find, replace, test } of MUTANTS) {
    const text = await Deno.readTextFile(new URL(file, ROOT));
    assertEquals(occurrences(text, find), 1, `${name}: ${find} in ${file}`);
    assertNotEquals(find, replace, name);
    assert((await Deno.stat(new URL(test, ROOT))).isFile, test);
  }
});

Deno.test("every fault has a name of its own", () => {
  assertEquals(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length);
});
