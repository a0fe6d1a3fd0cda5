/**
 * The OpenAPI document of the app, served at /api/openapi.json. A test holds it against the app's routes.
 *
 * @module
 */
import { MAX_CONTINUATION, RUN_STATUSES } from "./api.ts";
import project from "../deno.json" with { type: "json" };

type Schema = Record<string, unknown>;

const text = (description: string): Schema => ({ type: "string", description });
const number = (description: string): Schema => ({ type: "number", description });
const ref = (name: string): Schema => ({ $ref: `#/components/schemas/${name}` });
const list = (items: Schema): Schema => ({ type: "array", items });
const json = (schema: Schema, description: string): Schema => ({
  description,
  content: { "application/json": { schema } },
});
const nullable = (schema: Schema): Schema => ({ anyOf: [schema, { type: "null" }] });

const RUN: Schema = { name: "run", in: "path", required: true, schema: text("Name of the run") };
const FAILURES = {
  "400": json(ref("Error"), "A parameter or the body is not as it must be"),
  "401": json(ref("Error"), "A token is needed"),
  "404": json(ref("Error"), "There is no such run"),
  "405": json(ref("Error"), "The address takes the methods in Allow"),
};
/** What can become of a body. */
const BODY_FAILURES = {
  "408": json(ref("Error"), "The body took too long"),
  "413": json(ref("Error"), "The body is too large"),
  "415": json(ref("Error"), "The body is no application/json"),
};
/** What can become of a question to a model. */
const MODEL_FAILURES = {
  "409": json(
    ref("Error"),
    "The run has no such weights, they are damaged, or they lie in no folder that is served (--models)",
  ),
  "503": json(ref("Error"), "Too many prompts are waiting"),
};
const since = (where: string, name: string): Schema => ({
  name,
  in: where,
  schema: { type: "string", pattern: "^[a-z]+:[0-9]+$" },
  description: "Place behind which to begin, as sparse:120 (phase and step)",
});

/** A GET under /api/runs/{run}. */
function get(summary: string, ok: Schema, parameters: Schema[] = [RUN]): Schema {
  return { get: { summary, parameters, responses: { "200": ok, ...FAILURES } } };
}

/** A POST with a JSON body. */
function post(summary: string, body: Schema, ok: Schema, failures: Schema, secured: boolean): Schema {
  return {
    post: {
      summary,
      ...(secured ? { security: [{ token: [] }] } : {}),
      parameters: [RUN],
      requestBody: { required: true, content: { "application/json": { schema: body } } },
      responses: { "200": ok, ...FAILURES, ...BODY_FAILURES, ...failures },
    },
  };
}

const PHASE: Schema = { type: "string", enum: ["pretrain", "sparse", "control"] };

/** The document. */
export function openApiDocument(): Schema {
  return {
    openapi: "3.1.0",
    info: {
      title: "Sparse attention runs",
      version: project.version,
      description:
        "Watch, question and steer runs of sparse attention post-training. Losses are in nats, shares between 0 and 1.",
    },
    // Relative to this document: below a proxy's path, too.
    servers: [{ url: ".." }],
    components: {
      securitySchemes: { token: { type: "http", scheme: "bearer" } },
      schemas: {
        Error: { type: "object", required: ["error"], properties: { error: text("What is wrong") } },
        Measured: {
          type: "object",
          description: "An evaluation on the validation tokens",
          properties: {
            step: number("Steps done"),
            validation_ce: number("Validation loss with hard gates"),
            open_fraction: nullable(number("Open edges with hard gates")),
            target: nullable(number("Loss that the run was held to at that step")),
          },
        },
        RunOverview: {
          type: "object",
          properties: {
            name: text("The run's folder"),
            command: nullable(text("sparsify, pretrain, circuits or sweep")),
            status: { type: "string", enum: RUN_STATUSES },
            problem: nullable(text("Why it failed or is broken")),
            phases: list({
              type: "object",
              properties: { phase: PHASE, step: number("Steps done"), steps: number("Steps in all") },
            }),
            last: nullable({ type: "object", description: "The last row of metrics, without its lists" }),
            model: nullable(text("Folder of the model that it began with, as it was given")),
            changed: { type: "object", description: "Settings that are not the command's defaults" },
            evaluation: nullable(ref("Measured")),
            chosen: nullable(ref("Measured")),
            target_met: nullable({
              type: "boolean",
              description:
                "Whether the result stays at its target; null before the end, and without a target",
            }),
            result: nullable({
              type: "object",
              description:
                "What a finished run comes to, by its kind; of circuits the task, and the sizes of each of its models by name",
              properties: { kind: { type: "string", enum: ["sparsify", "pretrain", "circuits", "sweep"] } },
            }),
            tokens_per_second: nullable(number("Training speed")),
            seconds_left: nullable(number("Expected time to the end of the last phase")),
            signatures: list({
              type: "object",
              properties: {
                name: text("worse than guessing, loss spike, plateau, wind-up or dead queries"),
                phase: PHASE,
                step: number("Step at which it set in"),
                message: text("What was seen, and what usually mends it"),
              },
            }),
            updated: nullable({ type: "string", format: "date-time" }),
          },
        },
        RunDetail: {
          allOf: [ref("RunOverview"), {
            type: "object",
            properties: {
              settings: { type: "object", description: "Every setting of the run" },
              adapter: nullable(text("GPU that it runs on")),
              versions: { type: "object" },
              layers: number("Layers of the model"),
              heads: number("Heads of a layer"),
              context: number("Positions of the model"),
              summary: nullable({ type: "object", description: "summary.json, once it is finished" }),
              control: ref("Control"),
              slack_changes: list({ type: "object" }),
              changes: list({
                type: "object",
                description: "Settings that became others when it was resumed",
              }),
              reports: list({
                type: "object",
                properties: { file: text("Under /runs/{run}/reports/"), bytes: number("Its size") },
              }),
            },
          }],
        },
        MetricRow: {
          type: "object",
          description: "One step of one phase; null for what was not measured",
          properties: {
            phase: PHASE,
            step: number("Steps done, from 1"),
            tokens: number("Training tokens of this phase so far"),
            ce: number("Training loss"),
            target: nullable(number("Loss that the run is held to, on validation tokens")),
            constraint: nullable(number("Validation loss above its target as last measured")),
            lambda: nullable(number("Multiplier, without its proportional term")),
            lambda_acting: nullable(number("Multiplier in the loss of this step")),
            expected_open: nullable(number("Mean open probability")),
            open_fraction: nullable(number("Open edges with hard gates, at evaluations")),
            validation_ce: nullable(number("Validation loss with hard gates, at evaluations")),
            seconds: number("Wall time in this phase"),
          },
        },
        Control: {
          type: "object",
          additionalProperties: false,
          properties: {
            paused: { type: "boolean", description: "Wait before the next step" },
            stop: { type: "boolean", description: "Stop after the next step, with a checkpoint" },
            slack: nullable(number("Nats above the dense loss from the next step on")),
          },
        },
        AttentionRequest: {
          type: "object",
          required: ["prompt"],
          additionalProperties: false,
          properties: {
            prompt: { type: "string", maxLength: 4096 },
            model: { type: "string", enum: ["sparse", "dense"], default: "sparse" },
            threshold: { type: "number", minimum: 0, maximum: 1, default: 0.01 },
          },
        },
        ContinuationRequest: {
          type: "object",
          required: ["prompt"],
          additionalProperties: false,
          properties: {
            prompt: { type: "string", maxLength: 4096 },
            model: { type: "string", enum: ["sparse", "dense"], default: "sparse" },
            tokens: { type: "integer", minimum: 1, maximum: MAX_CONTINUATION, default: 32 },
          },
        },
        Continuation: {
          type: "object",
          properties: {
            model: text("sparse or dense"),
            weights: { type: "object", description: "Which: model, checkpoint (with its step) or dense" },
            tokens: list(number("Id of a token")),
            text: text("What they spell"),
            ended: { type: "string", enum: ["tokens", "end of text", "positions"] },
          },
        },
        Attention: {
          type: "object",
          properties: {
            tokens: list(text("A token's text")),
            edges: list({
              type: "array",
              description: "[layer, head, query, key, weight, gate logit or null]",
            }),
            open: number("Edges whose gate is open"),
            causal_pairs: number("Edges there could be"),
            omitted: number("Edges left out for length"),
            next: list({
              type: "object",
              properties: { token: text("Token"), probability: number("0 to 1") },
            }),
          },
        },
      },
    },
    paths: {
      "/health": {
        get: { summary: "Whether the server is up", responses: { "200": json({ type: "object" }, "It is") } },
      },
      "/metrics": {
        get: {
          summary: "Every run for Prometheus",
          responses: { "200": { description: "Text format 0.0.4", content: { "text/plain": {} } } },
        },
      },
      "/api/openapi.json": {
        get: { summary: "This document", responses: { "200": json({ type: "object" }, "OpenAPI 3.1") } },
      },
      "/api/runs": {
        get: {
          summary: "All runs",
          responses: {
            "200": json(
              list(ref("RunOverview")),
              "The one that wrote last comes first; the 1,000 that began last",
            ),
            "304": { description: "As it was under the ETag in If-None-Match" },
          },
        },
      },
      "/api/runs/{run}": get("One run", json(ref("RunDetail"), "Settings, state and progress")),
      "/api/runs/{run}/metrics": get(
        "Metrics since a place, in the format that Accept names",
        {
          description: "Rows in order",
          content: {
            "application/json": {
              schema: {
                type: "object",
                properties: {
                  run: text("Name"),
                  rows: list(ref("MetricRow")),
                  total: number("Rows before thinning"),
                  last: nullable(text("To be given as since")),
                },
              },
            },
            "text/csv": {},
            "application/vnd.apache.arrow.stream": {},
          },
        },
        [RUN, since("query", "since"), {
          name: "points",
          in: "query",
          schema: { type: "integer", minimum: 2 },
          description: "About so many rows: every n-th, and all with an evaluation",
        }],
      ),
      "/api/runs/{run}/events": get(
        "Live events: `rows` (a list of metric rows, its id the last one's place), `status` (a RunOverview), `gone`",
        { description: "Server-Sent Events", content: { "text/event-stream": {} } },
        [RUN, since("header", "Last-Event-ID"), since("query", "since")],
      ),
      "/api/runs/{run}/checkpoints": get("Checkpoints", json({ type: "object" }, "Whole and torn files")),
      "/api/runs/{run}/heads": get(
        "Open edges of every head over the run",
        json({ type: "object" }, "Snapshots; a list has an entry for each layer · heads + head"),
      ),
      "/api/runs/{run}/attention": post(
        "Attention of the run's model on a prompt",
        ref("AttentionRequest"),
        json(ref("Attention"), "Edges above the threshold"),
        MODEL_FAILURES,
        false,
      ),
      "/api/runs/{run}/continuation": post(
        "How the run's model goes on from a prompt, the likeliest token each time",
        ref("ContinuationRequest"),
        json(ref("Continuation"), "The text behind the prompt"),
        MODEL_FAILURES,
        false,
      ),
      "/api/runs/{run}/control": post(
        "Pause, go on, stop, change the slack",
        ref("Control"),
        json(ref("Control"), "What is wanted of the run now"),
        { "409": json(ref("Error"), "No process is at the run, or its control.json is damaged") },
        true,
      ),
      "/runs/{run}/reports/{file}": get(
        "A report of the run",
        { description: "A self-contained page of at most 32 MiB (413 else)", content: { "text/html": {} } },
        [RUN, { name: "file", in: "path", required: true, schema: text("Its file name") }],
      ),
      "/runs/{run}/reports/{inside}/{file}": get(
        "A report of a run of a sweep, or of a study's stage",
        { description: "As of any run", content: { "text/html": {} } },
        [
          RUN,
          { name: "inside", in: "path", required: true, schema: text("The run or stage in its folder") },
          { name: "file", in: "path", required: true, schema: text("Its file name") },
        ],
      ),
      "/runs/{run}/reports/{stage}/{inside}/{file}": get(
        "A report of a run of a study",
        { description: "As of any run", content: { "text/html": {} } },
        [
          RUN,
          { name: "stage", in: "path", required: true, schema: text("The stage in the study's folder") },
          { name: "inside", in: "path", required: true, schema: text("The run in the stage's folder") },
          { name: "file", in: "path", required: true, schema: text("Its file name") },
        ],
      ),
    },
  };
}
