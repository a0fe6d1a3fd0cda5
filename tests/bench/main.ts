/**
 * `deno task bench [what] [flags]`: how fast the kernels, the training step and what stands before it are, side by side with
 * peers. `what` is a part of the case names, such as `matmul` or `T=512`, or several with `|` between them. On a CPU driver,
 * cases that take minutes there run only where `what` names them, or with `--all`. PyTorch runs beside where Python has it
 * with an NVIDIA GPU; `--torch cpu` tries that part without one.
 *
 * @module
 */
import { join } from "node:path";
import { parseArgs } from "@std/cli/parse-args";
import { adapterLabel } from "../../kernels/core/gpu_adapters.ts";
import { Gpu } from "../../kernels/core/gpu.ts";
import { createTuner } from "../../kernels/core/tuner.ts";
import type { MatmulLayout } from "../../kernels/matmul/op.ts";
import { prepareMesa } from "../../pipeline/command_line.ts";
import { versionText } from "../../pipeline/settings/help.ts";
import { formatTable } from "../../pipeline/report/table.ts";
import { attentionCase } from "./cases/attention.ts";
import { firstStepTime, loadingCase, mixedTokenisingCase, tokenisingCase } from "./cases/files.ts";
import { embeddedGeneratingCase, generatingCase } from "./cases/generating.ts";
import { matmulCase } from "./cases/matmul.ts";
import { adamwCase, crossEntropyCase, layerNormCase } from "./cases/rowwise.ts";
import { layersScaling, parametersScaling, stepsScaling } from "./cases/scaling.ts";
import { embeddedStepCase, OLMO_2_LAYERS, trainingStepCase } from "./cases/training_step.ts";
import { GPT2 } from "../support/gpt2.ts";
import { measureCeilings } from "./ceilings.ts";
import { type BenchCase, type BenchResult, firstLine, measure } from "./harness.ts";
import { hasTorch, openTorch, type Torch } from "./peers/torch.ts";

const FIXTURES = new URL("../fixtures", import.meta.url).pathname;

/** One line of the output. */
interface Entry {
  name: string;
  /** Takes minutes on a CPU driver. */
  large?: boolean;
  /** Leaves things on the device that only go with it. */
  fillsDevice?: boolean;
  run(gpu: Gpu, torch: Torch | undefined): Promise<BenchResult>;
}

/** An entry whose case is made when its turn comes. */
function entry(
  name: string,
  make: (gpu: Gpu, torch: Torch | undefined) => Promise<BenchCase>,
  options: Pick<Entry, "large" | "fillsDevice"> = {},
): Entry {
  return {
    name,
    ...options,
    async run(gpu, torch) {
      const bench = await make(gpu, torch);
      try {
        return await measure(gpu, bench, {
          wanted: wantedPeer,
          tell: (line) => console.error(`${name}: ${line}`),
          rounds,
        });
      } finally {
        await bench.destroy?.();
      }
    },
  };
}

function matmul(layout: MatmulLayout, m: number, n: number, k: number, use = "", large = false): Entry {
  const name = `matmul ${layout} ${m}x${n}x${k}${use && ` ${use}`}`;
  return entry(name, (gpu, torch) => matmulCase(gpu, { layout, m, n, k, torch }), { large });
}

/** The products of a linear layer and its gradients at one model's sizes; `everyday` ones also run on CPU drivers. */
function matmulsOf(
  model: string,
  rows: number,
  width: number,
  mlp: number,
  everyday: readonly string[],
): Entry[] {
  const shapes: [layout: MatmulLayout, m: number, n: number, k: number, use: string][] = [
    ["nn", rows, 3 * width, width, "qkv"],
    ["nn", rows, width, width, "attention out"],
    ["nn", rows, mlp, width, "MLP in"],
    ["nn", rows, width, mlp, "MLP out"],
    ["nt", rows, width, mlp, "MLP in, dx"],
    ["tn", width, mlp, rows, "MLP in, dW"],
    ["nt", 512, 50304, width, "logits of 512 positions"],
  ];
  return shapes.map(([layout, m, n, k, use]) =>
    matmul(layout, m, n, k, `${model} ${use}`, !everyday.includes(use))
  );
}

function attention(shape: Parameters<typeof attentionCase>[1], large: boolean): Entry {
  const { mode, pass, heads, positions, headSize } = shape;
  const name = `${
    mode === "dense" ? "dense" : "gated"
  } attention ${pass} H=${heads} T=${positions} D=${headSize}`;
  return entry(name, (gpu, torch) => attentionCase(gpu, shape, torch), { large });
}

const PASSES = ["forward", "backward", "forward + backward"] as const;

const ENTRIES: readonly Entry[] = [
  ...[512, 1024, 2048, 4096].flatMap((size) =>
    (["nn", "nt", "tn"] as const).map((layout) => matmul(layout, size, size, size, "", size > 1024))
  ),
  ...matmulsOf("GPT-2", 1024, 768, 3072, ["qkv", "MLP in, dx"]),
  ...matmulsOf("OLMo-7B", 2048, 4096, 11008, []),
  ...[256, 512, 1024, 2048, 4096, 8192].flatMap((positions) => {
    const shape = { heads: 12, positions, headSize: 64 };
    const large = positions > 1024;
    return [
      ...PASSES.map((pass) => attention({ mode: "sampled", pass, ...shape }, large)),
      attention({ mode: "dense", pass: "forward + backward", ...shape }, large),
    ];
  }),
  ...PASSES.map((pass) =>
    attention({ mode: "sampled", pass, heads: 32, positions: 2048, headSize: 128 }, true)
  ),
  ...[{ rows: 1024, width: 768 }, { rows: 2048, width: 4096 }].flatMap((shape) =>
    (["forward", "backward"] as const).map((pass) =>
      entry(
        `layer norm ${pass} ${shape.rows}x${shape.width}`,
        (gpu) => layerNormCase(gpu, { ...shape, pass }),
      )
    )
  ),
  ...[{ rows: 1024, vocabularySize: 4096 }, { rows: 512, vocabularySize: 50257 }].map((shape) =>
    entry(
      `cross-entropy with gradient ${shape.rows}x${shape.vocabularySize}`,
      (gpu) => crossEntropyCase(gpu, shape),
    )
  ),
  ...[{ rows: 768, columns: 3072 }, { rows: 4096, columns: 11008 }].map((shape) =>
    entry(`AdamW ${shape.rows}x${shape.columns}`, (gpu) => adamwCase(gpu, shape), {
      large: shape.rows > 1024,
    })
  ),
  entry("training step embedded B=8 T=128", embeddedStepCase, { fillsDevice: true }),
  ...([
    ["GPT-2 124M", GPT2, { batch: 1, context: 128 }],
    ["GPT-2 124M", GPT2, { batch: 8, context: 1024 }],
    ["GPT-2 124M", GPT2, { batch: 8, context: 1024, dtype: "f16" }],
    // GPT-2's architecture at OLMo-7B's sizes.
    ["OLMo-7B's sizes, 2 layers", OLMO_2_LAYERS, { batch: 1, context: 2048 }],
    ["OLMo-7B's sizes, 2 layers", OLMO_2_LAYERS, { batch: 1, context: 2048, dtype: "f16" }],
  ] as const).map(([model, config, shape]) =>
    entry(
      `training step ${model} B=${shape.batch} T=${shape.context}${"dtype" in shape ? " f16" : ""}`,
      (gpu, torch) => trainingStepCase(gpu, config, shape, torch),
      { large: true, fillsDevice: true },
    )
  ),
  entry("generating embedded, token 64", embeddedGeneratingCase),
  entry("generating GPT-2 124M, token 64", (gpu) => generatingCase(gpu, GPT2, 64), { large: true }),
  { name: "scaling with layers", fillsDevice: true, run: layersScaling },
  { name: "scaling with parameters", fillsDevice: true, run: parametersScaling },
  { name: "scaling with steps", fillsDevice: true, run: stepsScaling },
  entry("tokenising embedded text", tokenisingCase),
  ...["smollm2", "llama3", "qwen", "neox", "llama2"].map((family) =>
    entry(
      `tokenising mixed text, ${family}'s kind`,
      () => mixedTokenisingCase(join(FIXTURES, "tokenizers", `${family}.json`)),
      { large: true },
    )
  ),
  entry("loading GPT-2 124M", loadingCase),
  { name: "first step, shaders compiled anew", large: true, run: () => firstStepTime("cold") },
  { name: "first step, shaders cached", large: true, run: () => firstStepTime("warm") },
];

const number = (value: number | undefined, digits = 1): string =>
  value === undefined ? "" : value.toFixed(digits);
const share = (part: number | undefined, of: number): string =>
  part === undefined ? "" : `${(100 * part / of).toFixed(0)} %`;

const HELP = `Times kernels, the training step and what stands before it, beside peers.

Usage: deno task bench [what] [flags]

  what              a part of the cases' names, such as matmul or T=512, or several
                    with | between them, $ for a name's end; left out: all
  --all             also what takes minutes on a CPU driver, which else runs only where it is named
  --json            a line of JSON for each case
  --peers NAMES     parts of the names of the peers that take part, with | between them (all of them)
  --rounds N        rounds in which ours and the peers take turns (5)
  --tokenizer PATH  a tokenizer.json to time beside the others, as the case "tokenising mixed text, PATH"
  --torch DEVICE    where PyTorch runs beside, if Python has it (cuda)
  --gpu NAME        part of the adapter's name, or its number (the fastest)
  --help            this text
  --version         the version of this program, and of Deno`;

const flags = parseArgs(Deno.args, {
  boolean: ["all", "json", "help", "version"],
  string: ["torch", "gpu", "tokenizer", "peers", "rounds"],
  alias: { h: "help" },
  unknown(arg, key) {
    // What is no flag names cases.
    if (key === undefined) return true;
    console.error(`error: Unknown flag ${arg}: --help lists those that there are`);
    Deno.exit(2);
  },
});
const what = flags._.join(" ").toLowerCase().split("|");
const { json, all } = flags;
const peersWanted = String(flags.peers ?? "").split("|");
const wantedPeer = (name: string): boolean => peersWanted.some((part) => name.includes(part));
if (flags.help || flags.version) {
  console.log(flags.help ? HELP : versionText());
  Deno.exit(0);
}
prepareMesa();
const rounds = flags.rounds === undefined ? undefined : Number(flags.rounds);
if (rounds !== undefined && !(Number.isInteger(rounds) && rounds > 0)) {
  console.error(`error: Cannot use --rounds as it must be a positive integer: ${flags.rounds}`);
  Deno.exit(2);
}
// Peers fail in promises, too, that nobody waits for; theirs is then the line that tells of it, not the run's end.
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  console.error(`a peer failed: ${firstLine(event.reason)}`);
});

// Every product is measured in its variants, as in a run that has been started before.
const tuner = createTuner({ known: new Map(), seconds: Infinity, onFound: () => {} });
async function openGpu(): Promise<Gpu> {
  const gpu = await Gpu.open({ adapter: flags.gpu as string | undefined });
  gpu.tuner = tuner;
  return gpu;
}

let gpu = await openGpu().catch((error) => {
  console.error(`error: ${error.message}`);
  Deno.exit(4);
});
const ceilings = await measureCeilings(gpu);
const torchDevice = flags.torch as string | undefined ?? "cuda";
const torch = await hasTorch(torchDevice) ? openTorch(torchDevice) : undefined;
const date = new Date().toISOString().slice(0, 10);
if (json) console.log(JSON.stringify({ case: "ceilings", adapter: gpu.adapter.name, date, ...ceilings }));
else {
  console.log(
    `${date}, ${adapterLabel(gpu.adapter)}, Deno ${Deno.version.deno}\n` +
      `held against ${number(ceilings.gflops)} GFLOP/s of multiply-adds in registers and ${
        number(ceilings.gbps)
      } GB/s ` +
      `read and written by a copy, both as measured now`,
  );
}
const results: (BenchResult & { case: string })[] = [];
const own = flags.tokenizer as string | undefined;
const entries = own === undefined
  ? ENTRIES
  : [...ENTRIES, entry(`tokenising mixed text, ${own}`, () => mixedTokenisingCase(own))];
for (const { name, large, fillsDevice, run } of entries) {
  if (!what.some((part) => (name.toLowerCase() + "$").includes(part))) continue;
  if (large && gpu.adapter.software && what.includes("") && !all) continue;
  let failed = false;
  try {
    const result = { case: name, ...await run(gpu, torch) };
    results.push(result);
    if (json) console.log(JSON.stringify(result));
    else console.error(`${name}: ${number(result.median_ms, 2)} ms`);
  } catch (error) {
    failed = true;
    if (json) console.log(JSON.stringify({ case: name, error: firstLine(error) }));
    else console.log(`${name}: ${firstLine(error)}`);
  }
  // A device that failed once fails everything after it.
  if (failed || fillsDevice) {
    gpu.close();
    gpu = await openGpu();
  }
}
if (!json) {
  console.log(formatTable([
    ["case", "ms", "device, ms", "busy", "GFLOP/s", "of the most", "GB/s", "of a copy", "tokens/s"],
    ...results.map((result) => [
      result.case,
      number(result.median_ms, 2),
      number(result.device_ms, 2),
      share(result.device_ms, result.median_ms),
      number(result.gflops),
      share(result.gflops, ceilings.gflops),
      number(result.gbps, 2),
      share(result.gbps, ceilings.gbps),
      number(result.tokens_per_second, 0),
    ]),
  ]));
  const peers = results.flatMap((result) =>
    Object.entries(result.peers).map(([peer, of]) => ({ result, peer, of }))
  );
  if (peers.length > 0) {
    console.log(
      "\n" + formatTable([
        ["case", "peer", "ms", "its time over ours"],
        ...peers.map(({ result, peer, of }) =>
          "error" in of
            ? [result.case, peer, "", of.error]
            : [result.case, peer, number(of.median_ms, 2), number(of.ratio, 2)]
        ),
      ]),
    );
  }
  for (const { case: name, details } of results) {
    if (!details) continue;
    console.log(`\n${name}`);
    console.log(formatTable(Object.entries(details).map(([what, value]) => [`  ${what}`, number(value, 3)])));
  }
}
await torch?.close();
Deno.exit(0);
