import { assertEquals } from "@std/assert";
import { loadTokenizer, type PromptPair } from "../mod.ts";
import { ADDITION } from "./support/tiny_model.ts";

Deno.test("what a tokenizer encodes stands in a pair of prompts as it is, and the pair is decoded as it is", async () => {
  const tokenizer = await loadTokenizer(ADDITION.tokenizer);
  // The types are what this is about: `deno check` fails where one does not take the other.
  const pair: PromptPair = {
    clean: tokenizer.encode("12+34="),
    corrupted: tokenizer.encode("50+21="),
    places: [{ position: 5, right: tokenizer.encode("6"), wrong: tokenizer.encode("1") }],
    template: "sums",
  };
  const tokens: number[] = tokenizer.encode("7").concat(pair.clean);
  assertEquals(tokenizer.decode(tokens), "712+34=");
  assertEquals(tokenizer.decode(pair.corrupted), "50+21=");
  assertEquals(tokenizer.decode(pair.places[0].right), "6");
});
