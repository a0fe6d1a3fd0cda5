/**
 * The server as a pure Hono app: every route, what each takes and answers. Reading is free on loopback; steering a run
 * always needs the token, and beyond loopback everything under /api does.
 *
 * @module
 */
import { type Context, Hono } from "hono";
import { accepts } from "hono/accepts";
import { HTTPException } from "hono/http-exception";
import { shown } from "../pipeline/files.ts";
import { type ControlRequest, SLACK_BOUND } from "../pipeline/runs/control.ts";
import { type MetricRow, metricsStream } from "../pipeline/runs/metrics.ts";
import {
  type AttentionRequest,
  type ContinuationRequest,
  type HeadsAnswer,
  LIVE,
  MAX_CONTINUATION,
  type MetricsAnswer,
  type RunDetail,
  type RunOverview,
} from "./api.ts";
import type { Assets } from "./assets.ts";
import { type BodyLimits, readBody } from "./body.ts";
import { namesTag } from "./conditional.ts";
import { metricsCsv } from "./csv.ts";
import type { Explorer } from "./explorer.ts";
import { logFault } from "./fault_log.ts";
import { createLive, firstAfter, parsePlace, type Place, placeOf } from "./live.ts";
import { allowedMethods } from "./methods.ts";
import { openApiDocument } from "./openapi.ts";
import { problem } from "./problem.ts";
import { prometheusText } from "./prometheus.ts";
import type { Runs, RunView } from "./runs.ts";
import { answerHeaders, boundedRequest, knownHost, tokenNeeded } from "./security.ts";

/** What the app is made of. */
export interface AppOptions {
  runs: Runs;
  explorer: Explorer;
  assets: Assets;
  /** Steering needs it. */
  token: string;
  /** Whether reading needs it too. */
  tokenToRead: boolean;
  /** Names, besides localhost and addresses in digits, that the server may be asked by. */
  allowedHosts: readonly string[];
  /** Ends live connections. */
  signal: AbortSignal;
  /** For how long a body is waited for; left out: as long as any network needs for so little. */
  bodyMilliseconds?: number;
}

const MAX_BODY_BYTES = 16 << 10;
const BODY_MS = 3000;
/** What an answer's body may be. */
type Data = string | Uint8Array<ArrayBuffer> | ReadableStream;

const JSON_TYPE = "application/json";
const MAX_PROMPT_CHARACTERS = 4096;

/** Creates the app. */
export function createApp(options: AppOptions): Hono {
  const { runs, explorer, assets, signal } = options;
  const app = new Hono();
  const live = createLive(runs, signal);
  const needsToken = tokenNeeded(options.token);
  /** Details as JSON, as long as the view they were made of is the last one. */
  const details = new WeakMap<RunView, Promise<string>>();
  /** Overviews as JSON, and the list that was made of them last. */
  const overviews = new WeakMap<RunOverview, string>();
  let listed: { texts: readonly string[]; bytes: Uint8Array<ArrayBuffer>; etag: string } | undefined;

  const bodyLimits: BodyLimits = { bytes: MAX_BODY_BYTES, milliseconds: options.bodyMilliseconds ?? BODY_MS };

  app.use(answerHeaders(), boundedRequest(), knownHost(options.allowedHosts), allowedMethods(app));
  if (options.tokenToRead) {
    for (const path of ["/api/*", "/metrics", "/runs/*"]) app.use(path, needsToken);
  }

  async function runOf(context: Context): Promise<RunView> {
    const view = await runs.view(context.req.param("run") ?? "");
    return view ?? raise(404, "There is no such run");
  }

  function detailText(view: RunView): Promise<string> {
    let text = details.get(view);
    if (!text) {
      details.set(
        view,
        text = runs.detail(view).then((detail: RunDetail) => JSON.stringify(detail)),
      );
    }
    return text;
  }

  /** The list as it is sent: made anew only where a run differs. */
  async function listBytes(): Promise<{ bytes: Uint8Array<ArrayBuffer>; etag: string }> {
    const texts = (await runs.list()).map((overview) => {
      const text = overviews.get(overview) ?? JSON.stringify(overview);
      overviews.set(overview, text);
      return text;
    });
    const before = listed?.texts;
    if (!listed || before?.length !== texts.length || texts.some((text, n) => text !== before[n])) {
      listed = {
        texts,
        bytes: new TextEncoder().encode(`[${texts.join()}]`),
        // Of this process alone: another one's list of the same number is another.
        etag: `"${crypto.randomUUID()}"`,
      };
    }
    return listed;
  }

  app.get("/health", (context) => context.json({ status: "ok" }));
  app.get("/api/openapi.json", (context) => context.json(openApiDocument()));
  app.get("/metrics", (context) =>
    answered(
      context,
      "text/plain; version=0.0.4; charset=utf-8",
      async () => prometheusText(await runs.list(), live.clients),
    ));
  app.get("/api/runs", async (context) => {
    const { bytes, etag } = await listBytes();
    context.header("ETag", etag);
    if (namesTag(context.req.header("If-None-Match"), etag)) return context.body(null, 304);
    return await answered(context, JSON_TYPE, () => bytes);
  });
  app.get("/api/runs/:run", async (context) => {
    const view = await runOf(context);
    return await answered(context, JSON_TYPE, () => detailText(view));
  });

  app.get("/api/runs/:run/metrics", async (context) => {
    const view = await runOf(context);
    const since = placeParameter(context.req.query("since"));
    const points = countParameter(context.req.query("points"), "points");
    const type = accepts(context, {
      header: "Accept",
      supports: [JSON_TYPE, "text/csv", "application/vnd.apache.arrow.stream"],
      default: JSON_TYPE,
    });
    context.header("Vary", "Accept");
    return await answered(context, type === "text/csv" ? `${type}; charset=utf-8` : type, () => {
      const all = view.rows.slice(firstAfter(view.rows, since));
      const rows = points === undefined ? all : thin(all, points);
      if (type === "text/csv") return metricsCsv(rows);
      if (type !== JSON_TYPE) return metricsStream(rows) as Uint8Array<ArrayBuffer>;
      const last = view.rows.at(-1);
      const answer: MetricsAnswer = {
        run: view.name,
        rows,
        total: all.length,
        last: last ? placeOf(last) : null,
      };
      return JSON.stringify(answer);
    });
  });

  app.get("/api/runs/:run/events", async (context) => {
    const view = await runOf(context);
    const since = placeParameter(context.req.query("since"));
    // A client repeats what it kept, also of another server: what cannot be read begins anew.
    const seen = parsePlace(context.req.header("Last-Event-ID") ?? "");
    if (isHead(context)) return context.body(null, 200, { "Content-Type": "text/event-stream" });
    return live.open(context, view.name, seen ?? since);
  });

  app.get("/api/runs/:run/checkpoints", async (context) => {
    const view = await runOf(context);
    return await answered(context, JSON_TYPE, async () => JSON.stringify(await runs.checkpoints(view)));
  });

  app.get("/api/runs/:run/heads", async (context) => {
    const { rows, config } = await runOf(context);
    const { layers = 0, heads = 0 } = config?.model.config ?? {};
    return await answered(context, JSON_TYPE, () => {
      const answer: HeadsAnswer = {
        layers,
        heads,
        snapshots: rows
          .filter((row) => row.expected_open_by_head !== null || row.open_by_head !== null)
          .map(({ phase, step, expected_open_by_head: expected, open_by_head: hard }) => ({
            phase,
            step,
            expected,
            hard,
          })),
      };
      return JSON.stringify(answer);
    });
  });

  app.post("/api/runs/:run/attention", async (context) => {
    const view = await runOf(context);
    return context.json(await explorer.ask(view, attentionRequest(await jsonBody(context, bodyLimits))));
  });

  app.post("/api/runs/:run/continuation", async (context) => {
    const view = await runOf(context);
    return context.json(
      await explorer.goOn(view, continuationRequest(await jsonBody(context, bodyLimits))),
    );
  });

  app.post("/api/runs/:run/control", needsToken, async (context) => {
    const view = await runOf(context);
    const change = controlRequest(await jsonBody(context, bodyLimits));
    if (!LIVE.includes(view.overview.status)) {
      return raise(409, `Cannot steer ${view.name} as no process is at it: it is ${view.overview.status}`);
    }
    if (change.slack !== undefined && view.config?.command !== "sparsify") {
      return raise(409, `Cannot change the slack of ${view.name} as it has no dense loss to stand above`);
    }
    const wanted = await runs.control(view, change);
    details.delete(view);
    return context.json(wanted);
  });

  const sendReport = async (
    context: Context,
    file: string,
    inside?: readonly string[],
  ): Promise<Response> => {
    const report = await runs.report(await runOf(context), file, inside);
    if (report === undefined) return raise(404, "The run has no such report");
    context.header("Content-Security-Policy", report.policy);
    return await answered(context, "text/html; charset=utf-8", () => report.open());
  };
  app.get("/runs/:run/reports/:file", (context) => sendReport(context, context.req.param("file")));
  // Where the page of a sweep leads to, and that of a study.
  app.get(
    "/runs/:run/reports/:inside/:file",
    (context) => sendReport(context, context.req.param("file"), [context.req.param("inside")]),
  );
  app.get("/runs/:run/reports/:stage/:inside/:file", (context) => {
    const { stage, inside, file } = context.req.param();
    return sendReport(context, file, [stage, inside]);
  });

  for (const [path, { bytes, type, etag }] of assets) {
    app.get(path, (context) => {
      context.header("ETag", etag);
      context.header("Cache-Control", "no-cache");
      if (namesTag(context.req.header("If-None-Match"), etag)) return context.body(null, 304);
      return answered(context, type, () => bytes);
    });
  }

  app.notFound((context) => context.json({ error: "There is nothing at this address" }, 404));
  app.onError((error, context) => {
    if (error instanceof HTTPException) return error.getResponse();
    logFault(`${context.req.method} ${context.req.path}`, error);
    return context.json({ error: "The server failed at this; its log says why" }, 500);
  });
  return app;
}

function raise(...args: Parameters<typeof problem>): never {
  throw problem(...args);
}

/** Whether only the headers of an answer are wanted. */
function isHead(context: Context): boolean {
  return context.req.method === "HEAD";
}

/** Answers with what `build` makes, which is not made where only the headers are wanted. */
async function answered(
  context: Context,
  type: string,
  build: () => Data | Promise<Data>,
): Promise<Response> {
  const headers = { "Content-Type": type };
  return isHead(context) ? context.body(null, 200, headers) : context.body(await build(), 200, headers);
}

function placeParameter(text: string | undefined): Place | undefined {
  if (text === undefined || text === "") return undefined;
  return parsePlace(text) ?? raise(400, "since must be a phase and a step, as sparse:120");
}

function countParameter(text: string | undefined, name: string): number | undefined {
  if (text === undefined) return undefined;
  if (!/^\d{1,7}$/.test(text) || Number(text) < 2) raise(400, `${name} must be a whole number of at least 2`);
  return Number(text);
}

/**
 * About so many of the rows: every n-th, the last, those that hold an evaluation, and those on both sides of a
 * resumption, where a new process's clock begins.
 */
export function thin(rows: readonly MetricRow[], points: number): MetricRow[] {
  const stride = Math.ceil(rows.length / points);
  const isNewClock = (n: number): boolean =>
    n < rows.length && n > 0 && rows[n].seconds < rows[n - 1].seconds;
  return rows.filter((row, n) =>
    n % stride === 0 || n === rows.length - 1 || row.validation_ce !== null || isNewClock(n) ||
    isNewClock(n + 1)
  );
}

async function jsonBody(context: Context, limits: BodyLimits): Promise<Record<string, unknown>> {
  if (!/^application\/json\b/i.test(context.req.header("Content-Type") ?? "")) {
    raise(415, "The body must be application/json");
  }
  const bytes = await readBody(context.req.raw, limits);
  let body: unknown;
  try {
    body = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    raise(400, "The body is no JSON");
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    raise(400, "The body must be a JSON object");
  }
  return body as Record<string, unknown>;
}

function onlyKeys(body: Record<string, unknown>, known: readonly string[]): void {
  const unknown = Object.keys(body).find((key) => !known.includes(key));
  if (unknown !== undefined) {
    raise(400, `Unknown key ${shown(unknown)}; known are ${known.join(", ")}`);
  }
}

/** What both questions to the explorer have. */
function exploration(body: Record<string, unknown>): Pick<AttentionRequest, "prompt" | "model"> {
  const { prompt, model = "sparse" } = body;
  if (typeof prompt !== "string" || prompt === "") raise(400, "prompt must be a text");
  if ((prompt as string).length > MAX_PROMPT_CHARACTERS) {
    raise(400, `prompt must have at most ${MAX_PROMPT_CHARACTERS} characters`);
  }
  if (model !== "sparse" && model !== "dense") raise(400, "model must be sparse or dense");
  return { prompt, model } as Pick<AttentionRequest, "prompt" | "model">;
}

function attentionRequest(body: Record<string, unknown>): AttentionRequest {
  onlyKeys(body, ["prompt", "model", "threshold"]);
  const shared = exploration(body);
  const { threshold } = body;
  const inRange = typeof threshold === "number" && threshold >= 0 && threshold <= 1;
  if (threshold !== undefined && !inRange) raise(400, "threshold must be a number between 0 and 1");
  return { ...shared, threshold } as AttentionRequest;
}

function continuationRequest(body: Record<string, unknown>): ContinuationRequest {
  onlyKeys(body, ["prompt", "model", "tokens"]);
  const shared = exploration(body);
  const { tokens } = body;
  const inRange = Number.isInteger(tokens) && tokens as number >= 1 && tokens as number <= MAX_CONTINUATION;
  if (tokens !== undefined && !inRange) {
    raise(400, `tokens must be a whole number from 1 to ${MAX_CONTINUATION}`);
  }
  return { ...shared, tokens } as ContinuationRequest;
}

function controlRequest(body: Record<string, unknown>): Partial<ControlRequest> {
  onlyKeys(body, ["paused", "stop", "slack"]);
  const { paused, stop, slack } = body;
  if (Object.keys(body).length === 0) raise(400, "One of paused, stop and slack is needed");
  for (const [name, value] of Object.entries({ paused, stop })) {
    if (value !== undefined && typeof value !== "boolean") raise(400, `${name} must be true or false`);
  }
  const isSlack = typeof slack === "number" && Math.abs(slack) <= SLACK_BOUND;
  if (slack !== undefined && !isSlack) raise(400, `slack must be a number within ±${SLACK_BOUND}`);
  return body as Partial<ControlRequest>;
}
