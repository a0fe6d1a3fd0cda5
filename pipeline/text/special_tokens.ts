/**
 * The tokens that begin and end a text, as a model's folder says which: config.json, generation_config.json,
 * tokenizer_config.json and the post-processor of tokenizer.json.
 *
 * @module
 */
import { join } from "node:path";
import { inputError } from "../errors.ts";
import { exists, isObject, readJson, shown, TOKENIZER_SETTINGS } from "../files.ts";
import { END_OF_TEXT } from "./bpe_trainer.ts";
import type { Part, TokenizerJson } from "./tokenizer_json.ts";

/** Everything beside a tokenizer.json that is looked at. */
export const BESIDE_TOKENIZER = ["config.json", ...TOKENIZER_SETTINGS] as const;

/** Ids of the tokens that begin and end a text. */
export interface SpecialTokens {
  /** Stands behind every document. */
  endOfText: number;
  /** All at which a text ends, {@link SpecialTokens.endOfText} first. */
  endsOfText: readonly number[];
  /** Stands before every document, prompt and window, of a model that was trained with one. */
  startOfText?: number;
}

/**
 * Finds the tokens that begin and end a text. What ends one: `eos_token_id` of config.json, of generation_config.json,
 * `eos_token` of tokenizer_config.json, what the post-processor's template puts behind a text, and for want of all these
 * an entry `<|endoftext|>`, `</s>` or `<eos>`. What begins one, if anything: what the template puts before a text, or,
 * where tokenizer_config.json has `add_bos_token`, its `bos_token` or the `bos_token_id` of the other two; where that is
 * false, nothing does.
 *
 * @param options `folder` has the files; `named` are the ids that a model's own config.json names, which come before what
 * stands in the folder
 * @throws {UserError} where a file is no JSON, no token ends a text, or one should begin it and is not named
 */
export async function findSpecialTokens(
  json: TokenizerJson,
  { entries, folder, file, named = {} }: {
    entries: ReadonlyMap<string, number>;
    folder: string;
    /** Path of the tokenizer.json, for messages. */
    file: string;
    named?: { endOfText?: number; startOfText?: number };
  },
): Promise<SpecialTokens> {
  const [config, tokenizer, generation] = await Promise.all(
    BESIDE_TOKENIZER.map((name) => settingsIn(join(folder, name))),
  );
  const ids = new Set(entries.values());
  const isEntry = (id: unknown): id is number => typeof id === "number" && ids.has(id);
  const listed = (value: unknown): number[] => (Array.isArray(value) ? value : [value]).filter(isEntry);
  const spelled = (value: unknown): number[] => listed(entries.get(contentOf(value) ?? ""));
  const template = templateOf(json.post_processor, entries);

  const ends = [
    ...new Set([
      ...listed(named.endOfText),
      ...listed(config.eos_token_id),
      ...listed(generation.eos_token_id),
      ...spelled(tokenizer.eos_token),
    ]),
  ];
  if (ends.length === 0) {
    const usual = [END_OF_TEXT, "</s>", "<eos>"].map((entry) => entries.get(entry));
    ends.push(...[template.after, ...usual].filter(isEntry).slice(0, 1));
  }
  if (ends.length === 0) {
    throw inputError(
      `Cannot use the tokenizer ${file} as it has no ${END_OF_TEXT}, </s> or <eos> to separate documents, nor does a ` +
        `config.json name another by eos_token_id`,
    );
  }
  const found = { endOfText: ends[0], endsOfText: ends };
  const adds = tokenizer.add_bos_token;
  if (adds === false) return found;
  let [startOfText] = listed(template.before);
  if (startOfText === undefined && adds === true) {
    [startOfText] = [
      ...spelled(tokenizer.bos_token),
      ...listed(named.startOfText),
      ...listed(config.bos_token_id),
      ...listed(generation.bos_token_id),
    ];
    if (startOfText === undefined) {
      throw inputError(
        `Cannot use the tokenizer ${file} as add_bos_token in ${
          join(folder, "tokenizer_config.json")
        } wants a token ` +
          `before every text, and bos_token must name an entry: ${shown(tokenizer.bos_token)}`,
      );
    }
  }
  return startOfText === undefined ? found : { ...found, startOfText };
}

/** An object in a file of JSON; one without fields where there is no file. */
async function settingsIn(path: string): Promise<Record<string, unknown>> {
  if (!await exists(path)) return {};
  const json = await readJson(path);
  if (!isObject(json)) throw inputError(`Cannot use ${path} as it must be a JSON object`);
  return json;
}

/** A token of tokenizer_config.json, which is a text or an object with one. */
function contentOf(value: unknown): string | undefined {
  const content = isObject(value) ? value.content : value;
  return typeof content === "string" ? content : undefined;
}

/** The first special token before a text and the first behind it, in a post-processor's template. */
function templateOf(
  part: Part | null | undefined,
  entries: ReadonlyMap<string, number>,
): { before?: number; after?: number } {
  if (part?.type === "Sequence" && Array.isArray(part.processors)) {
    for (const each of part.processors) {
      const found = isObject(each) ? templateOf(each, entries) : {};
      if (found.before !== undefined || found.after !== undefined) return found;
    }
    return {};
  }
  if (part?.type !== "TemplateProcessing" || !Array.isArray(part.single)) return {};
  const { special_tokens: tokens } = part;
  const idOf = (item: unknown): number | undefined => {
    const special = isObject(item) && isObject(item.SpecialToken) ? item.SpecialToken.id : undefined;
    if (typeof special !== "string") return undefined;
    const described = isObject(tokens) ? tokens[special] : undefined;
    const ids = isObject(described) && Array.isArray(described.ids) ? described.ids : [];
    return typeof ids[0] === "number" ? ids[0] : entries.get(special);
  };
  const text = part.single.findIndex((item) => isObject(item) && "Sequence" in item);
  if (text < 0) return {};
  return { before: idOf(part.single[text - 1]), after: idOf(part.single[text + 1]) };
}
