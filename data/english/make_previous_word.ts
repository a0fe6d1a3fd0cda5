/**
 * Makes previous-word.jsonl, prompts in which the word before the last decides what follows, for `deno task circuits`. From the
 * text's trigrams: `a b` is most often followed by c and `z b` by d. The prompt is a piece of the text that ends in
 * `a b`; in its corruption a is replaced by z; c is right and d is wrong.
 *
 *     deno run --allow-read --allow-write data/english/make_previous_word.ts
 *
 * @module
 */
import { readDocuments } from "../../pipeline/text/documents.ts";
import { randomStream } from "../../kernels/core/random.ts";
import { loadTokenizer } from "../../pipeline/text/tokenizer.ts";

const folder = new URL(".", import.meta.url).pathname;
/** Tokens of a prompt. */
const LENGTH = 12;
/** Pairs in the file, and at most of one last word. */
const PAIRS = 64;
const OF_ONE_WORD = 4;
/** How often a pair of tokens must occur, and how often what follows must be the same. */
const LEAST = 25;
const SHARE = 0.5;

const tokenizer = await loadTokenizer(folder);
const texts: number[][] = [];
for await (const document of readDocuments([folder + "text.jsonl.gz"])) {
  if (document.kind === "text") texts.push(Array.from(tokenizer.encode(document.text)));
}
const isWord = (token: number): boolean => /^ [A-Za-z]+$/.test(tokenizer.decode([token]));

/** For each pair of words, how often what follows it. */
const following = new Map<string, Map<number, number>>();
for (const tokens of texts) {
  for (let n = 2; n < tokens.length; n++) {
    if (![tokens[n - 2], tokens[n - 1], tokens[n]].every(isWord)) continue;
    const key = `${tokens[n - 2]} ${tokens[n - 1]}`;
    if (!following.has(key)) following.set(key, new Map());
    const counts = following.get(key)!;
    counts.set(tokens[n], (counts.get(tokens[n]) ?? 0) + 1);
  }
}
/** Last word → the words before it that decide what follows. */
const deciding = new Map<number, { first: number; next: number }[]>();
for (const [key, counts] of following) {
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  const [next, most] = [...counts].reduce((best, entry) => entry[1] > best[1] ? entry : best);
  if (total < LEAST || most < SHARE * total) continue;
  const [first, last] = key.split(" ").map(Number);
  if (!deciding.has(last)) deciding.set(last, []);
  deciding.get(last)!.push({ first, next });
}

const random = randomStream(1);
const lines: string[] = [];
const ofWord = new Map<number, number>();
const order = texts.flatMap((tokens, text) => tokens.map((_, n) => [text, n] as const));
while (lines.length < PAIRS && order.length > 0) {
  const [text, end] = order.splice(random.below(order.length), 1)[0];
  const tokens = texts[text];
  if (end < LENGTH) continue;
  const [first, last] = [tokens[end - 2], tokens[end - 1]];
  const choices = deciding.get(last) ?? [];
  const own = choices.find((choice) => choice.first === first);
  const others = choices.filter((choice) => own && choice.next !== own.next);
  if (!own || others.length === 0 || (ofWord.get(last) ?? 0) >= OF_ONE_WORD) continue;
  const other = others[random.below(others.length)];
  const clean = tokens.slice(end - LENGTH, end);
  const corrupted = clean.with(-2, other.first);
  const textOf = (prompt: number[]): string => tokenizer.decode(prompt);
  // A prompt that is not cut the same way when it is read again, as in the middle of a word, is of no use.
  const again = (prompt: number[]): boolean =>
    prompt.join() === Array.from(tokenizer.encode(textOf(prompt))).join();
  if (!again(clean) || !again(corrupted)) continue;
  ofWord.set(last, (ofWord.get(last) ?? 0) + 1);
  lines.push(JSON.stringify({
    clean: textOf(clean),
    corrupted: textOf(corrupted),
    answers: [tokenizer.decode([own.next])],
    wrong: [tokenizer.decode([other.next])],
    template: tokenizer.decode([last]).trim(),
  }));
}
await Deno.writeTextFile(folder + "previous-word.jsonl", lines.join("\n") + "\n");
console.log(`${lines.length} pairs of ${ofWord.size} last words`);
