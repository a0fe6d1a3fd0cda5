/** A sample of what `deno task hostile` plays in full. */
import { assert, assertEquals } from "@std/assert";
import { canMount, playDisks } from "./disks.ts";
import { playFlips } from "./flips.ts";
import { brokenModels, playModels } from "./models.ts";

const linux = Deno.build.os === "linux";

Deno.test({
  name: "broken models and tokenizers are refused in one sentence each",
  ignore: !linux,
  async fn() {
    const sample = brokenModels(1).filter((_, n) => n % 5 === 0);
    const { refused, accepted } = await playModels(sample);
    assertEquals(refused + accepted.length, sample.length);
    assert(refused > 5 * accepted.length, accepted.join("; "));
  },
});

Deno.test({
  name: "a bit flipped in any file that a resume reads is noticed, or changes nothing",
  // The device's own handles end with the process.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    const { refused, said, harmless, files } = await playFlips({ places: 15, seed: 2 });
    assertEquals([refused + said + harmless, files.size], [15, 15]);
    assert(refused + said > 0);
  },
});

Deno.test({
  name: "a run on a disk that fills up says so, and ends with the same bits when there is room",
  ignore: !await canMount(),
  async fn() {
    const { full } = await playDisks([20, 180]);
    assertEquals(full, 2);
  },
});
