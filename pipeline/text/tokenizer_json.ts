/**
 * What is looked at in a tokenizer.json, and its entries.
 *
 * @module
 */
import { inputError } from "../errors.ts";
import { isObject, shown } from "../files.ts";

/** A normalizer, pre-tokenizer, post-processor or decoder, by its type. */
export interface Part {
  type?: unknown;
  [field: string]: unknown;
}

/** A token that is found in the text before anything else is done with it. */
export interface AddedToken {
  id: number;
  content: string;
  /** Left out: true. A special one is no part of a text; an ordinary one is. */
  special?: boolean;
  /** Found only where no letter, digit or underscore stands beside it. */
  single_word?: boolean;
  /** Takes the white space before it. */
  lstrip?: boolean;
  /** Takes the white space behind it. */
  rstrip?: boolean;
  /** Looked for in the normalised text, normalised too. */
  normalized?: boolean;
}

/** A model of byte-pair encoding. */
export interface BpeModel {
  vocab: Record<string, number>;
  merges: unknown;
  unk_token?: string | null;
  fuse_unk?: boolean;
  byte_fallback?: boolean;
  ignore_merges?: boolean;
  dropout?: number | null;
  continuing_subword_prefix?: string | null;
  end_of_word_suffix?: string | null;
}

/** A tokenizer.json, whose fields may be of any type until they are looked at. */
export interface TokenizerJson {
  added_tokens?: AddedToken[];
  normalizer?: Part | null;
  pre_tokenizer?: Part | null;
  post_processor?: Part | null;
  decoder?: Part | null;
  model?: { type?: string; vocab?: unknown; merges?: unknown; unk_token?: string | null };
}

/** Types of models that are known; old files name none and are BPE. */
const MODELS: readonly unknown[] = ["BPE", "Unigram", "WordLevel", "WordPiece"];
/** Ids beyond this are a slip, and would ask for an embedding that nothing can hold. */
const LARGEST_ID = 2 ** 24;

/** Whether the model is BPE. */
export const isBpe = ({ model }: TokenizerJson): boolean => (model?.type ?? "BPE") === "BPE";

/**
 * Every entry with its id, added tokens included.
 *
 * @throws {UserError} naming the entry whose id is none
 */
export function entriesOf(json: TokenizerJson, file: string): Map<string, number> {
  if (!isObject(json) || !isObject(json.model)) {
    throw inputError(`Cannot use the tokenizer ${file} as it has no model`);
  }
  const { type, vocab = {} } = json.model;
  if (type !== undefined && !MODELS.includes(type)) {
    throw inputError(
      `Cannot use the tokenizer ${file} as its model's type must be one of ${MODELS.join(", ")}: ${
        shown(type)
      }`,
    );
  }
  // Unigram models list pieces with their scores; an id is a place in the list.
  const listed = type === "Unigram" && Array.isArray(vocab) && vocab.every(Array.isArray);
  if (!listed && !isObject(vocab)) {
    throw inputError(`Cannot use the tokenizer ${file} as its vocabulary must be an object`);
  }
  const added = json.added_tokens ?? [];
  if (!Array.isArray(added) || !added.every(isObject)) {
    throw inputError(`Cannot use the tokenizer ${file} as its added_tokens must be a list of objects`);
  }
  const entries = new Map<string, number>();
  const put = (content: unknown, id: unknown): void => {
    if (typeof content !== "string" || !Number.isSafeInteger(id) || (id as number) < 0) {
      throw inputError(
        `Cannot use the tokenizer ${file} as the id of ${shown(content)} must be a whole number from 0: ${
          shown(id)
        }`,
      );
    }
    if ((id as number) > LARGEST_ID) {
      throw inputError(
        `Cannot use the tokenizer ${file} as the id of ${
          shown(content)
        } must be at most ${LARGEST_ID}: ${id}`,
      );
    }
    entries.set(content, id as number);
  };
  if (listed) (vocab as unknown[][]).forEach(([piece], id) => put(piece, id));
  else for (const [content, id] of Object.entries(vocab)) put(content, id);
  for (const { content, id } of added) put(content, id);
  return entries;
}
