import { assertEquals } from "@std/assert";
import { createTextStream } from "../../../pipeline/generation/text_stream.ts";
import { loadTokenizer } from "../../../pipeline/text/tokenizer.ts";

const ENGLISH = new URL("../../../data/english/", import.meta.url).pathname;

Deno.test("a character comes when its last byte's token has come, and the text is that of all tokens", async () => {
  const tokenizer = await loadTokenizer(ENGLISH);
  const text = "a naïve café 日本 👩‍👩‍👧 end";
  const tokens = tokenizer.encode(text);
  const stream = createTextStream(tokenizer, tokenizer.encode("Before"));
  const pieces = tokens.map((token) => stream.push(token));
  assertEquals(stream.end(), "");
  assertEquals(pieces.join(""), text);
  assertEquals(pieces.filter((piece) => piece.includes("\uFFFD")), []);
  // Of this vocabulary's text there is no CJK: each byte is a token.
  assertEquals(pieces.filter((piece) => piece === "日" || piece === "本").length, 2);
  assertEquals(pieces.filter((piece) => piece === "").length > 6, true);
});

Deno.test("a part of a character at the end is shown as such, once", async () => {
  const tokenizer = await loadTokenizer(ENGLISH);
  const tokens = tokenizer.encode("x日");
  const stream = createTextStream(tokenizer, []);
  const pieces = tokens.slice(0, -1).map((token) => stream.push(token));
  assertEquals(pieces.join(""), "x");
  assertEquals([stream.end(), stream.end()], ["\uFFFD", ""]);
});

Deno.test("a replacement character that is meant comes with the next token, and no other character is lost", async () => {
  const tokenizer = await loadTokenizer(ENGLISH);
  const text = "a\uFFFDb";
  const stream = createTextStream(tokenizer, []);
  const pieces = tokenizer.encode(text).map((token) => stream.push(token));
  assertEquals(pieces.join("") + stream.end(), text);
});

Deno.test("where the first token of a text loses its space, one behind others keeps it", () => {
  // As SentencePiece's decoder: every word begins with a space but the first.
  const words = ["▁The", "▁capital", "s", "▁of"];
  const decode = (tokens: Iterable<number>) =>
    [...tokens].map((token) => words[token]).join("").replaceAll("▁", " ").replace(/^ /, "");
  const behind = createTextStream({ decode }, [0]);
  assertEquals([1, 2, 3].map((token) => behind.push(token)), [" capital", "s", " of"]);
  const first = createTextStream({ decode }, []);
  assertEquals([0, 1, 2].map((token) => first.push(token)), ["The", " capital", "s"]);
});
