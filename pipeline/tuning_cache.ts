/**
 * Which variants of kernels were the fastest on this adapter, remembered between runs in the user's cache folder. It is
 * a convenience: a cache that cannot be read or written is done without.
 *
 * @module
 */
import { dirname, join } from "node:path";
import project from "../deno.json" with { type: "json" };
import type { Gpu, Tuner } from "../kernels/core/gpu.ts";
import { createTuner } from "../kernels/core/tuner.ts";
import { readJson, writeJson } from "./files.ts";

/** Seconds that a start may spend on measuring; what is left over is measured at the next. */
const SECONDS = 5;

/** The user's folder for what can be made again, or undefined where the system names none. */
export function cacheFolder(
  environment: (name: string) => string | undefined = Deno.env.get,
): string | undefined {
  const own = "sparse-attention";
  const base = environment("XDG_CACHE_HOME") || environment("LOCALAPPDATA");
  if (base) return join(base, own);
  const home = environment("HOME");
  return home ? join(home, ".cache", own) : undefined;
}

/** A tuner that knows what earlier runs on this adapter, driver and version found. */
export async function openTuner(gpu: Gpu, folder: string | undefined = cacheFolder()): Promise<Tuner> {
  const { name, vendor, architecture } = gpu.adapter;
  // The adapter's name holds its driver's version where the driver says it; Deno's version is that of its compiler.
  const identity = [name, vendor, architecture, `deno ${Deno.version.deno}`, `version ${project.version}`];
  const file = identity.join(" ").replace(/[^\w.]+/g, "-") + ".json";
  const path = folder && join(folder, "kernels", file);
  return createTuner({
    known: path ? await readKnown(path) : new Map(),
    seconds: SECONDS,
    async onFound(known) {
      if (!path) return;
      try {
        await Deno.mkdir(dirname(path), { recursive: true });
        await writeJson(path, Object.fromEntries(known));
      } catch {
        // Measured again next time.
      }
    },
  });
}

async function readKnown(path: string): Promise<Map<string, string>> {
  try {
    return new Map(
      Object.entries(await readJson(path) as object).filter((entry): entry is [string, string] =>
        typeof entry[1] === "string"
      ),
    );
  } catch {
    return new Map();
  }
}
