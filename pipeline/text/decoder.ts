/**
 * Tokens to text, as Hugging Face's tokenizers does it.
 *
 * @module
 */
import { isObject } from "../files.ts";
import { byteCharacters } from "./bpe_trainer.ts";
import type { Part } from "./tokenizer_json.ts";

/** Turns entries into text. */
export interface Decoder {
  /** The text that entries spell. */
  decode(entries: readonly string[]): string;
  /** What an entry spells inside a text, with the space before it, which {@link Decoder.decode} may take from the first. */
  inside(entry: string): string;
}

/** One after the other changes a list of entries. */
type Step = (entries: string[]) => string[];

/** A decoder, or undefined where it is of a kind that is not known here. */
export function createDecoder(part: Part | null | undefined): Decoder | undefined {
  if (part?.type === "ByteLevel") return byteLevel();
  const parts = part?.type === "Sequence" && Array.isArray(part.decoders) ? part.decoders : [part];
  const steps: Step[] = [];
  const inside: Step[] = [];
  for (const each of parts) {
    if (!isObject(each)) return undefined;
    const step = stepOf(each);
    if (!step) return undefined;
    steps.push(step);
    if (each.type === "Metaspace") inside.push((entries) => step(["", ...entries]).slice(1));
    else if (each.type !== "Strip") inside.push(step);
  }
  const through = (all: readonly Step[], entries: readonly string[]): string =>
    all.reduce((before, step) => step(before), [...entries]).join("");
  return { decode: (entries) => through(steps, entries), inside: (entry) => through(inside, [entry]) };
}

/** Entries that spell bytes, one character each; what has another character in it is text as it stands. */
function byteLevel(): Decoder {
  const byteOf = new Map(byteCharacters().map((character, byte) => [character, byte]));
  const known = new Map<string, Uint8Array>();
  const encoder = new TextEncoder();
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const bytesOf = (entry: string): Uint8Array => {
    let bytes = known.get(entry);
    if (!bytes) {
      const spelled = Array.from(entry, (character) => byteOf.get(character));
      bytes = spelled.includes(undefined) ? encoder.encode(entry) : Uint8Array.from(spelled as number[]);
      known.set(entry, bytes);
    }
    return bytes;
  };
  const decode = (entries: readonly string[]): string => {
    const parts = entries.map(bytesOf);
    const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
    let at = 0;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    return decoder.decode(bytes);
  };
  return { decode, inside: (entry) => decode([entry]) };
}

function stepOf(part: Part): Step | undefined {
  const { type } = part;
  if (type === "Fuse") return (entries) => [entries.join("")];
  if (type === "ByteFallback") return bytesToText;
  if (type === "Replace") {
    const { content, pattern } = part as { content?: unknown; pattern?: { String?: unknown } };
    const plain = pattern?.String;
    if (typeof content !== "string" || typeof plain !== "string" || plain === "") return undefined;
    return (entries) => entries.map((entry) => entry.replaceAll(plain, () => content));
  }
  if (type === "Strip") {
    const { content = " ", start = 0, stop = 0 } = part as {
      content?: string;
      start?: number;
      stop?: number;
    };
    return (entries) =>
      entries.map((entry) => {
        let [from, to] = [0, entry.length];
        while (from < start && entry.startsWith(content, from * content.length)) from++;
        from *= content.length;
        for (let n = 0; n < stop && to > from && entry.endsWith(content, to); n++) to -= content.length;
        return entry.slice(from, Math.max(from, to));
      });
  }
  if (type === "Metaspace") {
    const { replacement = "▁", prepend_scheme = "always" } = part;
    if (typeof replacement !== "string" || replacement === "") return undefined;
    return (entries) =>
      entries.map((entry, n) =>
        entry.replaceAll(replacement, () => n === 0 && prepend_scheme !== "never" ? "" : " ")
      );
  }
  return undefined;
}

/** Entries that stand for a byte, such as <0x0A>, become text where a run of them is UTF-8, else a mark for each. */
function bytesToText(entries: string[]): string[] {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const texts: string[] = [];
  let bytes: number[] = [];
  const flush = (): void => {
    if (bytes.length === 0) return;
    try {
      texts.push(decoder.decode(Uint8Array.from(bytes)));
    } catch {
      texts.push("\ufffd".repeat(bytes.length));
    }
    bytes = [];
  };
  for (const entry of entries) {
    const [, byte] = /^<0x([0-9a-fA-F]{2})>$/.exec(entry) ?? [];
    if (byte !== undefined) bytes.push(parseInt(byte, 16));
    else {
      flush();
      texts.push(entry);
    }
  }
  flush();
  return texts;
}
