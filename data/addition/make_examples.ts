/**
 * Makes examples.jsonl.gz, every sum of two two-digit operands with its answer written low digit first
 * (`12+34=` → `640`), in a fixed shuffled order, and tokenizer.json, whose tokens are the characters.
 *
 *     deno run --allow-read --allow-write data/addition/make_examples.ts
 *
 * @module
 */
import { gzipSync } from "node:zlib";
import { bpeTokenizerJson } from "../../pipeline/text/bpe_trainer.ts";
import { permutation, randomStream } from "../../kernels/core/random.ts";

const folder = new URL(".", import.meta.url);
const digits = (n: number): string => String(n).padStart(2, "0");
const lines = Array.from(permutation(10_000, randomStream(0)), (pair) => {
  const [a, b] = [Math.floor(pair / 100), pair % 100];
  const answer = [...String(a + b).padStart(3, "0")].reverse().join("");
  return JSON.stringify({ prompt: `${digits(a)}+${digits(b)}=`, completion: answer });
});
const bytes = gzipSync(lines.join("\n") + "\n", { level: 9 });
// zlib leaves the time at 0 but writes the operating system; 255 is "unknown".
bytes[9] = 255;
await Deno.writeFile(new URL("examples.jsonl.gz", folder), bytes);
const tokenizer = bpeTokenizerJson([..."0123456789+="], []);
await Deno.writeTextFile(new URL("tokenizer.json", folder), JSON.stringify(tokenizer) + "\n");
