/**
 * A Hugging Face hub on this machine: the API for revisions and trees, `resolve` with large files on a second host, the
 * headers and error codes that clients live by, and every fault that a network has.
 */
import { createHash } from "node:crypto";

/** A repository as the server holds it. */
export interface ServedRepository {
  kind: "model" | "dataset";
  name: string;
  /** Revision → path → bytes. Files of {@link LARGE} or more bytes lie in large file storage. */
  revisions: Record<string, Record<string, Uint8Array>>;
  /** Only for holders of this token: as a gated or a private repository. */
  gated?: string;
  private?: string;
  /** What it is called now. */
  renamed?: string;
}

/** Bytes from which on a file is large. */
export const LARGE = 2048;
/** Files on one page of a listing. */
const PAGE = 3;

/** What the server does to a request for bytes, or for JSON, instead of answering it well. */
export type Fault =
  | { cutAfter: number }
  | { status: number; retryAfter?: number | string }
  | "stall"
  | "noRange"
  | "wrongPart"
  | "tooMuch"
  | { flip: number };

/** A request as it came. */
export interface Asked {
  host: "hub" | "storage";
  path: string;
  range?: string;
  token?: string;
}

/** The server, and what has happened there. */
export interface HubServer extends AsyncDisposable {
  /** For HF_ENDPOINT. */
  endpoint: string;
  /** All requests. */
  asked: Asked[];
  /** Bytes that were sent of each file. */
  sent: Map<string, number>;
  /** Decides what goes wrong with a request for bytes, by path, or of the API, `api revision` or `api tree`; undefined: nothing. */
  fault: (path: string, asked: Asked) => Fault | undefined;
  /** Requests for bytes that are being answered, and the most there were. */
  busy: { now: number; most: number };
}

const hex = (algorithm: "sha1" | "sha256", ...parts: (string | Uint8Array)[]): string => {
  const hash = createHash(algorithm);
  for (const part of parts) hash.update(part);
  return hash.digest("hex");
};

/** The name under which a file's bytes go: SHA-256 where it is large, else the SHA-1 of its git blob. */
export function etagOf(bytes: Uint8Array): string {
  return bytes.length >= LARGE ? hex("sha256", bytes) : hex("sha1", `blob ${bytes.length}\0`, bytes);
}

/** A commit that follows from a revision's files. */
export function commitOf(files: Record<string, Uint8Array>): string {
  return hex("sha1", ...Object.entries(files).flatMap(([path, bytes]) => [path, etagOf(bytes)]));
}

/** Starts a hub at two ports of this machine, one of them its storage. */
export function startHub(repositories: readonly ServedRepository[]): HubServer {
  const asked: Asked[] = [];
  const sent = new Map<string, number>();
  const busy = { now: 0, most: 0 };
  const stalled = new AbortController();
  const note = (host: Asked["host"], request: Request): Asked => {
    const { headers, url } = request;
    const one: Asked = {
      host,
      path: decodeURIComponent(new URL(url).pathname),
      range: headers.get("range") ?? undefined,
      token: headers.get("authorization")?.replace("Bearer ", ""),
    };
    asked.push(one);
    return one;
  };

  /** A file's bytes, or the part of them that is asked for, with whatever goes wrong. */
  function bytesOf(path: string, bytes: Uint8Array, one: Asked, headers: Record<string, string>): Response {
    const fault = server.fault(path, one);
    if (typeof fault === "object" && "status" in fault) return notNow(fault);
    const [, from] = /^bytes=(\d+)-$/.exec(one.range ?? "") ?? [];
    const takesParts = from !== undefined && fault !== "noRange";
    const start = takesParts ? Number(from) : 0;
    if (takesParts && start >= bytes.length) return new Response(null, { status: 416 });
    let part = bytes.slice(start);
    if (typeof fault === "object" && "flip" in fault) {
      part[Math.min(part.length - 1, Math.max(0, fault.flip - start))] ^= 1;
    }
    if (fault === "tooMuch") part = Uint8Array.of(...part, 1, 2, 3);
    const whole = part.length;
    const cut = typeof fault === "object" && "cutAfter" in fault && fault.cutAfter < whole;
    if (cut) part = part.slice(0, (fault as { cutAfter: number }).cutAfter);
    const shownStart = fault === "wrongPart" ? start + 1 : start;
    const status = takesParts ? 206 : 200;
    const range: Record<string, string> = takesParts
      ? { "content-range": `bytes ${shownStart}-${bytes.length - 1}/${bytes.length}` }
      : {};
    busy.now++;
    busy.most = Math.max(busy.most, busy.now);
    let at = 0;
    const body = new ReadableStream<Uint8Array>({
      async pull(controller) {
        if (fault === "stall" && at > 0) {
          await new Promise((resolve) => stalled.signal.addEventListener("abort", resolve, { once: true }));
        }
        const piece = part.subarray(at, at + 1500);
        if (piece.length > 0) {
          at += piece.length;
          sent.set(path, (sent.get(path) ?? 0) + piece.length);
          controller.enqueue(piece);
          // So that what came is with the client before the connection breaks.
          await new Promise((resolve) => setTimeout(resolve, cut && at === part.length ? 5 : 0));
          return;
        }
        busy.now--;
        if (cut) controller.error(new Error("cut"));
        else controller.close();
      },
      cancel: () => void busy.now--,
    });
    return new Response(body, { status, headers: { ...headers, ...range, "content-length": String(whole) } });
  }

  function notNow({ status, retryAfter }: { status: number; retryAfter?: number | string }): Response {
    const headers: HeadersInit = retryAfter === undefined ? {} : { "retry-after": String(retryAfter) };
    return new Response("not now", { status, headers });
  }

  const refuse = (status: number, code: string, message = ""): Response =>
    new Response(message, { status, headers: { "x-error-code": code, "x-error-message": message } });

  function onHub(request: Request): Response {
    const one = note("hub", request);
    const { pathname, searchParams, origin } = new URL(request.url);
    const [, api, kinds, rest] = /^\/(api\/)?(models|datasets)?\/?(.*)$/.exec(pathname)!;
    const kind = kinds === "datasets" ? "dataset" : "model";
    const repository = repositories.find((each) =>
      each.kind === kind && (rest + "/").startsWith(each.name + "/")
    );
    if (one.token === "unknown") return refuse(401, "", "Invalid credentials in Authorization header");
    const hidden = repository?.private !== undefined && repository.private !== one.token;
    // As the hub: whoever has no token might see it with one.
    if (!repository || hidden) return refuse(one.token ? 404 : 401, "RepoNotFound", "Repository not found");
    if (repository.renamed !== undefined) {
      const location = pathname.replace(repository.name, repository.renamed);
      return new Response(null, { status: 307, headers: { location } });
    }
    const [verb, revision = "main", ...parts] = rest.slice(repository.name.length + 1).split("/")
      .map(decodeURIComponent);
    const path = parts.join("/");
    const isCommit = ([name, files]: [string, Record<string, Uint8Array>]): boolean =>
      name === revision || commitOf(files) === revision;
    const files = Object.entries(repository.revisions).find(isCommit)?.[1];
    if (!files) return refuse(404, "RevisionNotFound", `Invalid rev id: ${revision}`);
    const commit = commitOf(files);
    const fault = api ? server.fault(`api ${verb}`, one) : undefined;
    if (typeof fault === "object" && "status" in fault) return notNow(fault);
    if (api && (verb === "revision" || verb === "")) {
      const siblings = Object.keys(files).map((rfilename) => ({ rfilename }));
      return Response.json({ id: repository.name, sha: commit, gated: Boolean(repository.gated), siblings });
    }
    if (api && verb === "tree") {
      const all = tree(files, path, searchParams.get("recursive") !== null);
      if (path && all.length === 0) return refuse(404, "EntryNotFound", "Entry not found");
      const from = Number(searchParams.get("cursor") ?? 0);
      const query = new URLSearchParams(searchParams);
      query.set("cursor", String(from + PAGE));
      const link = from + PAGE < all.length
        ? { link: `<${origin}${pathname}?${query}>; rel="next"` }
        : undefined;
      return Response.json(all.slice(from, from + PAGE), { headers: link });
    }
    if (verb !== "resolve") return refuse(404, "", "Not found");
    if (repository.gated !== undefined && repository.gated !== one.token) {
      return refuse(one.token ? 403 : 401, "GatedRepo", "Access is restricted");
    }
    const bytes = files[path];
    if (!bytes) return refuse(404, "EntryNotFound", "Entry not found");
    const headers = { "x-repo-commit": commit, "accept-ranges": "bytes" };
    const etag = etagOf(bytes);
    if (bytes.length < LARGE) {
      if (request.method === "HEAD") {
        return new Response(null, {
          headers: { ...headers, etag: `"${etag}"`, "content-length": String(bytes.length) },
        });
      }
      return bytesOf(path, bytes, one, { ...headers, etag: `"${etag}"` });
    }
    return new Response(null, {
      status: 302,
      headers: {
        ...headers,
        location: `http://127.0.0.1:${portOf(storage)}/${commit}/${
          encodeURIComponent(path)
        }?signature=secret`,
        "x-linked-etag": `"${etag}"`,
        "x-linked-size": String(bytes.length),
      },
    });
  }

  function onStorage(request: Request): Response {
    const one = note("storage", request);
    const { pathname, searchParams } = new URL(request.url);
    if (searchParams.get("signature") !== "secret") return new Response(null, { status: 403 });
    const [, commit, path] = pathname.split("/").map(decodeURIComponent);
    const files = repositories.flatMap(({ revisions }) => Object.values(revisions))
      .find((each) => commitOf(each) === commit);
    return bytesOf(path, files![path], one, { etag: `"another"` });
  }

  const port = {
    hostname: "127.0.0.1",
    port: 0,
    onListen: () => {},
    onError: () => new Response(null, { status: 500 }),
  };
  const storage = Deno.serve(port, onStorage);
  const hub = Deno.serve(port, onHub);
  const portOf = ({ addr }: typeof hub): number => (addr as Deno.NetAddr).port;
  const server: HubServer = {
    endpoint: `http://127.0.0.1:${portOf(hub)}`,
    asked,
    sent,
    busy,
    fault: () => undefined,
    async [Symbol.asyncDispose]() {
      stalled.abort();
      await Promise.all([hub.shutdown(), storage.shutdown()]);
    },
  };
  return server;
}

/** A listing as the tree API gives it. */
function tree(files: Record<string, Uint8Array>, folder: string, recursive: boolean): object[] {
  const below = folder === "" ? "" : folder + "/";
  const folders = new Set<string>();
  const found: object[] = [];
  for (const [path, bytes] of Object.entries(files)) {
    if (!path.startsWith(below)) continue;
    const rest = path.slice(below.length).split("/");
    for (let depth = 1; depth < rest.length && (recursive || depth === 1); depth++) {
      folders.add(below + rest.slice(0, depth).join("/"));
    }
    if (rest.length > 1 && !recursive) continue;
    const pointer = `oid sha256:${etagOf(bytes)}`;
    found.push(
      bytes.length >= LARGE
        ? {
          type: "file",
          path,
          oid: hex("sha1", pointer),
          size: bytes.length,
          lfs: { oid: etagOf(bytes), size: bytes.length, pointerSize: 134 },
          xetHash: hex("sha256", pointer),
        }
        : { type: "file", path, oid: etagOf(bytes), size: bytes.length },
    );
  }
  return [
    ...[...folders].map((path) => ({ type: "directory", path, oid: hex("sha1", path), size: 0 })),
    ...found,
  ];
}
