/** A thousand hostile requests: nothing outside the runs is read, nothing fails inside, no answer lacks its headers. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { createApp } from "../../serve/app.ts";
import { readAssets } from "../../serve/assets.ts";
import { openRuns } from "../../serve/runs.ts";
import { fakeRun } from "../support/fake_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { seeded } from "../support/seeded.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

const SECRET = "the-canary-sings";
const REQUESTS = 1000;

/** Ways to climb out of a folder, in encodings that one layer or another may undo. */
const CLIMBS = [
  "r",
  "../secret.html",
  "..%2fsecret.html",
  "%2e%2e%2fsecret.html",
  "%252e%252e%252fsecret.html",
  "..%5csecret.html",
  "..\\secret.html",
  "....//secret.html",
  "%c0%ae%c0%ae/secret.html",
  "..;/secret.html",
  "secret.html%00",
  "%00",
  "/etc/passwd",
  "%2fetc%2fpasswd",
  "file:%2f%2f%2fetc%2fpasswd",
  "link",
  "link.html",
  "\u2025\u2215secret.html",
  "CON",
  "a".repeat(300),
  "%",
  "%zz",
  "*",
  "r%20",
  "__proto__",
  "constructor",
];
const ROUTES = [
  (x: string) => `/api/runs/${x}`,
  (x: string) => `/api/runs/${x}/metrics`,
  (x: string) => `/api/runs/${x}/checkpoints`,
  (x: string) => `/api/runs/${x}/heads`,
  (x: string) => `/api/runs/${x}/events`,
  (x: string) => `/api/runs/${x}/attention`,
  (x: string) => `/api/runs/${x}/control`,
  (x: string) => `/runs/${x}/reports/report.html`,
  (x: string) => `/runs/r/reports/${x}`,
  (x: string) => `/runs/r/reports/${x}/report.html`,
  (x: string) => `/page/${x}`,
  (x: string) => `/lib/${x}`,
  (x: string) => `/${x}`,
  (x: string) => `/api/runs/r/metrics?since=${x}`,
  (x: string) => `/api/runs/r/metrics?points=${x}`,
  (x: string) => `/api/runs/r/events?since=${x}`,
];
const METHODS = ["GET", "GET", "GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"];
const BODIES = [
  "",
  "{",
  "null",
  "[]",
  '"text"',
  '{"prompt":{"$ne":1}}',
  '{"prompt":"' + "\\ud800".repeat(50) + '"}',
  '{"__proto__":{"paused":true}}',
  '{"paused":true,"stop":true,"slack":1e308}',
  '{"slack":NaN}',
  `{"prompt":"${"x".repeat(17_000)}"}`,
  "\0".repeat(100),
];
const HEADERS: Record<string, string>[] = [
  {},
  { Authorization: "Bearer " },
  { Authorization: "Bearer " + "x".repeat(500) },
  { Authorization: "Basic YTpi" },
  { Host: "evil.example" },
  { Host: "127.0.0.1.nip.example" },
  { Host: "" },
  { "Last-Event-ID": "sparse:99999999999999999999" },
  { "Last-Event-ID": "../../x" },
  { Accept: "text/csv;q=nonsense,*/*" },
  { Accept: ",".repeat(5000) },
  { "Content-Type": "application/json; charset=" + "x".repeat(200) },
  { "Content-Length": "99999999999" },
  { Range: "bytes=-1" },
  { "If-None-Match": "*" },
  { "X-Filler": "x".repeat(20_000) },
];

Deno.test(`${REQUESTS} hostile requests read nothing outside the runs and fail nothing`, async () => {
  await using folder = await temporaryFolder();
  const inside = join(folder.path, "runs");
  const run = await fakeRun(inside, "r", { rows: [metricRow(1)] });
  await Deno.writeTextFile(join(folder.path, "secret.html"), SECRET);
  await Deno.writeTextFile(join(inside, "secret.html"), SECRET);
  await Deno.symlink(join(folder.path, "secret.html"), join(run.path, "link.html"));
  await Deno.symlink(folder.path, join(inside, "link"));
  const stop = new AbortController();
  const refuse = () => Promise.reject(new Error("no prompt of these may come this far"));
  const app = createApp({
    runs: openRuns(inside),
    explorer: { ask: refuse, goOn: refuse, close() {} },
    assets: await readAssets(),
    token: "a-token-for-tests-only",
    tokenToRead: false,
    allowedHosts: [],
    signal: stop.signal,
  });

  const touched = new Set<string>();
  const followed = new Set<string>();
  const names = ["open", "openSync", "stat", "lstat", "readFile", "readTextFile", "readDir"] as const;
  const originals = names.map((name) => [name, Deno[name]] as const);
  const spied = Deno as unknown as Record<string, (path: string | URL, ...rest: unknown[]) => unknown>;
  for (const [name, original] of originals) {
    spied[name] = (path, ...rest) => {
      touched.add(String(path));
      // lstat looks at a link itself.
      if (name !== "lstat") followed.add(String(path));
      return (original as (path: string | URL, ...rest: unknown[]) => unknown)(path, ...rest);
    };
  }
  const statuses = new Map<number, number>();
  try {
    const random = seeded(3);
    const pick = <T>(of: readonly T[]): T => of[random.integer(of.length)];
    for (let n = 0; n < REQUESTS; n++) {
      // The first ones take every climb through every route; the rest is chance.
      const route = n < ROUTES.length * CLIMBS.length ? ROUTES[n % ROUTES.length] : pick(ROUTES);
      const climb = n < ROUTES.length * CLIMBS.length ? CLIMBS[Math.floor(n / ROUTES.length)] : pick(CLIMBS);
      const method = n < ROUTES.length * CLIMBS.length ? "GET" : pick(METHODS);
      const headers = {
        Host: "127.0.0.1",
        ...(n % 2 ? { "Content-Type": "application/json" } : {}),
        ...pick(HEADERS),
      };
      const body = ["GET", "HEAD", "OPTIONS"].includes(method) ? undefined : pick(BODIES);
      const response = await app.fetch(
        new Request(`http://127.0.0.1${route(climb)}`, { method, headers, body }),
      );
      const what = `${method} ${route(climb).slice(0, 80)} ${
        JSON.stringify(headers).slice(0, 80)
      }: ${response.status}`;
      statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1);
      assert(response.status < 500, what);
      for (
        const header of [
          "Content-Security-Policy",
          "X-Content-Type-Options",
          "X-Frame-Options",
          "Referrer-Policy",
        ]
      ) {
        assert(response.headers.has(header), `${what} lacks ${header}`);
      }
      assertEquals(response.headers.get("Access-Control-Allow-Origin"), null, what);
      if (response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
        await response.body?.cancel();
      } else assert(!(await response.text()).includes(SECRET), what);
    }
  } finally {
    for (const [name, original] of originals) (spied as Record<string, unknown>)[name] = original;
    stop.abort();
    run.release();
  }
  for (const path of touched) {
    assert(path === inside || path.startsWith(inside + "/"), `read outside the runs: ${path}`);
  }
  for (const path of followed) {
    assert(!path.includes("secret") && !path.includes("/link"), `followed a link: ${path}`);
  }
  for (const status of [200, 204, 400, 401, 404, 405, 421, 431]) {
    assert((statuses.get(status) ?? 0) > 0, `no request was answered ${status}: ${[...statuses].join(" ")}`);
  }
});
