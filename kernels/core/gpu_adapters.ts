/**
 * The adapters of a machine. WebGPU gives one adapter for one wish (fast, sparing, by software), and Deno reads from an
 * environment variable on which backends; so what can be found is the fastest, the most sparing and the software adapter
 * of each backend. Of several cards of one kind it gives the first in the driver's order, which the driver's own
 * variables change: for Vulkan's loader `VK_DRIVER_FILES`, for Mesa's drivers `MESA_VK_DEVICE_SELECT`.
 *
 * OpenGL is asked only where no other backend has what is wanted: as a process ends, its library frees what it keeps of
 * each thread, and a thread that ends in that moment frees it too, which aborts the process.
 *
 * @module
 */

import { oneAtATime } from "./one_at_a_time.ts";

/** No adapter could be had, or it lacks something we cannot do without. */
export class AdapterError extends Error {
  /** For telling it apart where classes do not reach. */
  override name = "AdapterError";
}

/** Which adapter the numbers come from; its name goes into every run's config.json. */
export interface AdapterDescription {
  /** For people, for example `llvmpipe (LLVM 15.0.6, 256 bits)`. */
  name: string;
  /** As WebGPU says it; may be empty. */
  vendor: string;
  /** As WebGPU says it; may be empty. */
  architecture: string;
  /** True for a CPU driver such as llvmpipe. */
  software: boolean;
  /** What it is driven by, such as `Vulkan`; left out where that may not be asked. */
  backend?: string;
}

/** An adapter with what is known of it. */
export interface FoundAdapter {
  /** WebGPU's own object. */
  adapter: GPUAdapter;
  /** What it is. */
  description: AdapterDescription;
}

/** The variable that Deno reads at each request, and its values. */
const BACKEND_VARIABLE = "DENO_WEBGPU_BACKEND";
const BACKENDS: Readonly<Record<string, string>> = {
  vulkan: "Vulkan",
  metal: "Metal",
  dx12: "DX12",
  opengl: "OpenGL",
};
const LAST = "opengl";

/** Undefined: all at once, as the environment may not be changed. */
type Backend = string | undefined;

const WISHES: readonly GPURequestAdapterOptions[] = [
  { powerPreference: "high-performance" },
  { powerPreference: "low-power" },
  { forceFallbackAdapter: true },
];

const NO_ADAPTER = "Cannot open a GPU as WebGPU requires: no adapter was found. " +
  "Install your GPU's Vulkan driver, or the software driver (Debian: apt-get install mesa-vulkan-drivers libvulkan1).";

/** An adapter as people are told of it: its name, and what it is driven by. */
export function adapterLabel({ name, backend }: AdapterDescription): string {
  return backend === undefined ? name : `${name} by ${backend}`;
}

/**
 * Every adapter that can be asked for: first the fastest of the first backend that has a GPU, last those of OpenGL.
 *
 * @returns without backends, and of all backends together, where the environment may not be changed
 */
export function findAdapters(): Promise<FoundAdapter[]> {
  return inTurn(async () => {
    const [most, last] = backendsToAsk();
    return [...await adaptersOf(most), ...await adaptersOf(last)];
  });
}

/**
 * The adapter that is wanted.
 *
 * @param wanted a number below 100: its place among those that {@link findAdapters} gives; else a part of the name or the
 * backend, in any case, of which the first that has it is taken; left out: the first
 * @throws {AdapterError} when there is none, or none such: with those that there are
 */
export function findAdapter(wanted?: string): Promise<FoundAdapter> {
  return inTurn(() => find(wanted));
}

/** Another that asked meanwhile would take what is asked with for the user's. */
const inTurn = oneAtATime();

async function find(wanted: string | undefined): Promise<FoundAdapter> {
  const [most, last] = backendsToAsk();
  const found = wanted === undefined ? await fastestOf(most) : await adaptersOf(most);
  const chosen = choose(found, wanted);
  if (chosen) return chosen;
  found.push(...await adaptersOf(last));
  if (found.length === 0) throw new AdapterError(NO_ADAPTER);
  const other = choose(found, wanted);
  if (other) return other;
  const list = found.map(({ description }, n) => `${adapterLabel(description)} (${n})`).join("; ");
  throw new AdapterError(
    `Cannot open ${wanted} as no adapter here has that in its name or as its number: ${list}`,
  );
}

function choose(found: readonly FoundAdapter[], wanted = "0"): FoundAdapter | undefined {
  return /^\d{1,2}$/.test(wanted)
    ? found[Number(wanted)]
    : found.find(({ description }) => adapterLabel(description).toLowerCase().includes(wanted.toLowerCase()));
}

/** The adapters of some backends once each, the fastest first. */
async function adaptersOf(backends: readonly Backend[]): Promise<FoundAdapter[]> {
  const found = new Map((await fastestOf(backends)).map((one) => [keyOf(one), one]));
  for (const wish of WISHES) {
    for (const backend of backends) {
      const one = await request(wish, backend);
      if (one) found.set(keyOf(one), one);
    }
  }
  return [...found.values()];
}

/** The fastest adapter of the first of these backends that has a GPU, or else of the first that has any, if one has. */
async function fastestOf(backends: readonly Backend[]): Promise<FoundAdapter[]> {
  const found = [];
  for (const backend of backends) {
    const fastest = await request(WISHES[0], backend);
    if (fastest && !fastest.description.software) return [fastest];
    if (fastest) found.push(fastest);
  }
  return found.slice(0, 1);
}

/** The backends to be asked one by one, and those after them: the user's alone, if one is named. */
function backendsToAsk(): [most: Backend[], last: Backend[]] {
  const variable = { name: "env", variable: BACKEND_VARIABLE } as const;
  if (Deno.permissions.querySync(variable).state !== "granted") return [[undefined], []];
  const named = Deno.env.get(BACKEND_VARIABLE);
  if (named !== undefined) return [[named], []];
  return [Object.keys(BACKENDS).filter((backend) => backend !== LAST), [LAST]];
}

async function request(
  wish: GPURequestAdapterOptions,
  backend: Backend,
): Promise<FoundAdapter | undefined> {
  const adapter = await withBackend(backend, async () => await navigator.gpu?.requestAdapter(wish));
  if (!adapter) return undefined;
  const { description, vendor, architecture } = adapter.info;
  const name = description || vendor || "unknown adapter";
  const software = /llvmpipe|lavapipe|swiftshader|basic render/i.test(name);
  const described: AdapterDescription = { name, vendor, architecture, software };
  if (backend !== undefined) described.backend = BACKENDS[backend] ?? backend;
  return { adapter, description: described };
}

async function withBackend<Result>(
  backend: Backend,
  body: () => Promise<Result>,
): Promise<Result> {
  if (backend === undefined) return await body();
  const before = Deno.env.get(BACKEND_VARIABLE);
  if (before === backend) return await body();
  Deno.env.set(BACKEND_VARIABLE, backend);
  try {
    return await body();
  } finally {
    if (before === undefined) Deno.env.delete(BACKEND_VARIABLE);
    else Deno.env.set(BACKEND_VARIABLE, before);
  }
}

function keyOf({ adapter, description }: FoundAdapter): string {
  return JSON.stringify([description.backend, description.name, description.vendor, adapter.info.device]);
}
