/**
 * Asks the hub: redirects followed by hand, so that the token goes to the hub's own host alone; refusals in one sentence
 * each; what may pass by itself asked again.
 *
 * @module
 */
import project from "../../deno.json" with { type: "json" };
import { inputError, UserError } from "../errors.ts";
import { isObject } from "../files.ts";
import type { HubEnvironment } from "./environment.ts";
import { nameOf, type Repository } from "./names.ts";

/** Redirects of one request at most. */
const MOST_HOPS = 8;
/** Failures one behind the other, without a byte between them, after which no more is tried. */
export const MOST_FAILURES = 6;
/** Milliseconds before the second try; twice as long before each further one. */
const FIRST_PAUSE_MS = 500;
/** Milliseconds between two tries at most, also where the hub asks for more. */
const LONGEST_PAUSE_MS = 300_000;
/** Milliseconds without a byte after which a connection is taken for dead. */
const PATIENCE_MS = 30_000;
/** Characters of an answer in JSON at most: a listing of a thousand files has 300,000. */
const MOST_JSON = 1 << 26;

/** A connection that broke, an answer that may be another soon, or a server's own fault: worth another try. */
export class PassingError extends Error {
  /** Milliseconds that the hub asks to wait. */
  readonly after?: number;

  /** @param after milliseconds that the hub asks to wait */
  constructor(message: string, options: ErrorOptions & { after?: number } = {}) {
    super(message, options);
    this.name = "PassingError";
    this.after = options.after;
  }
}

/** What a request is about, for messages. */
export interface About {
  repository: Repository;
  /** Left out: the repository itself. */
  revision?: string;
  /** One of its files. */
  path?: string;
}

/** How a client waits. */
export interface ClientOptions {
  /** Aborted to end it; what has come stays. */
  signal?: AbortSignal;
  /** What the user should know while it waits. */
  onMessage?(text: string): void;
  /** Milliseconds without a byte after which a connection is taken for dead. */
  patience?: number;
  /** Milliseconds before the second try. */
  firstPause?: number;
}

/** Asks one hub. */
export class HubClient {
  /** Whom it asks, and as who. */
  readonly environment: HubEnvironment;
  /** Aborted when nothing more is wanted. */
  readonly signal: AbortSignal;
  readonly #options: ClientOptions;
  readonly #origin: string;

  /** A client of the hub of an environment. */
  constructor(environment: HubEnvironment, options: ClientOptions = {}) {
    this.environment = environment;
    this.signal = options.signal ?? new AbortController().signal;
    this.#options = options;
    this.#origin = new URL(environment.endpoint).origin;
  }

  /** The same client, which another signal ends too. */
  until(signal: AbortSignal): HubClient {
    return new HubClient(this.environment, {
      ...this.#options,
      signal: AbortSignal.any([this.signal, signal]),
    });
  }

  /** Tells the user something. */
  say(text: string): void {
    this.#options.onMessage?.(text);
  }

  /**
   * An answer of JSON, and where the next page of a listing is.
   *
   * @param options `tries`: as of {@link persevering}
   * @throws {UserError} when the hub refuses it, cannot be reached, or answers something else
   */
  async json(
    address: string,
    about: About,
    { tries }: { tries?: number } = {},
  ): Promise<{ value: unknown; next?: string }> {
    return await this.persevering(about, async () => {
      const response = await this.get(address, about);
      const text = await this.#text(response);
      let value: unknown;
      try {
        value = JSON.parse(text);
      } catch {
        throw new PassingError(`${new URL(address).host} answered something that is no JSON`);
      }
      const [, next] = /<([^>]+)>\s*;\s*rel="?next"?/.exec(response.headers.get("link") ?? "") ?? [];
      return { value, ...(next === undefined ? {} : { next: new URL(next, address).href }) };
    }, tries);
  }

  /** A body's text, within bounds. */
  async #text(response: Response): Promise<string> {
    const decoder = new TextDecoder();
    let text = "";
    for await (const bytes of this.bytes(response)) {
      text += decoder.decode(bytes, { stream: true });
      if (text.length > MOST_JSON) throw new PassingError("the answer is longer than any listing");
    }
    return text + decoder.decode();
  }

  /**
   * Does what may fail for a while, again and again, until it has failed several times without getting on.
   *
   * @param work `progressed` is to be called whenever something new has come
   * @param tries how many failures one behind the other end it
   * @throws {UserError} when it keeps failing; whatever else the work throws
   */
  async persevering<Result>(
    about: About,
    work: (progressed: () => void) => Promise<Result>,
    tries: number = MOST_FAILURES,
  ): Promise<Result> {
    for (let failures = 1;; failures++) {
      try {
        return await work(() => failures = 0);
      } catch (error) {
        this.signal.throwIfAborted();
        if (!(error instanceof PassingError)) throw error;
        if (failures >= tries) {
          const times = failures > 1 ? `, ${failures} times in a row` : "";
          const stays = about.path === undefined
            ? ""
            : "; what has come stays, and the next start goes on from there";
          throw inputError(`Cannot fetch ${whatOf(about)} as ${error.message}${times}${stays}`, {
            cause: error,
          });
        }
        await this.#pause(error, failures);
      }
    }
  }

  async #pause({ after, message }: PassingError, failures: number): Promise<void> {
    const { firstPause = FIRST_PAUSE_MS } = this.#options;
    const wait = Math.min(LONGEST_PAUSE_MS, after ?? firstPause * 2 ** Math.max(0, failures - 1));
    if (wait >= 5_000) this.say(`${message}: trying again in ${Math.round(wait / 1000)} s`);
    // Whoever was told may have had enough.
    this.signal.throwIfAborted();
    await new Promise<void>((resolve) => {
      const timer = setTimeout(done, wait);
      const signal = this.signal;
      function done(): void {
        clearTimeout(timer);
        signal.removeEventListener("abort", done);
        resolve();
      }
      signal.addEventListener("abort", done);
    });
    this.signal.throwIfAborted();
  }

  /**
   * An answer with a body, from wherever the hub redirects to.
   *
   * @param from first byte that is wanted
   * @throws {UserError} when the hub refuses it
   * @throws {PassingError} when it may be had a little later
   */
  async get(address: string, about: About, from = 0): Promise<Response> {
    let url = new URL(address);
    for (let hop = 0; hop < MOST_HOPS; hop++) {
      const response = await this.#ask(url, from, about);
      const { status, headers } = response;
      if (status === 200 || status === 206) return response;
      const location = headers.get("location");
      if (status < 300 || status >= 400 || location === null || !URL.canParse(location, url)) {
        await this.drop(response);
        throw this.#refusal(response, url, about);
      }
      await this.drop(response);
      const next = new URL(location, url);
      if (!/^https?:$/.test(next.protocol) || (url.protocol === "https:" && next.protocol === "http:")) {
        throw inputError(
          `Cannot fetch ${whatOf(about)} as ${url.host} sends on to ${next.protocol}//, which is not safe`,
        );
      }
      url = next;
    }
    throw inputError(`Cannot fetch ${whatOf(about)} as the hub redirects more than ${MOST_HOPS} times`);
  }

  /** One request, without following anything. */
  async #ask(url: URL, from: number, about: About): Promise<Response> {
    const { token } = this.environment;
    const headers = new Headers({
      "user-agent": `sparse-attention/${project.version}; deno/${Deno.version.deno}`,
      // Compressed, a part of it would not be a part of the file.
      "accept-encoding": "identity",
    });
    if (token && url.origin === this.#origin) headers.set("authorization", `Bearer ${token}`);
    if (from > 0) headers.set("range", `bytes=${from}-`);
    const patience = new Patience(this.#options.patience ?? PATIENCE_MS, this.signal);
    try {
      const response = await fetch(url, { headers, redirect: "manual", signal: patience.signal });
      this.#patience.set(response, patience);
      return response;
    } catch (error) {
      patience.end();
      this.signal.throwIfAborted();
      if (error instanceof Deno.errors.NotCapable || error instanceof Deno.errors.PermissionDenied) {
        throw inputError(
          `Cannot fetch ${
            whatOf(about)
          } as this process may not reach ${url.host}: it is neither one of the hub's hosts ` +
            `nor HF_ENDPOINT's`,
          { cause: error },
        );
      }
      throw new PassingError(`${url.host} cannot be reached`, { cause: error });
    }
  }

  /** What ends an answer that no longer comes. */
  readonly #patience = new WeakMap<Response, Patience>();

  /**
   * A body's pieces as they come.
   *
   * @throws {PassingError} when the connection breaks, or nothing comes any more
   */
  async *bytes(response: Response): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const patience = this.#patience.get(response);
    try {
      for await (const piece of response.body ?? []) {
        patience?.again();
        yield piece;
      }
    } catch (error) {
      this.signal.throwIfAborted();
      // What whoever reads the pieces throws does not come by here.
      throw new PassingError("the connection broke off", { cause: error });
    } finally {
      patience?.end();
    }
  }

  /** Ends an answer whose body is not wanted. */
  async drop(response: Response): Promise<void> {
    this.#patience.get(response)?.end();
    // It may have broken already.
    await response.body?.cancel().catch(() => {});
  }

  /** The sentence for an answer that is no success. */
  #refusal(response: Response, url: URL, about: About): Error {
    const { status, headers } = response;
    const { repository, revision, path } = about;
    const { endpoint, token } = this.environment;
    const what = whatOf(about);
    const ofHub = url.origin === this.#origin;
    const page = `${endpoint}/${repository.kind === "dataset" ? "datasets/" : ""}${repository.name}`;
    const kind = repository.kind === "dataset" ? "data set" : "model";
    if (status === 408 || status === 429 || status >= 500) {
      return new PassingError(`${url.host} answered ${status}`, { after: retryAfter(headers) });
    }
    // A signed address may have run out; the hub gives another.
    if (!ofHub) return new PassingError(`${url.host} answered ${status}`);
    const code = headers.get("x-error-code");
    const said = headers.get("x-error-message") ?? "";
    if (token && status === 401 && /credentials|token/i.test(said)) {
      return inputError(
        `Cannot fetch ${what} as the hub does not know the token that HF_TOKEN or the token file holds`,
      );
    }
    if (code === "GatedRepo") {
      return inputError(
        `Cannot fetch ${what} as it is gated: ask for access at ${page}` +
          (token ? " with the account of the token" : ", and give that account's token in HF_TOKEN"),
      );
    }
    if (code === "RevisionNotFound") {
      return new MissingError(`Cannot fetch ${what} as it has no revision ${revision ?? "main"}`, "revision");
    }
    if (code === "EntryNotFound") {
      return new MissingError(`Cannot fetch ${what} as it has no ${path ?? "such file"}`, "entry");
    }
    if (code === "RepoNotFound" || status === 401 || status === 404) {
      return new MissingError(
        `Cannot fetch ${what} as ${url.host} has no such ${kind}, or shows it to ` +
          (token ? "other accounts than the token's" : "some accounts only, whose token belongs in HF_TOKEN"),
        "repository",
      );
    }
    const reason = said ? `: ${said.slice(0, 200)}` : "";
    return inputError(`Cannot fetch ${what} as ${url.host} answered ${status}${reason}`);
  }
}

/** Something that the hub does not have. */
export class MissingError extends UserError {
  /** What is not there. */
  readonly missing: "repository" | "revision" | "entry";

  /** An error of exit code 3. */
  constructor(message: string, missing: MissingError["missing"]) {
    super(inputError("").exitCode, message);
    this.missing = missing;
  }
}

/** Whether an error says that the hub has no such repository, or could not be asked for it. */
export function isNowhere(error: unknown): boolean {
  if (error instanceof MissingError) return error.missing === "repository";
  return error instanceof UserError && error.cause instanceof PassingError;
}

/** What messages call what is fetched. */
export function whatOf({ repository, revision, path }: About): string {
  const name = nameOf(repository, revision === "main" ? undefined : revision);
  return path === undefined ? name : `${path} of ${name}`;
}

/** Milliseconds that an answer asks to wait; undefined where it does not say. */
function retryAfter(headers: Headers): number | undefined {
  const text = headers.get("retry-after");
  if (text === null) return undefined;
  const wait = /^\d+$/.test(text) ? 1000 * Number(text) : Date.parse(text) - Date.now();
  return Number.isFinite(wait) ? Math.max(0, wait) : undefined;
}

/** Aborts where nothing has come for a while. */
class Patience {
  readonly signal: AbortSignal;
  readonly #milliseconds: number;
  readonly #ended = new AbortController();
  #timer: ReturnType<typeof setTimeout>;

  constructor(milliseconds: number, other: AbortSignal) {
    this.#milliseconds = milliseconds;
    this.signal = AbortSignal.any([other, this.#ended.signal]);
    this.#timer = this.#start();
  }

  #start(): ReturnType<typeof setTimeout> {
    return setTimeout(() => this.#ended.abort(new Error("nothing came")), this.#milliseconds);
  }

  again(): void {
    clearTimeout(this.#timer);
    this.#timer = this.#start();
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}

/** An object of JSON, or the error that the hub answered something else. */
export function asObject(value: unknown, about: About): Record<string, unknown> {
  if (isObject(value)) return value;
  throw inputError(`Cannot fetch ${whatOf(about)} as the hub's answer is none that is known`);
}
