/**
 * Hostile requests as bytes for a socket, always the same for a seed, and a player that sees whether the server stands.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { type Seeded, seeded } from "../support/seeded.ts";
import { CANARY, faultOf, type Findings, inTurn, noFindings, type Site, TOKEN } from "./server.ts";

/** One connection's worth of hostility. */
export interface HostileRequest {
  /** What it tries, for a message. */
  name: string;
  /** Bytes to send, one after the other, with so many milliseconds between them. */
  pieces: Uint8Array[];
  pause: number;
  /**
   * `answer`: the server answers, or closes the connection. `silence`: the request is no whole one, and the server may
   * wait for the rest of its head as long as it likes. (That wait is Deno's own.)
   */
  wants: "answer" | "silence";
}

const latin1 = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, "latin1"));

const METHODS = [
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "DELETE",
  "PATCH",
  "OPTIONS",
  "TRACE",
  "CONNECT",
  "PROPFIND",
  "MKCOL",
]
  .concat("get", "G", "GE T", "PRI", "SSTP_DUPLEX_POST", "A".repeat(300), "é", "*");

const NAMES = [
  "healthy",
  "none",
  "..",
  ".",
  "%2e%2e",
  "..%2f..%2fsecret.html",
  "..%5c..%5csecret.html",
  "%2e%2e%2fsecret.html",
]
  .concat(
    "%252e%252e%252fsecret.html",
    "....//secret.html",
    "..;/secret.html",
    "%c0%ae%c0%ae%c0%afsecret.html",
    "secret.html%00",
  )
  .concat(
    "%00",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "file:%2f%2f%2fetc%2fpasswd",
    "%u002e%u002e",
    "%",
    "%zz",
    "%e0%80",
    "%ff%fe",
  )
  .concat(
    "a".repeat(300),
    "__proto__",
    "constructor",
    "toString",
    "healthy%20",
    "healthy%0d%0aX:%20y",
    "CON",
    "~root",
    "$HOME",
  )
  .concat(
    "`id`",
    "{{7*7}}",
    "<script>",
    "\u00e9",
    "*",
    "healthy/..",
    "healthy/../healthy",
    "-",
    "healthy?",
    "healthy#x",
    ";",
  );

const ROUTES: ((name: string) => string)[] = [
  (name) => `/${name}`,
  (name) => `/api/${name}`,
  (name) => `/api/runs/${name}`,
  (name) => `/api/runs/${name}/metrics`,
  (name) => `/api/runs/${name}/events`,
  (name) => `/api/runs/${name}/heads`,
  (name) => `/api/runs/${name}/checkpoints`,
  (name) => `/api/runs/${name}/attention`,
  (name) => `/api/runs/${name}/control`,
  (name) => `/runs/${name}/reports/report.html`,
  (name) => `/runs/healthy/reports/${name}`,
  (name) => `/page/${name}`,
  (name) => `/lib/${name}`,
  (name) => `/api/runs/healthy/metrics?since=${name}`,
  (name) => `/api/runs/healthy/metrics?points=${name}`,
  (name) => `/api/runs/healthy/events?since=${name}`,
];
const ADDRESSES = [
  "/",
  "/health",
  "/metrics",
  "/api/openapi.json",
  "/api/runs",
  "/lib/uplot.js",
  "/page/main.js",
  "/nothing",
]
  .concat(
    ["", "/metrics", "/events", "/heads", "/checkpoints", "/attention", "/control"].map((part) =>
      `/api/runs/healthy${part}`
    ),
  )
  .concat("/runs/healthy/reports/report.html");
const POSTED = ["/api/runs/healthy/attention", "/api/runs/healthy/control"];

const LINES = [
  "",
  " ",
  "\0",
  "GET",
  "GET /",
  "GET / HTTP",
  "GET / HTTP/9.9",
  "GET / HTTP/0.9",
  "GET / HTTP/1.0",
  "GET  /  HTTP/1.1",
]
  .concat(
    "GET\t/\tHTTP/1.1",
    "GET / HTTP/1.1 extra",
    "/ GET HTTP/1.1",
    "HTTP/1.1 200 OK",
    "GET \0 HTTP/1.1",
    "GET /\x80\xff HTTP/1.1",
  )
  .concat(
    "GET http://evil.example/ HTTP/1.1",
    "GET https://127.0.0.1/health HTTP/1.1",
    "GET //evil.example/health HTTP/1.1",
  )
  .concat(
    "GET ../../etc/passwd HTTP/1.1",
    "GET /../../etc/passwd HTTP/1.1",
    "GET * HTTP/1.1",
    "GET ? HTTP/1.1",
    "GET # HTTP/1.1",
  )
  .concat(
    "OPTIONS * HTTP/1.1",
    "CONNECT evil.example:443 HTTP/1.1",
    "CONNECT / HTTP/1.1",
    "GET /%00 HTTP/1.1",
    "GET /\\..\\.. HTTP/1.1",
  )
  .concat(
    "PRI * HTTP/2.0",
    "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "SSH-2.0-x",
    "EHLO x",
    "GET / HTTP/1.1\rX: y",
    "\r\n\r\nGET / HTTP/1.1",
  );

const HEADERS = [
  "Host: evil.example",
  "Host: 127.0.0.1.evil.example",
  "Host:",
  "Host: a b",
  "Host: [::1",
  "Host: 127.0.0.1:99999999",
]
  .concat(
    "Host: 127.0.0.1\r\nHost: evil.example",
    "Host: localhost\r\nX-Forwarded-Host: evil.example",
    "Host: \x80\xff",
    "Host: 127.0.0.1/../..",
  )
  .concat(
    "Host: user@127.0.0.1",
    "Host: 127.0.0.1#",
    "Host: 0x7f000001",
    "Host: 2130706433",
    "Host: localhost.",
    "Host: LOCALHOST:0",
  )
  .map((host) => `${host}\r\n`).concat(
    [
      "X",
      ": x",
      "X x",
      " X: y",
      "X:\0y",
      "X\0: y",
      "X: a\r\n b",
      "X: \xff\xfe",
      "\xff: y",
      "X".repeat(70_000) + ": y",
    ]
      .concat(
        "Content-Length: -1",
        "Content-Length: 1e3",
        "Content-Length: 99999999999999999999",
        "Content-Length: 5\r\nContent-Length: 6",
      )
      .concat(
        "Content-Length: 0x10",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: \x0bchunked",
      )
      .concat(
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Expect: 100-continue",
        "Expect: nonsense",
        "Upgrade: websocket\r\nConnection: Upgrade",
      )
      .concat(
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAAA",
        "Connection: close, X",
        "Te: trailers",
        "Trailer: X",
      )
      .concat(
        "Authorization: Bearer",
        "Authorization: Bearer  x",
        `Authorization: Bearer ${"x".repeat(9000)}`,
        "Authorization: Basic YTpi",
      )
      .concat(
        "Accept: text/csv;q=nonsense",
        `Accept: ${",".repeat(8000)}`,
        "Accept: \x80",
        `Accept: ${"a/b;q=0.1,".repeat(1000)}`,
        "Accept-Encoding: br;q=9",
      )
      .concat(
        "Range: bytes=0-",
        "Range: bytes=-1",
        "Range: bytes=9-1",
        "Range: bytes=0-1,2-3,4-5",
        "Range: lines=1",
        `Range: bytes=${"0-1,".repeat(2000)}`,
      )
      .concat(
        "If-None-Match: *",
        "If-None-Match: W/",
        'If-None-Match: "',
        `If-None-Match: ${'"a",'.repeat(3000)}`,
        `If-None-Match: ${" ".repeat(9000)}"`,
      )
      .concat(
        "If-Match: *",
        "If-Modified-Since: yesterday",
        "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT",
        "If-Range: x",
        "If-Unmodified-Since: 0",
      )
      .concat(
        "Last-Event-ID: sparse:99999999999999999999",
        "Last-Event-ID: ../../x",
        "Last-Event-ID: \x80",
        "Last-Event-ID: control:-1",
        "Last-Event-ID: sparse:1",
      )
      .concat(
        "Cookie: a=b",
        `Cookie: ${"a=b; ".repeat(3000)}`,
        "Origin: https://evil.example",
        "Origin: null",
        "X-Forwarded-For: 127.0.0.1",
      )
      .concat(
        "Content-Type: application/json; charset=utf-7",
        "Content-Type: multipart/form-data; boundary=x",
        "Content-Encoding: gzip",
        "X-HTTP-Method-Override: DELETE",
      )
      .map((header) => `Host: 127.0.0.1\r\n${header}\r\n`),
  );

const deep = (open: string, close: string, levels: number): string =>
  open.repeat(levels) + close.repeat(levels);
const BODIES = [
  "",
  "{",
  "}",
  "null",
  "[]",
  "[[]]",
  '"text"',
  "3",
  "true",
  "NaN",
  "{}",
  '{"prompt":null}',
  '{"prompt":""}',
  '{"prompt":[]}',
  '{"prompt":{"$ne":1}}',
]
  .concat(
    '{"prompt":1e999}',
    '{"prompt":"a","model":"other"}',
    '{"prompt":"a","model":null}',
    '{"prompt":"a","model":["sparse"]}',
    '{"prompt":"a","threshold":"0"}',
  )
  .concat(
    '{"prompt":"a","threshold":1e400}',
    '{"prompt":"a","threshold":-0.1}',
    '{"prompt":"a","path":"/etc/passwd"}',
    `{"prompt":"${"\\ud800".repeat(900)}"}`,
  )
  .concat(
    `{"prompt":"${"\\u0000".repeat(900)}"}`,
    `{"prompt":"${"x".repeat(5000)}"}`,
    `{"prompt":"${"x".repeat(17_000)}"}`,
    "\0".repeat(1000),
    " ".repeat(16_000),
  )
  .concat(
    deep("[", "]", 8000),
    deep('{"a":', "}", 2500),
    "[".repeat(16_000),
    '{"a":'.repeat(3000),
    `[${"0,".repeat(7000)}0]`,
    `{"prompt":"a"${',"b":1'.repeat(2000)}}`,
  )
  .concat(
    '{"paused":1}',
    '{"paused":null}',
    '{"stop":"yes"}',
    '{"slack":"0"}',
    '{"slack":null}',
    '{"slack":1e308}',
    '{"slack":-1e308}',
    '{"slack":[0]}',
  )
  .concat(
    '{"__proto__":{"paused":true}}',
    '{"constructor":{"prototype":{}}}',
    '{"paused":true,"paused":false,"x":1}',
    '{"kill":true}',
    "\xff\xfe{\0}\0",
    "\xc3\x28",
    "\xef\xbb\xbf{}",
  )
  .concat(
    "paused=true",
    "<xml/>",
    "--x\r\n\r\n--x--",
    `{"a":${"9".repeat(10_000)}}`,
    '{"\\u0070rompt":"a","model":"\\u0000"}',
    '{"prompt":"a","model":"dense","threshold":2}',
  );
const TYPES = [
  "application/json",
  "application/json; charset=utf-8",
  "APPLICATION/JSON",
  "text/plain",
  "application/x-www-form-urlencoded",
  "",
  "application/jsonx",
  "\x80",
];

const CHUNKS = [
  "zz\r\n{}\r\n0\r\n\r\n",
  "-1\r\n{}\r\n0\r\n\r\n",
  "2 \r\n{}\r\n0\r\n\r\n",
  "2;x=y\r\n{}\r\n0\r\n\r\n",
  "0x2\r\n{}\r\n0\r\n\r\n",
  "2\n{}\n0\n\n",
  "02\r\n{}\r\n00\r\n\r\n",
]
  .concat(
    "fffffffffffffffff\r\n{}",
    "2\r\n{}X\r\n0\r\n\r\n",
    "2\r\n{}\r\n0\r\nX: y\r\n\r\n",
    `0\r\n${"X: y\r\n".repeat(2000)}\r\n`,
    `2;${"x".repeat(20_000)}\r\n{}\r\n0\r\n\r\n`,
  )
  .concat(
    "0\r\n\r\n",
    "0\r\n\r\nGET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    `${"1\r\n \r\n".repeat(3000)}0\r\n\r\n`,
    `${"1\r\n \r\n".repeat(17_000)}0\r\n\r\n`,
    "1\r\n\xff\r\n0\r\n\r\n",
  );
/** Bodies that never end: the server gives up at its own limit. */
const UNFINISHED = [
  "ffffffffffffffff\r\n{}",
  "2\r\n{",
  "2\r\n{}\r\n",
  "2\r\n{}\r\n0\r\n",
  "1",
  "",
  "ffffffff\r\n" + "x".repeat(100),
];

/** A request's head, closed by its empty line. */
function head(method: string, path: string, headers = "Host: 127.0.0.1\r\n", close = true): string {
  return `${method} ${path} HTTP/1.1\r\n${headers}${close ? "Connection: close\r\n" : ""}\r\n`;
}

function posted(path: string, body: string, headers = "", type = "application/json"): string {
  return head(
    "POST",
    path,
    `Host: 127.0.0.1\r\nContent-Type: ${type}\r\nAuthorization: Bearer ${TOKEN}\r\n${headers}Content-Length: ${body.length}\r\n`,
  ) + body;
}

type Maker = (random: Seeded) => HostileRequest;
const pick = <Item>(random: Seeded, items: readonly Item[]): Item => items[random.integer(items.length)];
const once = (name: string, text: string, wants: HostileRequest["wants"] = "answer"): HostileRequest => ({
  name,
  pieces: [latin1(text)],
  pause: 0,
  wants,
});

/** Every combination that is worth a try for itself. */
function* planned(): Generator<HostileRequest> {
  for (const line of LINES) {
    yield once(`line ${line}`, `${line}\r\nHost: 127.0.0.1\r\n\r\n`);
    yield once(`bare line ${line}`, `${line}\n\n`, "silence");
    yield once(`unfinished line ${line}`, line, "silence");
  }
  for (const header of HEADERS) {
    for (const path of ["/health", "/api/runs/healthy/metrics", "/"]) {
      yield once(`header ${header}`, head("GET", path, header));
    }
    yield once(`header ${header} of a body`, head("POST", POSTED[0], header) + "{}");
  }
  for (const route of ROUTES) {
    for (const name of NAMES) yield once(`GET ${route(name)}`, head("GET", route(name)));
  }
  for (const method of METHODS) {
    for (const path of ADDRESSES) yield once(`${method} ${path}`, head(method, path));
  }
  for (const body of BODIES) {
    for (const path of POSTED) {
      for (const type of TYPES) yield once(`POST ${path} ${type} ${body}`, posted(path, body, "", type));
    }
  }
  for (const path of [...POSTED, "/health", "/nothing"]) {
    const chunked = head(
      "POST",
      path,
      `Host: 127.0.0.1\r\nContent-Type: application/json\r\nAuthorization: Bearer ${TOKEN}\r\nTransfer-Encoding: chunked\r\n`,
    );
    for (const body of CHUNKS) yield once(`chunked ${path} ${body}`, chunked + body);
    for (const body of UNFINISHED) yield once(`unfinished chunks ${path} ${body}`, chunked + body);
    for (const length of [1, 99, 16_384, 16_385, 1e15]) {
      const headers =
        `Host: 127.0.0.1\r\nContent-Type: application/json\r\nAuthorization: Bearer ${TOKEN}\r\nContent-Length: ${length}\r\n`;
      yield once(`unfinished body of ${length} ${path}`, head("POST", path, headers));
      yield once(`begun body of ${length} ${path}`, head("POST", path, headers) + (length > 1 ? "{" : ""));
    }
  }
  for (const size of [2000, 2049, 9000, 70_000, 500_000]) {
    yield once(`an address of ${size}`, head("GET", `/${"a".repeat(size)}`));
    yield once(`a query of ${size}`, head("GET", `/api/runs?${"a=b&".repeat(size / 4)}`));
    yield once(
      `a header of ${size}`,
      head("GET", "/health", `Host: 127.0.0.1\r\nX: ${"x".repeat(size)}\r\n`),
    );
    yield once(
      `${size / 8} headers`,
      head("GET", "/health", `Host: 127.0.0.1\r\n${"X: yyy\r\n".repeat(size / 8)}`),
    );
    yield once(
      `a header of ${size} that does not end`,
      `GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ${"x".repeat(size)}`,
      "silence",
    );
  }
}

/** Ways to make more of them by chance. */
const MAKERS: Maker[] = [
  (random) => {
    const path = pick(random, ROUTES)(pick(random, NAMES));
    const method = pick(random, METHODS);
    return once(`${method} ${path}`, head(method, path, pick(random, HEADERS)), "silence");
  },
  (random) =>
    once("a body by chance", posted(pick(random, POSTED), pick(random, BODIES), "", pick(random, TYPES))),
  // A good request with a few bytes changed.
  (random) => {
    const bytes = latin1(
      random.integer(2)
        ? posted(pick(random, POSTED), pick(random, BODIES))
        : head("GET", pick(random, ADDRESSES)),
    );
    const flips = 1 + random.integer(4);
    for (let n = 0; n < flips; n++) bytes[random.integer(Math.min(bytes.length, 300))] = random.integer(256);
    return { name: "flipped bytes", pieces: [bytes], pause: 0, wants: "silence" };
  },
  (random) => {
    const bytes = Uint8Array.from({ length: 1 + random.integer(3000) }, () => random.integer(256));
    return { name: "random bytes", pieces: [bytes], pause: 0, wants: "silence" };
  },
  // Many at once on one connection.
  (random) => {
    const count = 2 + random.integer(40);
    const requests = Array.from(
      { length: count },
      (_, n) =>
        random.integer(4)
          ? head(
            pick(random, ["GET", "HEAD", "OPTIONS"]),
            pick(random, ADDRESSES.slice(0, 8)),
            undefined,
            n === count - 1,
          )
          : head("GET", pick(random, ROUTES)(pick(random, NAMES)), undefined, n === count - 1),
    );
    return once(`${count} requests in one go`, requests.join(""), "silence");
  },
  // In small pieces, as over a bad line.
  (random) => {
    const text = random.integer(2)
      ? head("GET", pick(random, ADDRESSES))
      : posted(pick(random, POSTED), '{"prompt":1}');
    const bytes = latin1(text);
    const size = 1 + Math.floor(bytes.length / (2 + random.integer(8)));
    const pieces = [];
    for (let at = 0; at < bytes.length; at += size) pieces.push(bytes.subarray(at, at + size));
    return { name: `in ${pieces.length} pieces`, pieces, pause: 20, wants: "answer" };
  },
  // A head that never ends.
  (random) => {
    const text = head("GET", pick(random, ADDRESSES));
    return once("a head cut off", text.slice(0, 1 + random.integer(text.length - 2)), "silence");
  },
  (random) => {
    const place = pick(random, [
      "",
      "sparse:1",
      "sparse:99999999999",
      "nonsense",
      "%00",
      "control:0",
      "sparse:-1",
    ]);
    const headers = `Host: 127.0.0.1\r\nLast-Event-ID: ${
      pick(random, ["", "sparse:2", "x".repeat(3000), "\x80"])
    }\r\n`;
    return once(
      `events since ${place}`,
      head(pick(random, ["GET", "GET", "HEAD"]), `/api/runs/healthy/events?since=${place}`, headers),
    );
  },
];

/** So many hostile requests, the same for the same seed: all that are planned, then chance. */
export function hostileRequests(seed: number, count = 4000): HostileRequest[] {
  const random = seeded(seed);
  const requests = [...planned()];
  while (requests.length < count) requests.push(pick(random, MAKERS)(random));
  return requests;
}

/** A sample of so many, drawn without repeating. */
export function sampleOf<Item>(items: readonly Item[], count: number, seed: number): Item[] {
  const random = seeded(seed);
  const rest = [...items];
  return Array.from(
    { length: Math.min(count, rest.length) },
    () => rest.splice(random.integer(rest.length), 1)[0],
  );
}

/** Where a request may wait in vain, it is waited so many milliseconds for an answer all the same. */
const SILENCE_MS = 300;
const AT_ONCE = 48;

/** What came back: all that was read, and why no more. */
interface Reply {
  text: string;
  end: "answered" | "closed" | "silent";
}

/** Whether the first answer in `text` is there as a whole. */
function isWhole(text: string, isHead: boolean): boolean {
  const end = text.indexOf("\r\n\r\n");
  if (end < 0) return false;
  const headers = text.slice(0, end);
  const status = Number(headers.slice(9, 12));
  if (isHead || status === 204 || status === 304) return true;
  const [, length] = /\r\ncontent-length: (\d+)/i.exec(headers) ?? [];
  if (length !== undefined) return text.length >= end + 4 + Number(length);
  // The first event of a live run is enough.
  return /\r\ncontent-type: text\/event-stream/i.test(headers) || text.endsWith("0\r\n\r\n");
}

async function send(port: number, request: HostileRequest, limit: number): Promise<Reply> {
  const connection = await Deno.connect({ hostname: "127.0.0.1", port });
  let text = "";
  let end = "closed" as Reply["end"];
  const isHead = latin1("HEAD ").every((byte, n) => request.pieces[0][n] === byte);
  const timer = setTimeout(() => {
    end = "silent";
    connection.close();
  }, limit);
  const sending = (async () => {
    for (const piece of request.pieces) {
      for (let at = 0; at < piece.length;) at += await connection.write(piece.subarray(at));
      if (request.pause > 0) await new Promise((resolve) => setTimeout(resolve, request.pause));
    }
  })().catch(() => {});
  try {
    const buffer = new Uint8Array(1 << 16);
    const decoder = new TextDecoder("latin1");
    for (let count = await connection.read(buffer); count !== null; count = await connection.read(buffer)) {
      text += decoder.decode(buffer.subarray(0, count));
      if (!isWhole(text, isHead)) continue;
      end = "answered";
      break;
    }
  } catch {
    // Reset, or closed by the timer above.
  }
  clearTimeout(timer);
  if (end !== "silent") connection.close();
  await sending;
  return { text, end };
}

/**
 * Plays requests against a server.
 *
 * @param limit milliseconds within which each must be answered, or its connection closed
 */
export async function play(
  site: Site,
  requests: readonly HostileRequest[],
  limit: number,
): Promise<Findings> {
  const findings = noFindings();
  await inTurn(requests, AT_ONCE, async (request) => {
    const what = JSON.stringify(request.name).slice(0, 120);
    const begun = performance.now();
    let reply: Reply;
    try {
      reply = await send(site.port, request, request.wants === "answer" ? limit : SILENCE_MS);
    } catch (error) {
      findings.failures.push(`${what}: ${(error as Error).message}`);
      return;
    }
    const milliseconds = performance.now() - begun;
    if (request.wants === "answer" && milliseconds > findings.slowest.milliseconds) {
      findings.slowest = { milliseconds, what };
    }
    const faults = [...reply.text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) =>
      faultOf(Number(status), reply.text)
    );
    const fault = request.wants === "answer" && reply.end === "silent"
      ? `no answer within ${limit / 1000} s`
      : faults.find((found) => found !== undefined);
    if (fault) findings.failures.push(`${what}: ${fault}`);
    else findings.passed++;
  });
  const afterwards = await stands(site);
  if (afterwards) findings.failures.push(`afterwards: ${afterwards}`);
  return findings;
}

/** Live events in a crowd: more clients than there are places, who all leave without a word. */
export async function crowd(site: Site, clients: number, limit: number): Promise<Findings> {
  const findings = noFindings();
  const begun = performance.now();
  const statuses = new Map<string, number>();
  const connections: Deno.TcpConn[] = [];
  const places = Array.from({ length: clients }, (_, n) => n);
  await inTurn(places, AT_ONCE, async () => {
    const connection = await Deno.connect({ hostname: "127.0.0.1", port: site.port });
    connections.push(connection);
    await connection.write(latin1(head("GET", "/api/runs/healthy/events", undefined, false)));
    const buffer = new Uint8Array(1024);
    const count = await connection.read(buffer) ?? 0;
    const [, status = "none"] =
      /^HTTP\/1\.1 (\d+)/.exec(new TextDecoder().decode(buffer.subarray(0, count))) ?? [];
    statuses.set(status, (statuses.get(status) ?? 0) + 1);
  });
  for (const connection of connections) connection.close();
  for (const [status, count] of statuses) {
    if (status === "200" || status === "503") findings.passed += count;
    else findings.failures.push(`${count} clients were answered ${status}`);
  }
  if (!statuses.has("503")) findings.failures.push(`none of ${clients} clients was turned away`);
  while (true) {
    const text = await (await fetch(`${site.base}/metrics`)).text();
    if (/sparse_attention_clients 0\n/.test(text)) break;
    if (performance.now() - begun > limit) {
      findings.failures.push(`clients that left hold places: ${/sparse_attention_clients \d+/.exec(text)}`);
      break;
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  findings.slowest = { milliseconds: performance.now() - begun, what: `${clients} clients come and go` };
  const afterwards = await stands(site);
  if (afterwards) findings.failures.push(`afterwards: ${afterwards}`);
  return findings;
}

/** What keeps the server from being as before; undefined when it is. */
async function stands(site: Site): Promise<string | undefined> {
  if (!site.isUp()) return `the server ended: ${site.said().slice(-500)}`;
  if (site.said().includes(CANARY)) return "its log quotes a file";
  for (const path of ["/health", "/api/runs/healthy/metrics", "/api/runs/healthy"]) {
    const response = await fetch(site.base + path, { signal: AbortSignal.timeout(60_000) });
    await response.body?.cancel();
    if (response.status !== 200) return `${path} is answered ${response.status}`;
  }
  return undefined;
}
