/**
 * `deno task bench [what] [--json]`: how fast the kernels and the training step are, side by side with peers in one
 * process. `what` is a part of the case names, such as `matmul` or `T=512`.
 *
 * @module
 */
import { tmpdir } from "node:os";
import { Gpu } from "../../kernels/core/gpu.ts";
import { formatTable } from "../../pipeline/table.ts";
import { attentionCase } from "./cases/attention.ts";
import { matmulCase } from "./cases/matmul.ts";
import { trainingStepCase } from "./cases/training_step.ts";
import { measureCeilings } from "./ceilings.ts";
import { type BenchCase, type BenchResult, measure } from "./harness.ts";

const LAYOUTS = ["nn", "nt", "tn"] as const;

/** Every case by name, made when its turn comes. */
const CASES: [name: string, make: (gpu: Gpu) => Promise<BenchCase>][] = [
  ...[512, 1024, 2048].flatMap((size) =>
    LAYOUTS.map((layout): typeof CASES[number] => [
      `matmul ${layout} ${size}x${size}x${size}`,
      (gpu) => matmulCase(gpu, { layout, m: size, n: size, k: size }),
    ])
  ),
  ...[256, 512, 1024, 2048, 4096].map((positions): typeof CASES[number] => [
    `gated attention forward + backward H=8 T=${positions} D=64`,
    (gpu) => attentionCase(gpu, { heads: 8, positions, headSize: 64 }),
  ]),
  ["training step embedded", (gpu) => trainingStepCase(gpu)],
];

const what = Deno.args.find((arg) => !arg.startsWith("--")) ?? "";
const json = Deno.args.includes("--json");
if (Deno.build.os === "linux" && !Deno.env.get("XDG_RUNTIME_DIR")) {
  Deno.env.set("XDG_RUNTIME_DIR", tmpdir());
}
const gpu = await Gpu.open();
const ceilings = await measureCeilings(gpu);
if (json) console.log(JSON.stringify({ case: "ceilings", adapter: gpu.adapter.name, ...ceilings }));
else {
  const [gflops, gbps] = [ceilings.gflops, ceilings.gbps].map((limit) => limit.toFixed(1));
  console.log(`adapter: ${gpu.adapter.name}; at most ${gflops} GFLOP/s in registers, ${gbps} GB/s copied`);
}
const results: BenchResult[] = [];
for (const [name, make] of CASES) {
  if (!name.includes(what)) continue;
  const bench = await make(gpu);
  const result = await measure(gpu, bench);
  bench.destroy?.();
  results.push(result);
  if (json) console.log(JSON.stringify(result));
  else console.error(`${result.case}: ${result.median_ms.toFixed(2)} ms`);
}
if (!json) {
  const peers = [...new Set(results.flatMap((result) => Object.keys(result.peers)))];
  const number = (value: number | undefined, digits = 1): string =>
    value === undefined ? "" : value.toFixed(digits);
  console.log(formatTable([
    [
      "case",
      "ms",
      "GFLOP/s",
      "of the most",
      "GB/s",
      "tokens/s",
      ...peers.map((peer) => `${peer}: ms`),
      ...peers.map(() => "ratio"),
    ],
    ...results.map((result) => [
      result.case,
      number(result.median_ms, 2),
      number(result.gflops),
      result.gflops === undefined ? "" : `${(100 * result.gflops / ceilings.gflops).toFixed(0)} %`,
      number(result.gbps, 2),
      number(result.tokens_per_second, 0),
      ...peers.map((peer) => number(result.peers[peer]?.median_ms, 2)),
      ...peers.map((peer) => number(result.peers[peer]?.ratio, 2)),
    ]),
  ]));
}
Deno.exit(0);
