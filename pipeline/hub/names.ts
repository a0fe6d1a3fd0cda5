/**
 * What stands on the hub, by the names that commands are given.
 *
 * @module
 */
import { usageError } from "../errors.ts";

/** A repository of the hub. */
export interface Repository {
  /** What it holds. */
  kind: "model" | "dataset";
  /** `owner/name`, or the bare name of an early model such as `gpt2`. */
  name: string;
}

/** A model on the hub. */
export interface HubModel extends Repository {
  /** A model. */
  kind: "model";
  /** Branch, tag, reference or commit. */
  revision: string;
}

/** A split of a data set on the hub. */
export interface HubData extends Repository {
  /** A data set. */
  kind: "dataset";
  /** Of its Parquet files; undefined: the newest. */
  revision?: string;
  /** One of its parts; undefined: `default`, or the only one. */
  config?: string;
  /** `train` where it is left out, or the only one. */
  split?: string;
}

/** What a data set's name begins with among paths. */
export const HUB_DATA = "hf:";

const PART = String.raw`[A-Za-z0-9_](?:[\w.-]*[\w])?`;
const NAME = `${PART}(?:/${PART})?`;
const MODEL = new RegExp(`^(${NAME})(?:@(\\w[\\w./-]*))?$`);
const DATA = new RegExp(`^hf:(${NAME})(?:@(\\w[\\w.-]*))?(?::([\\w.+-]+))?(?:/([\\w.+-]+))?$`);
/** Git and the cache's folders allow neither. */
const NEVER = /\.\.|--/;

/** The model that a text names; undefined where no model of the hub can be called so. */
export function hubModel(text: string): HubModel | undefined {
  const [, name, revision = "main"] = MODEL.exec(text) ?? [];
  if (name === undefined || NEVER.test(name) || /\.\.|\/\/|\/$/.test(revision)) return undefined;
  return { kind: "model", name, revision };
}

/** Whether a source of data is one of the hub. */
export function isHubData(source: string): boolean {
  return source.startsWith(HUB_DATA);
}

/**
 * The split that a source of data names.
 *
 * @throws {UserError} when it is not of the form `hf:owner/name[@revision][:config][/split]`
 */
export function hubData(source: string): HubData {
  const [, name, revision, config, split] = DATA.exec(source) ?? [];
  if (
    name === undefined || NEVER.test(name) || [revision, config, split].some((part) => part?.includes(".."))
  ) {
    throw usageError(
      `Cannot use data ${source} as it must be of the form hf:owner/name[@revision][:config][/split]`,
    );
  }
  return { kind: "dataset", name, revision, config, split };
}

/** What messages call a repository, or a revision of it. */
export function nameOf({ kind, name }: Repository, revision?: string): string {
  return (kind === "dataset" ? HUB_DATA : "") + name + (revision === undefined ? "" : `@${revision}`);
}

/** Whether a revision is a commit, which never changes. */
export function isCommit(revision: string): boolean {
  return /^[0-9a-f]{40}$/.test(revision);
}
