/**
 * Tokens of many texts, found by several ranks: the first reads the texts, in order, and each encodes as many characters of
 * them as the others. What is found does not depend on who found it.
 *
 * @module
 */
import type { Exchange } from "../parallel/exchange.ts";
import { withHelp } from "../parallel/with_help.ts";
import type { Example, TextPiece } from "./documents.ts";
import { type KnownTokens, openEncoder, type Tokenizer } from "./tokenizer.ts";

/** A text whose tokens are wanted. */
export interface TextToEncode {
  /** What it says. */
  text: string;
  /** Whether it goes on with one before it. */
  continued: boolean;
}

/** Encodes texts; undefined stands for one that could not be: whoever wants its tokens finds out why. */
export type EncodeMany = (texts: readonly TextToEncode[]) => Promise<(KnownTokens | undefined)[]>;

/** What the ranks are asked, and each of them. */
interface Asked {
  /** The tokenizer.json, the first time. */
  tokenizer: string | undefined;
  texts: readonly TextToEncode[];
}

/** What each of so many ranks is asked. */
const partsOf = ({ tokenizer, texts }: Asked, ranks: number): Asked[] =>
  sharesOf(texts, ranks).map(({ start, end }) => ({ tokenizer, texts: texts.slice(start, end) }));

/** Characters that are worth asking others for: fewer are encoded sooner than sent. */
const FEWEST_CHARACTERS = 1 << 15;
/** Characters for each rank at once: a piece of a long text. */
const CHARACTERS_OF_RANK = 1 << 20;

/** Where each rank's texts begin and end, of as many characters as the others' as whole texts allow. */
export function sharesOf(texts: readonly TextToEncode[], ranks: number): { start: number; end: number }[] {
  const total = texts.reduce((sum, { text }) => sum + text.length, 0);
  const shares: { start: number; end: number }[] = [];
  let [at, before] = [0, 0];
  for (let rank = 0; rank < ranks; rank++) {
    const start = at;
    while (at < texts.length && (rank === ranks - 1 || before < total * (rank + 1) / ranks)) {
      before += texts[at++].text.length;
    }
    shares.push({ start, end: at });
  }
  return shares;
}

function encodeAll(texts: readonly TextToEncode[], encode: Tokenizer["encodeKnown"]) {
  return texts.map(({ text, continued }) => {
    try {
      return encode(text, { continued });
    } catch {
      // Told by rank 0, which knows where the text stands.
      return undefined;
    }
  });
}

/** What finds the tokens of many texts at once. */
export interface SharedEncoder {
  /** Encodes them. */
  encode: EncodeMany;
  /** Characters that are worth encoding at once. */
  batch: number;
}

/** A rank's part of the help: encodes what it is sent, and brings it to rank 0. `onFound` is told how much that was. */
function createHelp(
  exchange: Exchange,
  onFound?: (texts: number) => void,
): (asked: Asked) => Promise<(KnownTokens | undefined)[]> {
  let encodeKnown: Tokenizer["encodeKnown"];
  return async ({ tokenizer, texts }) => {
    if (tokenizer !== undefined) encodeKnown = openEncoder(tokenizer, "the tokenizer of rank 0");
    const own = encodeAll(texts, encodeKnown);
    onFound?.(own.filter((known) => known !== undefined).length);
    return (await exchange.collect(own, "tokens")).flat();
  };
}

/**
 * Encodes what rank 0 asks for in {@link withEncoders}, at every other rank.
 *
 * @returns of how many texts this rank found the tokens
 */
export async function encodeForFirst(exchange: Exchange): Promise<number> {
  let found = 0;
  const help = createHelp(exchange, (texts) => found += texts);
  await withHelp(exchange, help, () => Promise.reject(new Error("this is done by rank 0")), partsOf);
  return found;
}

/**
 * Does `work` at rank 0, with all ranks encoding what it asks for: the others by {@link encodeForFirst}.
 *
 * @param readTokenizer gives the tokenizer.json, which all get
 */
export async function withEncoders<Result>(
  exchange: Exchange,
  readTokenizer: () => Promise<string>,
  work: (encoder: SharedEncoder) => Promise<Result>,
): Promise<Result> {
  let result: { of: Result } | undefined;
  await withHelp(exchange, createHelp(exchange), async (ask) => {
    let isGiven = false;
    const encoder: SharedEncoder = {
      batch: exchange.size * CHARACTERS_OF_RANK,
      async encode(texts) {
        const characters = texts.reduce((sum, { text }) => sum + text.length, 0);
        if (characters < FEWEST_CHARACTERS) return texts.map(() => undefined);
        const tokenizer = isGiven ? undefined : await readTokenizer();
        isGiven = true;
        return await ask({ tokenizer, texts });
      },
    };
    result = { of: await work(encoder) };
  }, partsOf);
  return result!.of;
}

/** A document with the tokens of its texts, as far as they are known. */
export interface EncodedAhead {
  document: TextPiece | Example;
  /** Of a piece one, of an example its prompts and completions in turn; left out: none is known. */
  known?: (KnownTokens | undefined)[];
}

/** An example's texts in their order. */
export const textsOf = (example: Example): string[] =>
  [example, ...(example.further ?? [])].flatMap(({ prompt, completion }) => [prompt, completion]);

/** Documents with tokens that are found for many at once. */
export async function* encodeAhead(
  documents: AsyncIterable<TextPiece | Example>,
  { encode, batch }: SharedEncoder,
): AsyncGenerator<EncodedAhead> {
  let held: { document: TextPiece | Example; texts: TextToEncode[] }[] = [];
  let characters = 0;
  let goesOn = false;
  async function* encoded(): AsyncGenerator<EncodedAhead> {
    const known = await encode(held.flatMap(({ texts }) => texts));
    let at = 0;
    for (const { document, texts } of held) yield { document, known: known.slice(at, at += texts.length) };
    [held, characters] = [[], 0];
  }
  for await (const document of documents) {
    const texts = document.kind === "text"
      ? [{ text: document.text, continued: goesOn }]
      : textsOf(document).map((text, n) => ({ text, continued: n > 0 }));
    goesOn = document.kind === "text" && !document.last;
    held.push({ document, texts });
    for (const { text } of texts) characters += text.length;
    if (characters >= batch) yield* encoded();
  }
  yield* encoded();
}
