import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { KernelCheck } from "../../../kernels/core/check.ts";
import { DeviceError } from "../../../kernels/core/device.ts";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { adaptersFor } from "../../../pipeline/model/adapters.ts";
import {
  assertSelfCheck,
  selfCheck,
  type StoredAs,
  type Workload,
} from "../../../pipeline/model/self_check.ts";
import { MATMUL_VARIANTS, type MatmulVariant, variantCost, variantName } from "../../../kernels/matmul/op.ts";
import { gatedAttentionChecks } from "../../../kernels/gated_attention/check.ts";
import { productCheck } from "../../../kernels/matmul/check.ts";
import { relativeError } from "../../support/compare.ts";
import { gpuTest, testGpu } from "../../support/gpu.ts";
import { WITH_GPU_KERNELS } from "../../support/gpu_kernels.ts";

/** One mistake in the kernels whose label starts with `kernel`, and operations that must be found to be wrong by it. */
interface Fault {
  kernel: string;
  from: string;
  to: string;
  found: string[];
}

const gpu = await testGpu();
const GPT2 = gpt2Config({
  vocabularySize: 13,
  contextLength: 8,
  width: 16,
  layers: 2,
  heads: 2,
  mlpWidth: 64,
});
/** How the self-check names a product in the variants of these kinds that this adapter may use. */
const products = (product: string, ...kinds: MatmulVariant["kind"][]): string[] =>
  MATMUL_VARIANTS
    .filter((variant) => kinds.includes(variant.kind) && variantCost(gpu, variant, 36, 76) < Infinity)
    .map((variant) => `matmul ${product}, ${variantName(variant)}`);
const [NN, NT, TN] = ["nn", "nt", "tn"].map((layout) =>
  `${layout} of ${gpu.adapter.software ? "36 x 76" : "152 x 148"} x 140`
);

/** Whether attention computes in tiles here. */
const TILED = !gpu.adapter.software;

/** What attention's backward is checked by. */
const BACKWARD_OF_ATTENTION = [
  "dense",
  "deterministic",
  "sampled",
  "sampled, at temperature 1",
  "sampled, by distance",
].map((of) => `gated attention backward, ${of}`);
/** And its forward, in some modes. */
const forwardOfAttention = (modes = ["dense", "deterministic", "sampled"]): string[] =>
  modes.flatMap((mode) => ["forward", "row sums"].map((part) => `gated attention ${part}, ${mode}`));

const FAULTS: Fault[] = [
  {
    kernel: "matmul nn",
    from: "min(4u * k + 3u, K - 1u)",
    to: "min(4u * k + 2u, K - 1u)",
    found: ["matmul nn of 1 x 268 x 140", ...products(NN, "lanes", "registers")],
  },
  {
    kernel: "matmul nt",
    from: "b0_3[0]",
    to: "b0_2[0]",
    found: ["matmul nt of 1 x 268 x 140", ...products(NT, "registers")],
  },
  ...(gpu.lanes === undefined ? [] : [
    { kernel: "matmul nt", from: "along3[0]", to: "along2[0]", found: products(NT, "lanes") },
    { kernel: "matmul tn", from: "+ lane / ROWS4", to: "+ lane % ROWS4", found: products(TN, "lanes") },
  ]),
  ...(gpu.adapter.software ? [] : [["nn", NN], ["nt", NT], ["tn", TN]]).map(([layout, product]) => ({
    kernel: `matmul ${layout}`,
    from: "put_b(0u, index",
    to: "put_b(1u, index",
    found: products(product, "workgroup"),
  })),
  { kernel: "matmul nn unaligned", from: "k < K;", to: "k < K - 1u;", found: ["matmul nn of 11 x 21 x 7"] },
  {
    kernel: "matmul nn",
    // A CPU driver reads it by texture.
    from: gpu.adapter.software ? "value += texel_of_residual(" : "value += residual",
    to: gpu.adapter.software ? "value -= texel_of_residual(" : "value -= residual",
    found: ["", " without a bias"].flatMap((bias) =>
      products(`${NN}${bias} with a residual`, "lanes", "registers", "workgroup")
    ),
  },
  {
    kernel: "matmul nn",
    from: "activated[at] = gelu(value)",
    to: "activated[at] = value",
    found: ["GELU", "exact GELU"].flatMap((form) =>
      products(`${NN} with ${form}`, "lanes", "registers", "workgroup")
    ),
  },
  { kernel: "matmul nn", from: "value *= SCALE", to: "", found: ["low-rank products forward"] },
  { kernel: "matmul tn", from: "value *= SCALE", to: "", found: ["low-rank products backward"] },
  { kernel: "bias gradient", from: "m < M;", to: "m < M - 1u;", found: ["bias gradient"] },
  { kernel: "layer norm forward", from: "+ EPSILON", to: "+ 0.001", found: ["layer norm forward"] },
  {
    kernel: "layer norm backward",
    from: "h * means.y",
    to: "h * means.x",
    found: ["layer norm backward", "layer norm backward with residual"],
  },
  {
    kernel: "layer norm backward with residual",
    from: "value += dresidual",
    to: "value -= dresidual",
    found: ["layer norm backward with residual"],
  },
  {
    kernel: "layer norm parameter",
    from: "row < ROWS",
    to: "row < ROWS - 1u",
    found: ["layer norm backward"],
  },
  {
    kernel: "layer norm forward",
    from: "- mean) * inverse",
    to: ") * inverse",
    found: ["layer norm without parameters"],
  },
  {
    kernel: "rms norm forward",
    from: "+ EPSILON",
    to: "+ 0.001",
    found: ["RMS norm forward", "RMS norm of parts"],
  },
  {
    kernel: "explicit attention scores",
    from: "* SCALE",
    to: "* 0.3",
    found: ["explicit attention pattern", "explicit attention gates"],
  },
  {
    kernel: "explicit attention pattern",
    from: "exp(l - normaliser)",
    to: "exp(l - highest)",
    found: ["explicit attention pattern"],
  },
  {
    kernel: "explicit attention open gates",
    from: "gates[at] > 0.0",
    to: "gates[at] > 0.5",
    found: ["explicit attention gates"],
  },
  {
    kernel: "explicit attention mix",
    from: "sum += (",
    to: "sum += 2.0 * (",
    found: ["explicit attention mix"],
  },
  { kernel: "blend", from: "weights.of_b *", to: "", found: ["blend"] },
  { kernel: "rms norm of parts", from: "* STRIDE", to: "* 0u", found: ["RMS norm of parts"] },
  {
    kernel: "rms norm backward",
    from: "* inverse * mean",
    to: "* mean",
    found: ["RMS norm backward", "RMS norm backward with residual"],
  },
  {
    kernel: "rms norm backward with residual",
    from: "value += dresidual",
    to: "value -= dresidual",
    found: ["RMS norm backward with residual"],
  },
  { kernel: "rms norm weight", from: "row < ROWS", to: "row < ROWS - 1u", found: ["RMS norm backward"] },
  { kernel: "embedding forward", from: "position % T", to: "position / T", found: ["embedding forward"] },
  {
    kernel: "embedding forward",
    from: "row >= COUNT",
    to: "row >= COUNT - 1u",
    found: ["embedding forward", "embedding without positions"],
  },
  {
    kernel: "embedding backward token",
    from: "at < run.z",
    to: "at <= run.y",
    found: ["embedding backward"],
  },
  { kernel: "embedding backward position", from: "+= sum", to: "+= dx[at]", found: ["embedding backward"] },
  { kernel: "gelu forward", from: "0.044715", to: "0.047715", found: ["GELU forward"] },
  { kernel: "gelu backward", from: "0.134145", to: "0.044715", found: ["GELU backward"] },
  { kernel: "exact gelu forward", from: "0.209823832", to: "0.210823832", found: ["exact GELU forward"] },
  { kernel: "exact gelu backward", from: "0.3989422804", to: "0.3979422804", found: ["exact GELU backward"] },
  { kernel: "swiglu forward", from: "[of_gate + COLUMNS]", to: "[at]", found: ["SwiGLU forward"] },
  { kernel: "swiglu backward", from: "gate * e", to: "e", found: ["SwiGLU backward"] },
  { kernel: "clip forward", from: "-LIMIT", to: "0.0", found: ["clip forward"] },
  { kernel: "clip backward", from: "<=", to: ">", found: ["clip backward"] },
  { kernel: "rotary forward", from: "* cosine + x1", to: "* cosine - x1", found: ["rotary forward"] },
  { kernel: "rotary backward", from: "place.start +", to: "", found: ["rotary backward"] },
  {
    kernel: "query key norm forward",
    from: "width * FLOATS",
    to: "KEY_WIDTH * FLOATS + 1u",
    found: ["head", "all"].map((per) => `query key norm forward, per ${per}`),
  },
  {
    kernel: "query key norm backward",
    from: "* inverse * mean",
    to: "* mean",
    found: ["head", "all"].map((per) => `query key norm backward, per ${per}`),
  },
  {
    kernel: "query key norm weight gradient",
    from: "select(QUERIES, 0u, is_query)",
    to: "0u",
    found: ["head", "all"].map((per) => `query key norm backward, per ${per}`),
  },
  { kernel: "residual", from: "a[n] + b[n]", to: "a[n]", found: ["residual"] },
  {
    kernel: "gated attention forward",
    from: TILED ? "*= SCALE" : "* SCALE",
    to: TILED ? "*= 0.353" : "* 0.353",
    found: forwardOfAttention(),
  },
  {
    kernel: "gated attention forward",
    from: "0x85ebca77u",
    to: "0x85ebca6bu",
    found: ["gated attention forward, sampled"],
  },
  {
    kernel: "gated attention forward",
    from: TILED ? "select(0.0, weight0[0], open0)" : "select(0.0, weight, open)",
    to: TILED ? "weight0[0]" : "weight",
    found: ["gated attention forward, deterministic", "gated attention forward, sampled"],
  },
  {
    kernel: "gated attention forward",
    from: "head / QUERIES_PER_KEY",
    to: "head % KEY_HEADS",
    found: ["dense", "deterministic", "sampled"].map((mode) => `gated attention forward, ${mode}`),
  },
  {
    kernel: "gated attention backward query",
    from: "dy_v - delta_i",
    to: "dy_v",
    found: BACKWARD_OF_ATTENTION,
  },
  {
    kernel: "gated attention backward key value",
    from: "open * s)",
    to: "s)",
    found: BACKWARD_OF_ATTENTION.slice(1),
  },
  {
    kernel: "gated attention backward key value",
    from: "of_group < QUERIES_PER_KEY",
    to: "of_group < 1u",
    found: BACKWARD_OF_ATTENTION,
  },
  {
    kernel: "gated attention backward query",
    from: "-DISTANCE_POWER",
    to: "DISTANCE_POWER",
    found: ["gated attention backward, sampled, by distance"],
  },
  {
    kernel: "gated attention head sums",
    from: "head_sums[at] += sums",
    to: "head_sums[at] += dead",
    found: ["dense", "deterministic", "sampled"].map((mode) => `gated attention head sums, ${mode}`),
  },
  {
    kernel: "gated attention head sums",
    from: "row.y == 0.0",
    to: "row.x == 0.0",
    found: ["gated attention head sums, sampled"],
  },
  {
    kernel: "cached attention append",
    from: "cache.filled + row % cache.count",
    to: "row % cache.count",
    found: ["dense", "deterministic"].map((mode) => `attention to kept keys, ${mode}`),
  },
  {
    kernel: "cached attention forward",
    from: "l + cache.bias > 0.0",
    to: "true",
    found: ["attention to kept keys, deterministic"],
  },
  {
    kernel: "cross-entropy forward",
    from: "columns(v) < vec4u(V)",
    to: "true",
    found: ["cross-entropy forward"],
  },
  {
    kernel: "cross-entropy backward",
    from: "target_token < V",
    to: "true",
    found: [
      "cross-entropy backward",
      "cross-entropy backward with distillation",
    ],
  },
  {
    kernel: "cross-entropy backward, weighted",
    from: "weights[row]",
    to: "weights[0]",
    found: ["cross-entropy backward, weighted"],
  },
  { kernel: "cross-entropy totals", from: "row < ROWS", to: "row < 2u", found: ["cross-entropy forward"] },
  {
    kernel: "distillation forward",
    from: "exp(log_p)",
    to: "exp(log_p + 0.001)",
    found: ["distillation forward"],
  },
  { kernel: "distillation backward", from: "sums.w != 0.0", to: "true", found: ["distillation backward"] },
  {
    kernel: "gradient squares",
    from: "element0 * element0",
    to: "abs(element0)",
    found: ["gradient clip", "AdamW"],
  },
  { kernel: "gradient clip", from: "min(1.0", to: "max(1.0", found: ["gradient clip", "AdamW"] },
  { kernel: "adamw", from: ">= DECAY_FROM", to: "> DECAY_FROM", found: ["AdamW"] },
  { kernel: "geco measure", from: "- controller.target_loss", to: "", found: ["GECO"] },
  { kernel: "geco update", from: "state[2] / controller.scale", to: "state[2]", found: ["GECO"] },
];

/** Runs `body` on a device that compiles the faulty kernel, and leaves the device as it was. */
async function withFault<Result>(
  gpu: Gpu,
  { kernel, from, to }: Omit<Fault, "found">,
  body: () => Promise<Result>,
): Promise<Result> {
  const forget = () => {
    for (const key of gpu.pipelines.keys()) if (key.startsWith(kernel)) gpu.pipelines.delete(key);
  };
  const { device } = gpu;
  const original = device.createShaderModule;
  let planted = false;
  device.createShaderModule = (descriptor) => {
    const { label, code } = descriptor;
    if (!label?.startsWith(kernel) || !code.includes(from)) return original.call(device, descriptor);
    planted = true;
    return original.call(device, { ...descriptor, code: code.replaceAll(from, to) });
  };
  forget();
  try {
    const result = await body();
    assert(planted, `${kernel} holds no ${from} to plant a fault at`);
    return result;
  } finally {
    device.createShaderModule = original;
    forget();
  }
}

const isWrong = ({ error, tolerance }: { error: number; tolerance: number }) => !(error <= tolerance);

gpuTest("every operation passes on this adapter, each time with the same errors", async (gpu) => {
  const results = await selfCheck(gpu);
  assertEquals(results.filter(isWrong), []);
  assertEquals(new Set(results.map(({ operation }) => operation)).size, results.length);
  assertEquals(await selfCheck(gpu), results);
  const told: [number, number][] = [];
  await assertSelfCheck(gpu, { progress: (...progress) => told.push(progress) });
  assertEquals(told, told.map((_, n) => [n, told.length]));
  assert(told.length > 10, `${told.length} operations were told`);
});

gpuTest("what is checked is what a workload takes, with the errors of the whole", async (gpu) => {
  const all = await selfCheck(gpu);
  /** The operations that are checked, without what stands behind their names. */
  const checked = async (workload: Workload) => {
    const results = await selfCheck(gpu, { workload });
    for (const each of results) {
      assertEquals(each, all.find(({ operation }) => operation === each.operation));
    }
    return [
      ...new Set(
        results.map(({ operation }) => operation.split(/,| (?:forward|backward|of|without|head|row)\b/)[0]),
      ),
    ];
  };
  const shared = ["matmul nn", "matmul nt", "matmul tn", "bias gradient", "cross-entropy"];
  const ofGpt2 = ["embedding", "layer norm", "gated attention", "residual", "GELU", "exact GELU"];
  const training = ["distillation", "gradient clip", "AdamW", "GECO"];
  const ofFamily = async (family: string) => await readModelConfig(`tests/fixtures/families/${family}`);
  assertEquals(await checked({ models: [GPT2] }), [...shared, ...ofGpt2]);
  assertEquals(await checked({ models: [GPT2], training: true }), [...shared, ...ofGpt2, ...training]);
  const weighted = { models: [GPT2], training: true, weighted: true };
  assertEquals(await checked(weighted), [...shared, ...ofGpt2, ...training]);
  const operations = async (workload: Workload) =>
    (await selfCheck(gpu, { workload })).map(({ operation }) => operation);
  assertEquals((await operations(weighted)).at(-1), "cross-entropy backward, weighted");
  assert(!(await operations({ ...weighted, weighted: false })).includes("cross-entropy backward, weighted"));
  // Each where a kernel ends in it, and no other.
  const endings = async (config: ModelConfig) =>
    (await operations({ models: [config] })).flatMap((each) =>
      / 140 (?:without a bias )?with ([^,]+)/.exec(each)?.[1] ?? []
    );
  assertEquals(new Set(await endings(GPT2)), new Set(["a residual", "GELU"]));
  assertEquals(new Set(await endings(await ofFamily("llama"))), new Set(["a residual"]));
  assertEquals(await checked({ models: [GPT2], interventions: true }), [
    ...shared,
    ...ofGpt2,
    "explicit attention pattern",
    "explicit attention gates",
    "explicit attention mix",
    "blend",
  ]);
  const byDistance = "gated attention backward, sampled, by distance";
  assert((await operations({ ...weighted, distancePower: 1 })).includes(byDistance));
  assert(!(await operations({ ...weighted, distancePower: 0 })).includes(byDistance));
  assertEquals(await checked({ models: [GPT2], generation: true }), [
    ...shared,
    ...ofGpt2,
    "attention to kept keys",
  ]);
  const ofLlama = ["embedding", "RMS norm", "rotary", "gated attention", "residual", "SwiGLU"];
  assertEquals(await checked({ models: [await ofFamily("llama")] }), [...shared, ...ofLlama]);
  const both = await checked({ models: [await ofFamily("olmo"), await ofFamily("olmo2")] });
  assert(
    both.includes("clip") && both.includes("layer norm") && both.includes("query key norm"),
    both.join(),
  );
  assert(!both.includes("GELU"), both.join());
});

gpuTest(
  "every operation passes without subgroups too, where a workgroup adds up in its own memory",
  async (gpu) => {
    const plain = await Gpu.open({ subgroups: false });
    try {
      assertEquals(plain.lanes, undefined);
      const results = await selfCheck(plain);
      assertEquals(results.filter(isWrong), []);
      if (gpu.adapter.software) {
        const operations = results.map(({ operation }) => operation);
        assert(operations.includes("matmul nn of 36 x 76 x 140, registers 8 x 8"), operations.join());
        assert([...plain.pipelines.keys()].some((source) => source.includes("sum_over_lanes_partial")));
        assert(![...gpu.pipelines.keys()].some((source) => source.includes("sum_over_lanes_partial")));
      }
    } finally {
      plain.close();
    }
  },
);

gpuTest("a fault in any kernel is found, and every operation can be found to be wrong", async (gpu) => {
  const found = new Set<string>();
  for (const fault of FAULTS) {
    const results = await withFault(gpu, fault, () => selfCheck(gpu));
    const wrong = results.filter(isWrong).map(({ operation }) => operation);
    for (const operation of fault.found) {
      assert(
        wrong.includes(operation),
        `${fault.to} in ${fault.kernel} leaves ${operation} as it was: ${wrong}`,
      );
      found.add(operation);
    }
  }
  const operations = (await selfCheck(gpu)).map(({ operation }) => operation);
  assertEquals([...found].sort(), operations.sort());
});

gpuTest("what is stored in less than float32, and adapters, are checked as they are used", async (gpu) => {
  const stored = async (stored: StoredAs, training = true) => {
    const results = await selfCheck(gpu, { workload: { models: [GPT2], stored: [stored], training } });
    return { wrong: results.filter(isWrong), operations: results.map(({ operation }) => operation) };
  };
  const adapters = (rank: number) =>
    adaptersFor(GPT2, { rank, alpha: 8, rankStabilised: false, targets: ["query"] });
  const has = (operations: string[], ...wanted: string[]) =>
    wanted.forEach((part) =>
      assert(operations.some((each) => each.includes(part)), `${part}: ${operations}`)
    );

  const half = await stored({ half: true, adapters: adapters(4), train: "lora" });
  assertEquals(half.wrong, []);
  has(
    half.operations,
    "nn of",
    "with a, b, c as f16",
    "with a residual with a, b as f16",
    "with GELU with a, b, c as f16",
  );
  has(half.operations, "140 with a, b as f16", "140 with b as f16", "sampled, as f16", "rounding");
  has(half.operations, "low-rank products as f16 forward", "low-rank products as f16 backward");
  const whole = await stored({ half: true });
  has(whole.operations, `${TN} with a as f16`, `${TN} with b as f16`);
  assertEquals(whole.wrong, []);

  const int8 = await stored({ frozen: "int8", adapters: adapters(3), train: "lora" }, false);
  assertEquals(int8.wrong, []);
  has(
    int8.operations,
    "nn of",
    "140 with b as int8",
    "with a residual with b as int8",
    "with GELU with b as int8",
  );
  has(int8.operations, "low-rank products of odd ranks forward", "140 with b as f16");
  assert(!int8.operations.includes("rounding"));

  const faults: (Omit<Fault, "found"> & { of: StoredAs })[] = [
    {
      kernel: "matmul nn",
      from: "unpack2x16float(stored.y)",
      to: "unpack2x16float(stored.x)",
      of: { half: true },
    },
    {
      kernel: "matmul tn",
      from: "unpack2x16float(stored.y)",
      to: "unpack2x16float(stored.x)",
      of: { half: true },
    },
    {
      kernel: "gated attention forward",
      from: "unpack2x16float(stored.y)",
      to: "unpack2x16float(stored.x)",
      of: { half: true },
    },
    { kernel: "rounding", from: "bounded.zw", to: "bounded.xy", of: { half: true } },
    // The scales of the first 128 rows stand for those of all.
    { kernel: "matmul nn", from: "row / 128u", to: "row / 512u", of: { frozen: "int8", train: "attention" } },
    { kernel: "matmul nt", from: "row / 128u", to: "row / 512u", of: { frozen: "int8", train: "attention" } },
  ];
  for (const { of, ...fault } of faults) {
    const { wrong } = await withFault(gpu, fault, () => stored(of));
    assert(wrong.length > 0, `${fault.to} in ${fault.kernel} leaves all as it was`);
  }
});

/** What a GPU would compute, by each variant that its tuner may choose, and which operations are wrong. */
async function wrongOnGpu(gpu: Gpu, check: KernelCheck): Promise<{ operations: string[]; wrong: string[] }> {
  const { record, comparisons } = await check(gpu, { tuned: true });
  gpu.submit("a check of a GPU's kernels", record);
  const wrong: string[] = [];
  for (const { operation, outputs, tolerance } of comparisons) {
    for (const [tensor, expected] of outputs) {
      const error = relativeError(await gpu.read(tensor), expected);
      if (!(error <= tolerance)) wrong.push(operation);
    }
  }
  return { operations: comparisons.map(({ operation }) => operation), wrong };
}

gpuTest(
  "a GPU's kernels are checked past their first slab and tile, in every variant that a tuner may choose",
  async () => {
    const other = await Gpu.open({ subgroups: false });
    try {
      // As a GPU without memory for more than slabs of 16, which compile fastest.
      Object.defineProperty(other, "adapter", { value: { ...other.adapter, software: false, vendor: "" } });
      Object.defineProperty(other.device, "limits", { value: { maxComputeWorkgroupStorageSize: 24_000 } });
      const product = productCheck({ layout: "nn" });
      const [attention] = gatedAttentionChecks({ headSize: 16, half: false });
      const variants = ["tiled 4 x 4 by 16", "tiled 4 x 8 by 16"];
      const products = await wrongOnGpu(other, product);
      assertEquals(products.wrong, []);
      assertEquals(
        products.operations,
        ["64 x 64", "128 x 64", "128 x 128"].map((tile) =>
          `matmul nn of 152 x 148 x 140 without a bias, workgroup ${tile}`
        ),
      );
      const dense = await wrongOnGpu(other, attention);
      assertEquals(dense.wrong, []);
      const forwards = variants.map((variant) => `gated attention forward, dense, ${variant}`);
      assertEquals(dense.operations.filter((each) => each.includes("forward")), forwards);

      const slab = { kernel: "matmul nn", from: "SLABS - 1u) * DEPTH", to: "0u) * DEPTH" };
      assertEquals(
        (await withFault(other, slab, () => wrongOnGpu(other, product))).wrong,
        products.operations,
      );
      const rescale = {
        kernel: "gated attention forward",
        from: "let fall = exp(highest - higher);",
        to: "let fall = 1.0;",
      };
      const { wrong } = await withFault(other, rescale, () => wrongOnGpu(other, attention));
      for (const forward of forwards) assert(wrong.includes(forward), `${forward}: ${wrong}`);
    } finally {
      other.close();
    }
  },
  { ignore: !WITH_GPU_KERNELS },
);

gpuTest(
  "an adapter with a wrong kernel is refused by name, with the operation, its error and tolerance",
  async (gpu) => {
    const fault = { kernel: "residual", from: "a[n] + b[n]", to: "a[n] + 1.01 * b[n]" };
    const error = await withFault(gpu, fault, () => assertRejects(() => assertSelfCheck(gpu), DeviceError));
    assertStringIncludes(error.message, `Cannot train on ${gpu.adapter.name} as every operation must agree`);
    assert(/: residual is off by \d\.\de-3, tolerance 2e-6$/.test(error.message), error.message);
  },
);

gpuTest("a result that is not a number is wrong", async (gpu) => {
  const fault = { kernel: "residual", from: "a[n] + b[n]", to: "ELEMENT(bitcast<f32>(0x7fc00000u | n))" };
  const results = await withFault(gpu, fault, () => selfCheck(gpu));
  assertEquals(results.filter(isWrong).map(({ operation, error }) => [operation, error]), [[
    "residual",
    Infinity,
  ]]);
});

gpuTest("a kernel that the adapter refuses to compile is a DeviceError that names it", async (gpu) => {
  const fault = { kernel: "residual", from: "a[n] + b[n]", to: "no_such_name" };
  await withFault(gpu, fault, () => assertRejects(() => selfCheck(gpu), DeviceError, "shader residual"));
});
