/** Every route and every error, asked without a socket. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { RecordBatchReader } from "apache-arrow";
import type { Hono } from "hono";
import { readControl } from "../../pipeline/runs/control.ts";
import { readMetrics } from "../../pipeline/runs/metrics.ts";
import type {
  AttentionAnswer,
  AttentionRequest,
  ContinuationAnswer,
  ContinuationRequest,
  MetricsAnswer,
  RunDetail,
  RunOverview,
} from "../../serve/api.ts";
import { createApp, thin } from "../../serve/app.ts";
import { readAssets } from "../../serve/assets.ts";
import type { Explorer } from "../../serve/explorer.ts";
import { openRuns } from "../../serve/runs.ts";
import { fakeRun } from "../support/fake_run.ts";
import { metricRow } from "../support/metric_row.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

const TOKEN = "a-token-for-tests-only";
const AUTHORIZED = { Authorization: `Bearer ${TOKEN}` };
const JSON_TYPE = { "Content-Type": "application/json" };

const ANSWER: AttentionAnswer = {
  model: "sparse",
  weights: { kind: "model", step: null },
  layers: 2,
  heads: 2,
  tokens: ["a", "b"],
  truncated: false,
  edges: [[0, 1, 1, 0, 0.5, 2]],
  open: 1,
  causal_pairs: 12,
  omitted: 0,
  next: [{ token: "c", probability: 0.25 }],
};

const CONTINUATION: ContinuationAnswer = {
  model: "sparse",
  weights: { kind: "model", step: null },
  tokens: [3],
  text: " c",
  ended: "tokens",
};

/** An explorer that keeps what it was asked. */
function fakeExplorer(): Explorer & { asked: (AttentionRequest | ContinuationRequest)[] } {
  const asked: (AttentionRequest | ContinuationRequest)[] = [];
  return {
    asked,
    ask(_, request) {
      asked.push(request);
      return Promise.resolve(ANSWER);
    },
    goOn(_, request) {
      asked.push(request);
      return Promise.resolve(CONTINUATION);
    },
    close() {},
  };
}

interface Served extends AsyncDisposable {
  app: Hono;
  folder: string;
  explorer: ReturnType<typeof fakeExplorer>;
}

async function served(options: { tokenToRead?: boolean; bodyMilliseconds?: number } = {}): Promise<Served> {
  const folder = await temporaryFolder();
  const explorer = fakeExplorer();
  const stop = new AbortController();
  const app = createApp({
    runs: openRuns(folder.path),
    explorer,
    assets: await readAssets(),
    token: TOKEN,
    tokenToRead: false,
    allowedHosts: ["runs.example"],
    signal: stop.signal,
    ...options,
  });
  return {
    app,
    folder: folder.path,
    explorer,
    async [Symbol.asyncDispose]() {
      stop.abort();
      await folder[Symbol.asyncDispose]();
    },
  };
}

/** Asks, and takes the answer apart. */
async function ask(app: Hono, path: string, init: RequestInit = {}) {
  const headers = { Host: "127.0.0.1", ...init.headers };
  const response = await app.request(path, { ...init, headers });
  const text = await response.text();
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  return {
    status: response.status,
    headers: response.headers,
    text,
    json: isJson && text ? JSON.parse(text) : undefined,
  };
}

const ROWS = [
  metricRow(1, { expected_open_by_head: [0.5, 0.5, 0.25, 0.25] }),
  metricRow(2),
  metricRow(3, {
    open_fraction: 0.125,
    validation_ce: 1.5,
    open_by_head: [0.5, 0, 0, 0],
    expected_open_by_head: [0.5, 0.25, 0.25, 0.125],
  }),
  metricRow(4),
];

Deno.test("no runs, then one: the list and the run in full", async () => {
  await using server = await served();
  assertEquals((await ask(server.app, "/api/runs")).json, []);
  const run = await fakeRun(server.folder, "first", { rows: ROWS, control: true });
  try {
    const [overview] = (await ask(server.app, "/api/runs")).json as RunOverview[];
    assertEquals([overview.name, overview.status, overview.command], ["first", "training", "sparsify"]);
    assertEquals(overview.phases, [{ phase: "sparse", step: 4, steps: 100 }, {
      phase: "control",
      step: 0,
      steps: 100,
    }]);
    assertEquals(overview.last?.step, 4);
    assert(!("open_by_head" in overview.last!), "lists are left out");
    const detail = (await ask(server.app, "/api/runs/first")).json as RunDetail;
    assertEquals([detail.layers, detail.heads, detail.context, detail.adapter], [2, 2, 8, "a test"]);
    assertEquals(detail.control, { paused: false, stop: false, slack: null });
    assertEquals([detail.summary, detail.reports], [null, []]);
  } finally {
    run.release();
  }
});

Deno.test("a list that is as it was is not sent again, and one in which a run went on is", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r", { rows: [metricRow(1)] });
  try {
    const list = (etag?: string) =>
      server.app.request("/api/runs", {
        headers: { Host: "127.0.0.1", ...(etag ? { "If-None-Match": etag } : {}) },
      });
    const first = await list();
    const etag = first.headers.get("ETag")!;
    assertEquals((await first.json()).length, 1);
    const again = await list(etag);
    assertEquals([again.status, await again.text(), again.headers.get("ETag")], [304, "", etag]);
    assertEquals((await list('"another"')).status, 200);
    await run.append([metricRow(2)]);
    // What was read is taken as fresh for a quarter of a second.
    await new Promise((resolve) => setTimeout(resolve, 300));
    const next = await list(etag);
    assertEquals([next.status, next.headers.get("ETag") === etag], [200, false]);
    assertEquals((await next.json())[0].last.step, 2);
  } finally {
    run.release();
  }
});

Deno.test("the OpenAPI document names every field of a run that is answered", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r", { live: false, rows: [metricRow(1)] });
  const { components: { schemas } } = (await ask(server.app, "/api/openapi.json")).json;
  const overview = Object.keys(schemas.RunOverview.properties);
  assertEquals(Object.keys((await ask(server.app, "/api/runs")).json[0]).sort(), overview.toSorted());
  const detail = [...overview, ...Object.keys(schemas.RunDetail.allOf[1].properties)];
  assertEquals(Object.keys((await ask(server.app, "/api/runs/r")).json).sort(), detail.toSorted());
  assert(run);
});

Deno.test("thinning keeps the rows on both sides of a resumption", () => {
  // At row 51 of 100 another process goes on, whose clock begins anew and soon shows more.
  const rows = Array.from(
    { length: 100 },
    (_, n) => metricRow(n + 1, { seconds: n < 50 ? n : 10 * (n - 49) }),
  );
  const steps = thin(rows, 5).map(({ step }) => step);
  assertEquals([steps.includes(50), steps.includes(51), steps.includes(49)], [true, true, false]);
});

Deno.test("metrics come as JSON, CSV or Arrow, since a place, and thinned", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r", { live: false, rows: ROWS });
  const get = (query: string, accept?: string) =>
    ask(server.app, `/api/runs/r/metrics${query}`, { headers: accept ? { Accept: accept } : {} });
  const all = (await get("")).json as MetricsAnswer;
  assertEquals([all.rows, all.total, all.last], [ROWS, 4, "sparse:4"]);
  assertEquals(((await get("?since=sparse:2")).json as MetricsAnswer).rows.map(({ step }) => step), [3, 4]);
  assertEquals(((await get("?since=control:1")).json as MetricsAnswer).rows, []);
  const thinned = (await get("?points=2")).json as MetricsAnswer;
  assertEquals([thinned.rows.map(({ step }) => step), thinned.total], [[1, 3, 4], 4]);

  const csv = await get("?since=sparse:2", "text/csv");
  assertMatch(csv.headers.get("Content-Type")!, /^text\/csv/);
  const [header, first, second, end] = csv.text.split("\r\n");
  const column = (name: string, line: string) => line.split(",")[header.split(",").indexOf(name)];
  assertEquals([column("step", first), column("validation_ce", first), column("open_by_head", first)], [
    "3",
    "1.5",
    "0.5 0 0 0",
  ]);
  assertEquals([column("step", second), column("validation_ce", second), end], ["4", "", ""]);

  const arrow = await server.app.request("/api/runs/r/metrics", {
    headers: { Host: "localhost", Accept: "application/vnd.apache.arrow.stream" },
  });
  const batches = [...RecordBatchReader.from(new Uint8Array(await arrow.arrayBuffer()))];
  assertEquals(batches.flatMap((batch) => [...batch].map((row) => row!.step)), [1, 2, 3, 4]);
  assertEquals(await readMetrics(join(run.path, "metrics.arrows")), ROWS);

  for (const query of ["?since=sparse", "?since=nothing:3", "?since=sparse:-1", "?points=1", "?points=ten"]) {
    assertEquals((await get(query)).status, 400, query);
  }
});

Deno.test("thinning keeps the first, the last and every evaluation", () => {
  const rows = Array.from(
    { length: 1000 },
    (_, n) => metricRow(n + 1, n === 505 ? { validation_ce: 1 } : {}),
  );
  const steps = thin(rows, 10).map(({ step }) => step);
  assertEquals(steps.length, 12);
  assertEquals([steps[0], steps.includes(506), steps.at(-1)], [1, true, 1000]);
  assertEquals(thin([], 10), []);
});

Deno.test("open edges by head come as snapshots, expected and hard", async () => {
  await using server = await served();
  await fakeRun(server.folder, "r", { live: false, rows: ROWS });
  assertEquals((await ask(server.app, "/api/runs/r/heads")).json, {
    layers: 2,
    heads: 2,
    snapshots: [
      { phase: "sparse", step: 1, expected: [0.5, 0.5, 0.25, 0.25], hard: null },
      { phase: "sparse", step: 3, expected: [0.5, 0.25, 0.25, 0.125], hard: [0.5, 0, 0, 0] },
    ],
  });
});

Deno.test("checkpoints are listed, and a torn one as such", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r", { live: false });
  assertEquals((await ask(server.app, "/api/runs/r/checkpoints")).json, { checkpoints: [], torn: [] });
  await Deno.mkdir(join(run.path, "checkpoints"), { recursive: true });
  await Deno.writeTextFile(join(run.path, "checkpoints", "sparse-0000007.safetensors"), "torn");
  assertEquals((await ask(server.app, "/api/runs/r/checkpoints")).json, {
    checkpoints: [],
    torn: ["sparse-0000007.safetensors"],
  });
});

Deno.test("reports are served with a policy that lets through just what stands in them", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r", { live: false });
  const style = "body { color: red }";
  await Deno.writeTextFile(join(run.path, "report.html"), `<style>${style}</style><p>hello</p>`);
  await Deno.writeTextFile(join(run.path, "secret.txt"), "no");
  await Deno.writeTextFile(join(server.folder, "outside.html"), "no");
  await Deno.symlink(join(server.folder, "outside.html"), join(run.path, "link.html"));
  const report = await ask(server.app, "/runs/r/reports/report.html");
  assertStringIncludes(report.text, "hello");
  const hash = createHash("sha256").update(style).digest("base64");
  const policy = report.headers.get("Content-Security-Policy")!;
  assertStringIncludes(policy, `style-src 'sha256-${hash}'`);
  assertStringIncludes(policy, "script-src 'none'");
  assert(!policy.includes("unsafe"));
  assertEquals(
    (await ask(server.app, "/api/runs/r")).json.reports.map(({ file }: { file: string }) => file),
    [
      "report.html",
    ],
  );
  for (const file of ["none.html", "secret.txt", "link.html", "..%2foutside.html", "config.json", ".html"]) {
    assertEquals((await ask(server.app, `/runs/r/reports/${file}`)).status, 404, file);
  }
});

Deno.test("a sweep's page leads to the reports of its runs, and to nothing else", async () => {
  await using server = await served();
  const sweep = join(server.folder, "tries");
  await Deno.mkdir(sweep);
  await Deno.writeTextFile(join(sweep, "sweep.json"), JSON.stringify({ file: "/tries.json" }));
  await Deno.writeTextFile(join(sweep, "sweep.html"), '<a href="one/report.html">one</a>');
  for (const folder of [sweep, server.folder]) {
    const run = await fakeRun(folder, "one", { live: false });
    await Deno.writeTextFile(join(run.path, "report.html"), folder === sweep ? "within" : "beside");
  }
  await Deno.mkdir(join(sweep, "other"));
  await Deno.writeTextFile(join(sweep, "other", "report.html"), "of no run");
  assertEquals((await ask(server.app, "/runs/tries/reports/sweep.html")).status, 200);
  assertEquals((await ask(server.app, "/runs/tries/reports/one/report.html")).text, "within");
  const others = [
    "tries/reports/other/report.html",
    "tries/reports/..%2fone/report.html",
    "one/reports/one/report.html",
  ];
  for (const path of [...others, "tries/reports/one/config.json", "one/reports/../report.html"]) {
    assertEquals((await ask(server.app, `/runs/${path}`)).status, 404, path);
  }
});

Deno.test("a study's page leads to the pages of its stages, these to their runs, and none to anything else", async () => {
  await using server = await served();
  const study = join(server.folder, "s");
  const stage = join(study, "addition");
  await Deno.mkdir(stage, { recursive: true });
  await Deno.writeTextFile(join(study, "study.json"), JSON.stringify({ file: "s" }));
  await Deno.writeTextFile(join(study, "study.html"), "the study");
  await Deno.writeTextFile(join(stage, "sweep.json"), JSON.stringify({ file: "s, addition" }));
  await Deno.writeTextFile(join(stage, "sweep.html"), "the stage");
  const run = await fakeRun(stage, "one", { live: false });
  await Deno.writeTextFile(join(run.path, "report.html"), "the run");
  await Deno.mkdir(join(study, "other"));
  await Deno.writeTextFile(join(study, "other", "sweep.html"), "of no stage");
  const pages = {
    "study.html": "the study",
    "addition/sweep.html": "the stage",
    "addition/one/report.html": "the run",
  };
  for (const [path, text] of Object.entries(pages)) {
    assertEquals((await ask(server.app, `/runs/s/reports/${path}`)).text, text);
  }
  const others = ["other/sweep.html", "one/report.html", "addition/two/report.html", "other/one/report.html"];
  for (const path of [...others, "addition/one/config.json", "addition/..%2faddition/sweep.html"]) {
    assertEquals((await ask(server.app, `/runs/s/reports/${path}`)).status, 404, path);
  }
});

Deno.test("a report that is too large is told to be so, and one of a million tags takes no time", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r", { live: false });
  const path = join(run.path, "report.html");
  const tags = ["<script>", "<style ", "<style>", "<script></script", "<style></style>", "<sTyLe>a</StYlE >"];
  for (const tag of tags) {
    await Deno.writeTextFile(path, tag.repeat(8e6 / tag.length));
    const begun = performance.now();
    const { status, headers, text } = await ask(server.app, "/runs/r/reports/report.html");
    // The quadratic scan takes hours, this one a tenth of a second.
    assert(performance.now() - begun < 600_000, tag);
    assertEquals([status, text.length], [200, Math.floor(8e6 / tag.length) * tag.length]);
    assert(headers.get("Content-Security-Policy")!.length < 8000);
  }
  await Deno.writeTextFile(path, "");
  using file = await Deno.open(path, { write: true });
  await file.truncate(500e6);
  const { status, json } = await ask(server.app, "/runs/r/reports/report.html");
  assertEquals([status, typeof json.error], [413, "string"]);
});

Deno.test("a prompt is passed on, and one that is not as it must be is refused", async () => {
  await using server = await served();
  await fakeRun(server.folder, "r", { live: false });
  const post = (body: string, headers: Record<string, string> = JSON_TYPE) =>
    ask(server.app, "/api/runs/r/attention", { method: "POST", body, headers });
  assertEquals((await post('{"prompt":"a b","threshold":0.5}')).json, ANSWER);
  assertEquals(server.explorer.asked, [{ prompt: "a b", model: "sparse", threshold: 0.5 }]);
  const refused: [string, number][] = [
    ["{", 400],
    ["[]", 400],
    ["null", 400],
    ["{}", 400],
    ['{"prompt":""}', 400],
    ['{"prompt":3}', 400],
    ['{"prompt":"a","model":"other"}', 400],
    ['{"prompt":"a","threshold":2}', 400],
    ['{"prompt":"a","threshold":"0"}', 400],
    ['{"prompt":"a","path":"/etc/passwd"}', 400],
    [JSON.stringify({ prompt: "a".repeat(5000) }), 400],
    [JSON.stringify({ prompt: "a".repeat(20_000) }), 413],
  ];
  for (const [body, status] of refused) {
    const answer = await post(body);
    assertEquals([answer.status, typeof answer.json?.error], [status, "string"], body.slice(0, 40));
  }
  const { error } = (await post('{"prompt":"a","path":"/etc/passwd"}')).json!;
  assertStringIncludes(String(error), 'Unknown key "path"; known are prompt, ');
  assertEquals((await post('{"prompt":"a"}', { "Content-Type": "text/plain" })).status, 415);
  assertEquals(server.explorer.asked.length, 1);
});

Deno.test("a text to go on from is passed on, and one that is not as it must be is refused", async () => {
  await using server = await served();
  await fakeRun(server.folder, "r", { live: false });
  const post = (body: string) =>
    ask(server.app, "/api/runs/r/continuation", { method: "POST", body, headers: JSON_TYPE });
  assertEquals((await post('{"prompt":"a b","model":"dense","tokens":64}')).json, CONTINUATION);
  assertEquals((await post('{"prompt":"a b"}')).status, 200);
  assertEquals(server.explorer.asked, [
    { prompt: "a b", model: "dense", tokens: 64 },
    { prompt: "a b", model: "sparse", tokens: undefined },
  ]);
  const refused = [
    "[]",
    "{}",
    '{"prompt":""}',
    '{"prompt":"a","model":"other"}',
    '{"prompt":"a","tokens":0}',
    '{"prompt":"a","tokens":65}',
    '{"prompt":"a","tokens":1.5}',
    '{"prompt":"a","tokens":"8"}',
    '{"prompt":"a","threshold":0}',
    JSON.stringify({ prompt: "a".repeat(5000) }),
  ];
  for (const body of refused) {
    const { status, json } = await post(body);
    assertEquals([status, typeof json?.error], [400, "string"], body.slice(0, 40));
  }
  assertEquals(server.explorer.asked.length, 2);
});

Deno.test("steering needs the token, a live run, and a wish that can be granted", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r");
  const dense = await fakeRun(server.folder, "dense", { command: "pretrain" });
  const post = (name: string, body: string, headers: Record<string, string> = AUTHORIZED) =>
    ask(server.app, `/api/runs/${name}/control`, {
      method: "POST",
      body,
      headers: { ...JSON_TYPE, ...headers },
    });
  try {
    for (
      const headers of [{}, { Authorization: "Bearer wrong" }, { Authorization: TOKEN }, {
        Authorization: "Bearer ",
      }]
    ) {
      const answer = await post("r", '{"paused":true}', headers as Record<string, string>);
      assertEquals([answer.status, answer.headers.get("WWW-Authenticate")], [401, "Bearer"]);
    }
    assertEquals((await post("r", '{"paused":true}')).json, { paused: true, stop: false, slack: null });
    assertEquals((await post("r", '{"slack":-0.02}')).json, { paused: true, stop: false, slack: -0.02 });
    assertEquals(await readControl(run.path), { paused: true, stop: false, slack: -0.02 });
    assertEquals((await ask(server.app, "/api/runs/r")).json.control.paused, true);
    for (
      const body of [
        "{}",
        '{"paused":1}',
        '{"stop":"yes"}',
        '{"slack":"0"}',
        '{"slack":1e9}',
        '{"slack":null}',
        '{"kill":true}',
      ]
    ) {
      assertEquals((await post("r", body)).status, 400, body);
    }
    assertEquals((await post("dense", '{"slack":0}')).status, 409);
    assertEquals((await post("none", '{"paused":true}')).status, 404);
  } finally {
    run.release();
    dense.release();
  }
});

Deno.test("a run that nobody trains cannot be steered", async () => {
  await using server = await served();
  await fakeRun(server.folder, "r", { live: false });
  const { status, json } = await ask(server.app, "/api/runs/r/control", {
    method: "POST",
    body: '{"paused":true}',
    headers: { ...JSON_TYPE, ...AUTHORIZED },
  });
  assertEquals([status, json.error], [409, "Cannot steer r as no process is at it: it is interrupted"]);
});

Deno.test("where reading needs the token, only the page's own files and health are open", async () => {
  await using server = await served({ tokenToRead: true });
  await fakeRun(server.folder, "r", { live: false, rows: ROWS });
  const paths = [
    "/api/runs",
    "/api/runs/r",
    "/api/runs/r/metrics",
    "/api/openapi.json",
    "/metrics",
    "/runs/r/reports/x.html",
  ];
  for (const path of paths) {
    assertEquals((await ask(server.app, path)).status, 401, path);
    const { status } = await ask(server.app, path, { headers: AUTHORIZED });
    assertEquals(status, path.startsWith("/runs") ? 404 : 200, path);
  }
  for (const path of ["/", "/health", "/lib/uplot.js"]) {
    assertEquals((await ask(server.app, path)).status, 200, path);
  }
});

Deno.test("a request under another host's name is refused", async () => {
  await using server = await served();
  const status = async (host: string) =>
    (await ask(server.app, "/health", { headers: { Host: host } })).status;
  for (
    const host of ["127.0.0.1:8000", "localhost:1", "LOCALHOST", "[::1]:8000", "10.0.0.7", "runs.example"]
  ) {
    assertEquals(await status(host), 200, host);
  }
  for (const host of ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "a b"]) {
    assertEquals(await status(host), 421, host);
  }
});

Deno.test("metrics for Prometheus: one line a sample, labels escaped", async () => {
  await using server = await served();
  const evaluated = metricRow(5, { ce: 1.5, validation_ce: 1.25, open_fraction: 0.125 });
  await fakeRun(server.folder, "r.1", { live: false, rows: [...ROWS, evaluated] });
  const { text, headers } = await ask(server.app, "/metrics");
  assertMatch(headers.get("Content-Type")!, /^text\/plain; version=0\.0\.4/);
  for (const line of text.trimEnd().split("\n")) {
    assertMatch(
      line,
      /^(# (HELP|TYPE) sparse_attention_\w+ .+|sparse_attention_\w+(\{\w+="[^"]*"(,\w+="[^"]*")*\})? -?[\d.e+-]+)$/,
    );
  }
  assertStringIncludes(text, 'sparse_attention_run_status{run="r.1",status="interrupted"} 1\n');
  assertStringIncludes(text, 'sparse_attention_run_status{run="r.1",status="training"} 0\n');
  assertStringIncludes(text, 'sparse_attention_step{run="r.1",phase="sparse"} 5\n');
  assertStringIncludes(text, 'sparse_attention_cross_entropy{run="r.1",phase="sparse"} 1.5\n');
  assertStringIncludes(text, 'sparse_attention_open_edges{run="r.1"} 0.125\n');
  assertStringIncludes(text, 'sparse_attention_validation_cross_entropy{run="r.1"} 1.25\n');
});

Deno.test("the OpenAPI document holds every route of the API, and no other", async () => {
  await using server = await served();
  const { paths } = (await ask(server.app, "/api/openapi.json")).json as { paths: Record<string, object> };
  const documented = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`)
  );
  const assets = await readAssets();
  const routes = server.app.routes
    .filter(({ method, path }) => method !== "ALL" && !assets.has(path))
    .map(({ method, path }) => `${method} ${path.replaceAll(/:(\w+)/g, "{$1}")}`);
  assertEquals(documented.sort(), [...new Set(routes)].sort());
});

Deno.test("what is not there and what cannot be done are told in JSON, with the headers that every answer has", async () => {
  await using server = await served();
  await fakeRun(server.folder, "r", { live: false });
  const cases: [string, string, number][] = [
    ["GET", "/nothing", 404],
    ["GET", "/api/runs/none", 404],
    ["GET", "/api/runs/..%2f..%2fetc", 404],
    ["GET", "/page/..%2fapp.ts", 404],
    ["DELETE", "/api/runs", 405],
    ["POST", "/api/runs/r", 405],
    ["GET", "/api/runs/r/control", 405],
    ["GET", `/api/runs?x=${"y".repeat(3000)}`, 414],
  ];
  for (const [method, path, status] of cases) {
    const answer = await ask(server.app, path, { method });
    assertEquals(
      [answer.status, typeof answer.json?.error],
      [status, "string"],
      `${method} ${path.slice(0, 60)}`,
    );
    assertStringIncludes(answer.headers.get("Content-Security-Policy")!, "default-src 'none'");
    assertEquals(answer.headers.get("X-Content-Type-Options"), "nosniff");
    assertEquals(answer.headers.get("Access-Control-Allow-Origin"), null);
  }
  const large = await ask(server.app, "/health", { headers: { "X-Large": "x".repeat(20_000) } });
  assertEquals(large.status, 431);
});

Deno.test("an asset is served once, and then only if it has changed", async () => {
  await using server = await served();
  const first = await ask(server.app, "/lib/uplot.js");
  assertEquals(first.headers.get("Content-Type"), "text/javascript; charset=utf-8");
  const again = await ask(server.app, "/lib/uplot.js", {
    headers: { "If-None-Match": first.headers.get("ETag")! },
  });
  assertEquals([again.status, again.text], [304, ""]);
});

Deno.test("If-None-Match by weak comparison, in lists and as a star; a malformed one names nothing", async () => {
  await using server = await served();
  const etag = (await ask(server.app, "/")).headers.get("ETag")!;
  const asked = (ifNoneMatch: string) => ask(server.app, "/", { headers: { "If-None-Match": ifNoneMatch } });
  const naming = [etag, `W/${etag}`, `"a,b", ${etag}`, `W/"x" ,, W/${etag},`, "*", ` ${etag} `];
  for (const given of naming) {
    const { status, headers, text } = await asked(given);
    assertEquals([status, headers.get("ETag"), headers.get("Cache-Control"), text], [
      304,
      etag,
      "no-cache",
      "",
    ], given);
  }
  const notNaming = [
    "",
    `"other"`,
    `w/${etag}`,
    etag.slice(1),
    `${etag} ${etag}`,
    `${etag}, *`,
    `"un${etag}`,
    `W/ ${etag}`,
    `, `.repeat(4000),
    ` "`.repeat(4000),
  ];
  for (const given of notNaming) assertEquals((await asked(given)).status, 200, given.slice(0, 60));
});

Deno.test("every address tells its methods, takes no other, and HEAD is GET without the body", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r", { live: false, rows: ROWS });
  await Deno.writeTextFile(join(run.path, "report.html"), "<p>hello</p>");
  const read = ["/", "/health", "/metrics", "/api/runs", "/api/openapi.json", "/lib/uplot.js", "/api/runs/r"]
    .concat(
      ["metrics", "heads", "checkpoints"].map((part) => `/api/runs/r/${part}`),
      "/runs/r/reports/report.html",
    );
  const written = ["control", "attention", "continuation"].map((part) => `/api/runs/r/${part}`);
  const methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "PROPFIND", "TRACE", "MKCOL", "get"];
  for (const path of [...read, ...written, "/api/runs/r/events"]) {
    const allowed = written.includes(path) ? ["POST", "OPTIONS"] : ["GET", "HEAD", "OPTIONS"];
    const options = await ask(server.app, path, { method: "OPTIONS" });
    assertEquals(
      [options.status, options.headers.get("Allow")?.split(", ").sort()],
      [204, allowed.sort()],
      path,
    );
    for (const method of methods) {
      if (allowed.includes(method)) continue;
      // Request itself refuses to be made of TRACE, and corrects "get".
      const request = new Request(`http://127.0.0.1${path}`, { headers: { Host: "127.0.0.1" } });
      Object.defineProperty(request, "method", { value: method });
      const { status, headers } = await server.app.fetch(request);
      assertEquals(
        [status, headers.get("Allow")?.split(", ").sort()],
        [405, allowed.sort()],
        `${method} ${path}`,
      );
    }
  }
  assertEquals((await ask(server.app, "/nothing", { method: "OPTIONS" })).status, 404);
  for (const path of read) {
    const [get, head] = [await ask(server.app, path), await ask(server.app, path, { method: "HEAD" })];
    assertEquals([head.status, head.text], [get.status, ""], path);
    for (const name of ["Content-Type", "ETag", "Vary", "Content-Security-Policy"]) {
      assertEquals(head.headers.get(name), get.headers.get(name), `${path} ${name}`);
    }
  }
  assertEquals((await ask(server.app, "/api/runs/none", { method: "HEAD" })).status, 404);
});

Deno.test("HEAD of live events is answered at once and takes no client's place", async () => {
  await using server = await served();
  await fakeRun(server.folder, "r", { live: false, rows: ROWS });
  for (let n = 0; n < 2100; n++) {
    const { status, headers } = await ask(server.app, "/api/runs/r/events", { method: "HEAD" });
    assertEquals([status, headers.get("Content-Type")], [200, "text/event-stream"]);
  }
  assertStringIncludes((await ask(server.app, "/metrics")).text, "sparse_attention_clients 0\n");
});

Deno.test("a place that cannot be read begins anew as Last-Event-ID, and is refused as since", async () => {
  await using server = await served();
  await fakeRun(server.folder, "r", { live: false, rows: ROWS });
  const first = async (id: string, since: string) => {
    const response = await server.app.request(`/api/runs/r/events${since}`, {
      headers: { Host: "127.0.0.1", "Last-Event-ID": id },
    });
    if (response.status !== 200) return [response.status];
    let text = "";
    for await (const piece of response.body!.pipeThrough(new TextDecoderStream())) {
      text += piece;
      if (text.includes("event: status")) break;
    }
    return [200, /"step":(\d+)/.exec(text)?.[1]];
  };
  assertEquals(await first("nonsense", ""), [200, "1"]);
  assertEquals(await first("sparse:99999999999999", ""), [200, "1"]);
  assertEquals(await first("nonsense", "?since=sparse:2"), [200, "3"]);
  assertEquals(await first("sparse:3", "?since=sparse:1"), [200, "4"]);
  assertEquals(await first("", "?since=nonsense"), [400]);
});

Deno.test("no file of the page and no answer of the API names an address from the root", async () => {
  await using server = await served();
  for (const [path, { bytes, type }] of await readAssets()) {
    if (path.startsWith("/lib/") || type.startsWith("image/")) continue;
    const text = new TextDecoder().decode(bytes);
    const found = text.match(/(?:["'`(=]|url\()\/(?:api|page|lib|runs|metrics|health)\b[^"'`]*/g);
    assertEquals(found, null, path);
  }
  // Resolved where the page stands, below a proxy's path.
  const page = (await ask(server.app, "/")).text;
  const named = [...page.matchAll(/(?:src|href)="([^"#]+)"/g)].map(([, address]) => address);
  assert(named.length >= 5);
  for (const address of named) {
    const { pathname } = new URL(address, "https://proxy.example/tools/sparse/");
    assert(pathname.startsWith("/tools/sparse/"), address);
    assertEquals((await ask(server.app, pathname.slice("/tools/sparse".length))).status, 200, address);
  }
});

Deno.test("a body is read within its time and size, and then answered", async () => {
  await using server = await served({ bodyMilliseconds: 50 });
  await fakeRun(server.folder, "r", { live: false });
  const post = (body: ReadableStream<Uint8Array>) =>
    ask(server.app, "/api/runs/r/attention", { method: "POST", body, headers: JSON_TYPE });
  const bytes = new TextEncoder().encode('{"prompt":');
  const unfinished = () =>
    new ReadableStream<Uint8Array>({
      start(controller) {
        controller.enqueue(bytes);
      },
    });
  const answers = await Promise.all(Array.from({ length: 80 }, () => post(unfinished())));
  for (const { status, headers } of answers) {
    assertEquals([status, headers.get("Connection")], [408, "close"]);
  }
  const endless = new ReadableStream<Uint8Array>({
    pull(controller) {
      controller.enqueue(new Uint8Array(1000).fill(32));
    },
  });
  const large = await post(endless);
  assertEquals([large.status, large.headers.get("Connection")], [413, "close"]);
  const broken = new ReadableStream<Uint8Array>({
    pull(controller) {
      controller.error(new TypeError("invalid chunk size"));
    },
  });
  assertEquals((await post(broken)).status, 400);
  assertEquals(server.explorer.asked.length, 0);
});

Deno.test("of wishes that come at once none is lost", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r");
  try {
    const wishes = ['{"paused":true}', '{"slack":0.5}', '{"stop":true}'];
    await Promise.all(wishes.map((body) =>
      ask(server.app, "/api/runs/r/control", {
        method: "POST",
        body,
        headers: { ...JSON_TYPE, ...AUTHORIZED },
      })
    ));
    assertEquals(await readControl(run.path), { paused: true, stop: true, slack: 0.5 });
  } finally {
    run.release();
  }
});

Deno.test("a control.json that is damaged is said to be so when a run is steered", async () => {
  await using server = await served();
  const run = await fakeRun(server.folder, "r");
  try {
    await Deno.writeTextFile(join(run.path, "control.json"), "the-canary-sings");
    const { status, text } = await ask(server.app, "/api/runs/r/control", {
      method: "POST",
      body: '{"paused":true}',
      headers: { ...JSON_TYPE, ...AUTHORIZED },
    });
    assertEquals([status, text.includes("canary")], [409, false]);
  } finally {
    run.release();
  }
});

Deno.test("a fault of ours is told without its details", async () => {
  await using server = await served();
  await fakeRun(server.folder, "r", { live: false });
  server.explorer.ask = () => Promise.reject(new Error("a path: /secret"));
  const original = console.error;
  console.error = () => {};
  try {
    const { status, text } = await ask(server.app, "/api/runs/r/attention", {
      method: "POST",
      body: '{"prompt":"a"}',
      headers: JSON_TYPE,
    });
    assertEquals(status, 500);
    assert(!text.includes("secret"));
  } finally {
    console.error = original;
  }
});
