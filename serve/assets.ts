/**
 * The page's files, read once: our own from serve/page, the palette and the glossary that reports have too, and the
 * libraries' from their packages. Only these are ever served.
 *
 * @module
 */
import { createHash } from "node:crypto";

/** A file to serve. */
export interface Asset {
  bytes: Uint8Array<ArrayBuffer>;
  /** MIME type. */
  type: string;
  etag: string;
}

/** By the path they are served at. */
export type Assets = ReadonlyMap<string, Asset>;

const TYPES = {
  html: "text/html; charset=utf-8",
  js: "text/javascript; charset=utf-8",
  css: "text/css; charset=utf-8",
  svg: "image/svg+xml",
  json: "application/json",
};

const PAGE = new URL("./page/", import.meta.url);
/** Files that lie elsewhere, by the path they are served at. */
const ELSEWHERE = {
  // What every page has in common.
  "/page/palette.css": new URL("../pipeline/report/palette.css", import.meta.url),
  "/page/glossary.json": new URL("../pipeline/report/glossary.json", import.meta.url),
  "/lib/uplot.js": new URL("uPlot.iife.min.js", import.meta.resolve("uplot")),
  "/lib/uplot.css": new URL("uPlot.min.css", import.meta.resolve("uplot")),
};

/** Reads every file of the page. */
export async function readAssets(): Promise<Assets> {
  const assets = new Map<string, Asset>();
  const add = async (path: string, file: URL): Promise<void> => {
    const type = TYPES[path.slice(path.lastIndexOf(".") + 1) as keyof typeof TYPES];
    if (!type) return;
    const bytes = await Deno.readFile(file);
    const etag = `"${createHash("sha256").update(bytes).digest("hex").slice(0, 32)}"`;
    assets.set(path, { bytes, type, etag });
  };
  for await (const { name, isFile } of Deno.readDir(PAGE)) {
    if (isFile) await add(`/page/${name}`, new URL(name, PAGE));
  }
  for (const [path, file] of Object.entries(ELSEWHERE)) await add(path, file);
  // Only at the root, since what it loads is named from there.
  const index = assets.get("/page/index.html");
  assets.delete("/page/index.html");
  if (index) assets.set("/", index);
  return assets;
}
