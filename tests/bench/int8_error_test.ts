/** What int8 costs in every family stays within what was measured (docs/scale.md). */
import { assert, assertEquals } from "@std/assert";
import { FAMILIES } from "../../pipeline/model/families.ts";
import { readModelConfig } from "../../pipeline/model/config_file.ts";
import { int8Errors, TINY_MODELS, tokensByChance } from "./int8_error.ts";

/** Of a product: half a step of 1/127 of the largest of a column, evenly, is some 0.5 % of random weights' size. */
const [LEAST, MOST] = [0.004, 0.009];
/** Of the logits behind two layers; at most 3.8 % was measured (Llama 3). */
const MOST_OF_LOGITS = 0.045;

Deno.test("int8 takes from each product, and from the logits, what it was measured to take, in every family", async () => {
  const seen = new Set<string>();
  for (const folder of TINY_MODELS) {
    const config = await readModelConfig(folder);
    seen.add(config.family);
    const { products, logits } = await int8Errors(folder, config, tokensByChance(config));
    assertEquals(Object.keys(products).length, 4);
    for (const [product, error] of Object.entries(products)) {
      assert(error > LEAST && error < MOST, `${folder}, ${product}: ${error}`);
    }
    assert(logits > LEAST && logits < MOST_OF_LOGITS, `${folder}: ${logits}`);
  }
  assertEquals(seen, new Set(FAMILIES.keys()));
});
