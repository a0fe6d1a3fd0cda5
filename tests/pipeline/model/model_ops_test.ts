/** What a model is made of beside GPT-2's parts, run by role as the network runs it, against the float64 references. */
import { assertEquals } from "@std/assert";
import { clipGradientReference, clipReference } from "../../../kernels/clip/reference.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { embeddingGradientReference, embeddingReference } from "../../../kernels/embedding/reference.ts";
import { geluGradientReference, geluReference } from "../../../kernels/gelu/reference.ts";
import { layerNormGradientReference, layerNormReference } from "../../../kernels/layer_norm/reference.ts";
import { matmulReference } from "../../../kernels/matmul/reference.ts";
import {
  queryKeyNormGradientReference,
  queryKeyNormReference,
} from "../../../kernels/query_key_norm/reference.ts";
import { rmsNormGradientReference, rmsNormReference } from "../../../kernels/rms_norm/reference.ts";
import { rotaryGradientReference, rotaryReference } from "../../../kernels/rotary/reference.ts";
import { swigluGradientReference, swigluReference } from "../../../kernels/swiglu/reference.ts";
import type { Op, Pass, Roles } from "../../../pipeline/model/op.ts";
import { clip } from "../../../pipeline/model/ops/clip.ts";
import { embed } from "../../../pipeline/model/ops/embed.ts";
import { gelu } from "../../../pipeline/model/ops/gelu.ts";
import { linear } from "../../../pipeline/model/ops/linear.ts";
import { norm } from "../../../pipeline/model/ops/norm.ts";
import { queryKeyNorm } from "../../../pipeline/model/ops/query_key_norm.ts";
import { rmsNorm } from "../../../pipeline/model/ops/rms_norm.ts";
import { rotary } from "../../../pipeline/model/ops/rotary.ts";
import { swiglu } from "../../../pipeline/model/ops/swiglu.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const PASS: Pass = { mode: "dense" };

/** One operation, what goes into it and what must come out. */
interface Case {
  op: Op;
  x: Float32Array;
  /** Of y. */
  dy: Float32Array;
  parameters?: Record<string, Float32Array>;
  /** Length of the statistics that it writes, where it does. */
  statistics?: number;
  want: {
    y: ArrayLike<number>;
    dx: ArrayLike<number>;
    gradients?: Record<string, ArrayLike<number>>;
  };
}

/**
 * Runs a case forward, then backward with nothing but what it keeps, its parameters and dy; with and without the
 * parameters' gradients, which are added to, and with what x's gradient has from elsewhere, where it takes that.
 */
async function check(gpu: Gpu, { op, x, dy, parameters = {}, statistics, want }: Case): Promise<void> {
  const compiled = await op.compile(gpu, true);
  const uploaded = Object.fromEntries(
    Object.entries(parameters).map(([role, values]) => [role, upload(gpu, role, values)]),
  );
  const values = {
    x: upload(gpu, "x", x),
    y: poisoned(gpu, "y", [want.y.length]),
    ...(statistics && { statistics: poisoned(gpu, "statistics", [statistics]) }),
  };
  const gradients = Object.fromEntries(
    Object.entries(parameters).map(([role, { length }]) => [role, gpu.tensor(`d${role}`, [length])]),
  );
  const kept = Object.fromEntries(Object.entries(values).filter(([role]) => op.keeps.includes(role)));
  assertEquals(Object.keys(kept).sort(), [...op.keeps].sort(), `${op.key} keeps what it reads or writes`);
  const [frozen, trained] = [poisoned(gpu, "dx", [x.length]), poisoned(gpu, "dx", [x.length])];
  const past = normals(99, x.length);
  const roles = { ...kept, ...uploaded, dy: upload(gpu, "dy", dy) };
  const plus: Roles = op.takesPlus ? { plus: upload(gpu, "past", past) } : {};
  gpu.submit(op.key, (recorder) => {
    compiled.forward(recorder, { ...values, ...uploaded }, PASS);
    compiled.backward!(recorder, { ...roles, dx: frozen }, undefined, PASS);
    compiled.backward!(recorder, { ...roles, ...plus, dx: trained }, gradients, PASS);
  });
  const close = async (tensor: typeof frozen, expected: ArrayLike<number>, name: string) =>
    // Measured: at most 1.2e-7.
    assertClose(await gpu.read(tensor), expected, { tolerance: 2e-6, name: `${name} of ${op.key}` });
  await close(values.y, want.y, "y");
  await close(frozen, want.dx, "dx");
  const sum = Float64Array.from(want.dx, (value, n) => value + (op.takesPlus ? past[n] : 0));
  await close(trained, sum, "dx and what is past it");
  assertEquals(Object.keys(want.gradients ?? {}), Object.keys(parameters));
  for (const [role, expected] of Object.entries(want.gradients ?? {})) {
    await close(gradients[role], expected, role);
  }
  compiled.destroy?.();
}

const [rows, width, epsilon, half] = [6, 12, 1e-5, false];
const x = normals(1, rows * width);
const dy = normals(2, rows * width);
const ones = new Float32Array(width).fill(1);
const zeros = new Float32Array(width);

gpuTest("norms of either kind, with their parameters and without", async (gpu) => {
  const weight = normals(3, width);
  const { dx, dweight } = rmsNormGradientReference(x, weight, dy, epsilon);
  await check(gpu, {
    op: rmsNorm({ rows, width, epsilon, half }),
    x,
    dy,
    parameters: { weight },
    statistics: rows,
    want: { y: rmsNormReference(x, weight, epsilon), dx, gradients: { weight: dweight } },
  });
  const ofWeight = layerNormGradientReference(x, weight, dy, epsilon);
  await check(gpu, {
    op: norm({ rows, width, epsilon, affine: "weight", half }),
    x,
    dy,
    parameters: { weight },
    statistics: 2 * rows,
    want: {
      y: layerNormReference(x, weight, zeros, epsilon),
      dx: ofWeight.dx,
      gradients: { weight: ofWeight.dweight },
    },
  });
  await check(gpu, {
    op: norm({ rows, width, epsilon, affine: "none", half }),
    x,
    dy,
    statistics: 2 * rows,
    want: {
      y: layerNormReference(x, ones, zeros, epsilon),
      dx: layerNormGradientReference(x, ones, dy, epsilon).dx,
    },
  });
});

gpuTest("activations: exact GELU, SwiGLU and the clip", async (gpu) => {
  await check(gpu, {
    op: gelu(x.length, half, "exact"),
    x,
    dy,
    want: { y: geluReference(x, "exact"), dx: geluGradientReference(x, dy, "exact") },
  });
  const both = normals(4, 2 * rows * width);
  await check(gpu, {
    op: swiglu({ rows, width, half }),
    x: both,
    dy,
    want: { y: swigluReference(both, width), dx: swigluGradientReference(both, dy, width) },
  });
  await check(gpu, {
    op: clip({ length: x.length, limit: 0.75, half }),
    x,
    dy,
    want: { y: clipReference(x, 0.75), dx: clipGradientReference(x, dy, 0.75) },
  });
});

gpuTest("what is done to packed queries and keys: their norm, and their positions", async (gpu) => {
  const [batch, positions] = [2, 3];
  const packed = { heads: 2, keyValueHeads: 1, headSize: 8 };
  const x = normals(5, rows * 4 * packed.headSize);
  const dy = normals(6, x.length);
  for (const per of ["head", "all"] as const) {
    const shape = { ...packed, per, epsilon };
    const query = normals(7, per === "head" ? 8 : 16);
    const key = normals(8, 8);
    const { dx, dweights } = queryKeyNormGradientReference(x, { query, key }, dy, shape);
    await check(gpu, {
      op: queryKeyNorm({ rows, ...shape, half }),
      x,
      dy,
      parameters: { queryWeight: query, keyWeight: key },
      statistics: rows * (per === "head" ? 3 : 2),
      want: {
        y: queryKeyNormReference(x, { query, key }, shape),
        dx,
        gradients: { queryWeight: dweights.query, keyWeight: dweights.key },
      },
    });
  }
  const turned = { ...packed, positions, rotated: 4, theta: 100 };
  await check(gpu, {
    op: rotary({ ...turned, batch, half }),
    x,
    dy,
    want: { y: rotaryReference(x, turned), dx: rotaryGradientReference(dy, turned) },
  });
});

gpuTest("a product without a bias, alone and with what can end it", async (gpu) => {
  const outputs = 8;
  const weight = normals(9, width * outputs);
  const dy = normals(10, rows * outputs);
  const op = linear({
    rows,
    inputs: width,
    outputs,
    bias: false,
    half: { x: false, weight: false, y: false },
  });
  const y = matmulReference({ layout: "nn", m: rows, n: outputs, k: width, a: x, b: weight });
  await check(gpu, {
    op,
    x,
    dy,
    parameters: { weight },
    want: {
      y,
      dx: matmulReference({ layout: "nt", m: rows, n: width, k: outputs, a: dy, b: weight }),
      gradients: {
        weight: matmulReference({ layout: "tn", m: width, n: outputs, k: rows, a: x, b: dy }),
      },
    },
  });
  const t = {
    x: upload(gpu, "x", x),
    weight: upload(gpu, "weight", weight),
    y: poisoned(gpu, "y", [y.length]),
  };
  for (const form of ["tanh", "exact"] as const) {
    const ended = await op.fused!(gelu(y.length, half, form))!(gpu);
    const next = poisoned(gpu, "next", [y.length]);
    gpu.submit("product and GELU", (recorder) => ended.forward(recorder, { ...t, "next.y": next }, PASS));
    assertClose(await gpu.read(next), geluReference(y, form), { tolerance: 2e-6, name: `GELU ${form}` });
  }
});

gpuTest("tokens whose positions have no embedding", async (gpu) => {
  const [batch, positions, vocabularySize] = [2, 3, 5];
  const tokens = Uint32Array.of(1, 4, 1, 0, 2, 1);
  const token = normals(11, vocabularySize * width);
  const compiled = await embed({ batch, positions, vocabularySize, width, positionEmbedding: false })
    .compile(gpu, true);
  const t = {
    token: upload(gpu, "token", token, [vocabularySize, width]),
    y: poisoned(gpu, "y", [rows, width]),
  };
  const gradient = upload(gpu, "dy", dy);
  const gradients = { token: gpu.tensor("dtoken", [vocabularySize, width]) };
  compiled.upload!(tokens);
  gpu.submit("embedding", (recorder) => {
    compiled.forward(recorder, t, PASS);
    compiled.backward!(recorder, { ...t, dy: gradient }, gradients, PASS);
  });
  assertEquals(await gpu.read(t.y), Float32Array.from(embeddingReference(tokens, positions, width, token)));
  const { dtokenEmbedding } = embeddingGradientReference(tokens, positions, vocabularySize, dy);
  assertClose(await gpu.read(gradients.token), dtokenEmbedding, { tolerance: 2e-6, name: "dtoken" });
  compiled.destroy!();
});
