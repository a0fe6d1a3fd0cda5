/**
 * Which methods an address takes: whatever else comes is answered before anything is done for it.
 *
 * @module
 */
import type { Hono, MiddlewareHandler } from "hono";
import { problem } from "./problem.ts";

/** Answers OPTIONS, and refuses every method that no route of `app` has at the address: 204 and 405 with Allow. */
export function allowedMethods(app: Hono): MiddlewareHandler {
  let routes: { method: string; parts: string[] }[] | undefined;

  function methodsAt(path: string): Set<string> {
    // At the first request, when all routes are there.
    routes ??= app.routes
      .filter(({ method }) => method !== "ALL")
      .map(({ method, path }) => ({ method, parts: path.split("/") }));
    const parts = path.split("/");
    const methods = new Set(
      routes.filter((route) => matches(route.parts, parts)).map(({ method }) => method),
    );
    if (methods.has("GET")) methods.add("HEAD");
    if (methods.size > 0) methods.add("OPTIONS");
    return methods;
  }

  return async (context, next) => {
    const { method, path } = context.req;
    const allowed = methodsAt(path);
    const Allow = [...allowed].join(", ");
    if (allowed.size > 0 && method === "OPTIONS") return context.body(null, 204, { Allow });
    if (allowed.size > 0 && !allowed.has(method)) {
      throw problem(405, `This address takes ${Allow}`, { Allow });
    }
    return await next();
  };
}

/** Whether a path is one of a route such as `/api/runs/:run`. */
function matches(route: readonly string[], path: readonly string[]): boolean {
  return route.length === path.length &&
    route.every((part, n) => part === path[n] || (part.startsWith(":") && path[n] !== ""));
}
