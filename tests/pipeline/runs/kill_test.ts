/** Three kills here; `deno task hostile kills` plays a hundred. */
import { assertEquals } from "@std/assert";
import { playKills } from "../../hostile/kills.ts";

Deno.test("a run killed at random moments, while resuming it is killed too, ends with the same bits", async () => {
  const { kills } = await playKills({ kills: 3, seed: 7 });
  assertEquals(kills, 3);
});
