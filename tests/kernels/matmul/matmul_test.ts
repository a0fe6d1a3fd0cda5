import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  chooseVariant,
  MATMUL_VARIANTS,
  type MatmulVariant,
  prepareBiasGradient,
  prepareMatmul,
  variantName,
} from "../../../kernels/matmul/op.ts";
import { prepareGelu } from "../../../kernels/gelu/op.ts";
import { prepareResidual } from "../../../kernels/residual/op.ts";
import { biasGradientReference, matmulReference } from "../../../kernels/matmul/reference.ts";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, runAndRead, upload } from "../../support/gpu.ts";
import { WITH_GPU_KERNELS } from "../../support/gpu_kernels.ts";
import { normals } from "../../support/seeded.ts";

Deno.test("a linear layer's gradients, as the three layouts give them, agree with central differences", () => {
  const [m, n, k] = [3, 5, 4];
  const [x, w, bias, dy] = [m * k, k * n, n, m * n].map((length, seed) => normals(seed, length));
  const objective = (a: ArrayLike<number>, b: ArrayLike<number>, bias: ArrayLike<number>) =>
    matmulReference({ layout: "nn", m, n, k, a, b, bias }).reduce((sum, y, at) => sum + y * dy[at], 0);
  const numeric = (f: (v: Float64Array) => number, at: Float32Array) =>
    centralDifference(f, Float64Array.from(at));
  const dx = matmulReference({ layout: "nt", m, n: k, k: n, a: dy, b: w });
  const dw = matmulReference({ layout: "tn", m: k, n, k: m, a: x, b: dy });
  const dbias = biasGradientReference(m, n, dy);
  assert(relativeError(dx, numeric((v) => objective(v, w, bias), x)) < 1e-8); // measured 4.1e-11
  assert(relativeError(dw, numeric((v) => objective(x, v, bias), w)) < 1e-8); // measured 5.9e-11
  assert(relativeError(dbias, numeric((v) => objective(x, w, v), bias)) < 1e-8); // measured 3.8e-11
});

// Shapes are compiled in, each in every variant but where rows do not begin at multiples of 4, for which there is one
// kernel. The last has more rows and columns than the largest tile, by less than the smallest.
const UNALIGNED = [[1, 1, 1], [7, 5, 3]] as const;
const LARGEST = [129, 132, 36] as const;
const SHAPES = [[8, 8, 4], [13, 64, 20], LARGEST] as const;

const VARIANTS = MATMUL_VARIANTS.filter(({ kind }) => kind !== "workgroup" || WITH_GPU_KERNELS);
/** The variants that this adapter can compute: not those by lanes where it has no known subgroups. */
const variantsOn = (gpu: Gpu): readonly MatmulVariant[] =>
  VARIANTS.filter(({ kind }) => kind !== "lanes" || gpu.lanes !== undefined);

for (const layout of ["nn", "nt", "tn"] as const) {
  for (const variant of VARIANTS) {
    gpuTest(
      `matmul ${layout}, ${variantName(variant)}, equals float64 at awkward shapes, ` +
        "with bias and added to what is there",
      async (gpu) => {
        if (!variantsOn(gpu).includes(variant)) {
          console.log(`left out, as ${gpu.adapter.name} has no known subgroups`);
          return;
        }
        const shapes = variant.kind === "registers" ? [...UNALIGNED, ...SHAPES] : SHAPES;
        for (const [m, n, k] of shapes) {
          const name = `${layout} ${m} ${n} ${k}`;
          const a = normals(m + n, m * k);
          const b = normals(m + k, k * n);
          const bias = normals(n, n);
          const before = normals(k, m * n);
          const reference = matmulReference({ layout, m, n, k, a, b, bias });
          const tensors = {
            a: upload(gpu, "a", a),
            b: upload(gpu, "b", b),
            bias: upload(gpu, "bias", bias),
            c: poisoned(gpu, "c", [m, n]),
          };
          const plain = await prepareMatmul(gpu, { layout, m, n, k, variant, bias: true });
          const product = await runAndRead(gpu, tensors.c, (recorder) => plain.record(recorder, tensors));
          // Measured: 1.2e-7.
          assertClose(product, reference, { tolerance: 1e-6, name });
          gpu.write(tensors.c, before);
          const adding = await prepareMatmul(gpu, { layout, m, n, k, variant, bias: true, accumulate: true });
          const sum = await runAndRead(gpu, tensors.c, (recorder) => adding.record(recorder, tensors));
          const expected = reference.map((value, at) => value + before[at]);
          assertClose(sum, expected, { tolerance: 1e-6, name: `${name}, added` });
        }
      },
    );
  }
}

gpuTest("a frozen B stored as int8 gives the product with what it reads, in every variant", async (gpu) => {
  // More rows of B than one block of scales, in either layout.
  for (const [m, n, k] of [[9, 148, 260], [1, 36, 132]] as const) {
    const a = normals(1, m * k);
    const values = normals(2, k * n);
    for (const layout of ["nn", "nt"] as const) {
      const axes = layout === "nn" ? [k, n] : [n, k];
      const b = gpu.tensor("b", axes, "int8");
      gpu.write(b, values);
      const reference = matmulReference({ layout, m, n, k, a, b: await gpu.read(b) });
      const t = { a: upload(gpu, "a", a), b, c: poisoned(gpu, "c", [m, n]) };
      for (const variant of [...variantsOn(gpu), undefined]) {
        const op = await prepareMatmul(gpu, { layout, m, n, k, variant, int8: true });
        const product = await runAndRead(gpu, t.c, (recorder) => op.record(recorder, t));
        const name = `${layout} ${m} ${variant ? variantName(variant) : "as chosen"}`;
        assertClose(product, reference, { tolerance: 1e-6, name });
      }
    }
  }
  const config = { layout: "nn", m: 2, n: 4, k: 4, int8: true } as const;
  for (const other of [{ layout: "tn" }, { n: 5 }, { half: ["b"] }] as const) {
    await assertRejects(
      () => prepareMatmul(gpu, { ...config, ...other }),
      RangeError,
      "with int8 as B must be",
    );
  }
});

gpuTest("a product of one row equals float64, and has the bits of that row in a larger one", async (gpu) => {
  const [n, width] = [132, 36];
  for (const layout of ["nn", "nt", "tn"] as const) {
    for (const k of layout === "nn" ? [width, 34] : [width]) {
      // Nine rows, of which the first is taken alone; where k is no multiple of 4, zeros stand behind its k.
      const a = normals(1, 9 * width).map((value, at) => at % width < k ? value : 0);
      const b = normals(2, k * n);
      const bias = normals(3, n);
      const stored = layout === "tn"
        ? Float32Array.from({ length: 9 * k }, (_, at) => a[(at % 9) * width + Math.floor(at / 9)])
        : a;
      const row = layout === "tn" ? a.slice(0, k) : a.slice(0, width);
      const run = async (m: number, values: Float32Array) => {
        const config = layout === "tn" ? {} : { aStride: width };
        const op = await prepareMatmul(gpu, { layout, m, n, k, bias: true, ...config });
        const c = poisoned(gpu, "c", [m, n]);
        const t = { a: upload(gpu, "a", values), b: upload(gpu, "b", b), bias: upload(gpu, "bias", bias) };
        return await runAndRead(gpu, c, (recorder) => op.record(recorder, { ...t, c }));
      };
      const alone = await run(1, row);
      const reference = matmulReference({ layout, m: 1, n, k, a: row.slice(0, k), b, bias });
      // Measured: 1.4e-7.
      assertClose(alone, reference, { tolerance: 1e-6, name: `${layout} of ${k} terms` });
      assertEquals(alone, (await run(9, stored)).slice(0, n), `${layout} of ${k} terms`);
    }
  }
});

gpuTest("the variant follows the adapter and the size of C", (gpu) => {
  const chosen = (software: boolean, m: number, n: number, lanes: number | undefined = 8): string =>
    variantName(chooseVariant({ adapter: { ...gpu.adapter, software }, lanes } as Gpu, m, n));
  assertEquals(chosen(true, 1024, 512), "lanes 16 x 4");
  assertEquals([4, 16].map((lanes) => chosen(true, 8, 512, lanes)), ["lanes 16 x 4", "lanes 16 x 4"]);
  assertEquals(chosen(true, 8, 512, 32), "registers 8 x 8", "a tile has fewer rows than that");
  assertEquals(chosen(true, 1024, 512, 0), "registers 8 x 8", "lanes that are not known hand nothing round");
  assertEquals(chosen(false, 4096, 4096), "workgroup 128 x 128");
  assertEquals(chosen(false, 512, 512), "workgroup 64 x 64", "of the largest tiles there would be 16");
  assertEquals(chosen(false, 8, 8), "workgroup 64 x 64", "no invocation waits for memory at each term");
  return Promise.resolve();
});

gpuTest("every variant gives the same bits, whatever the shape", async (gpu) => {
  for (const [layout, m, n, k] of [["nn", ...LARGEST], ["nt", ...LARGEST], ["tn", 132, 68, 37]] as const) {
    const a = upload(gpu, "a", normals(1, m * k));
    const b = upload(gpu, "b", normals(2, k * n));
    const bias = upload(gpu, "bias", normals(3, n));
    let first: Float32Array | undefined;
    for (const variant of variantsOn(gpu)) {
      const op = await prepareMatmul(gpu, { layout, m, n, k, bias: true, variant });
      const c = poisoned(gpu, "c", [m, n]);
      const found = await runAndRead(gpu, c, (recorder) => op.record(recorder, { a, b, bias, c }));
      first ??= found;
      assertEquals(found, first, `${layout} ${m} x ${n} x ${k}, ${variantName(variant)}`);
    }
  }
});

gpuTest(
  "a product that ends in the residual stream or in GELU gives the bits of the separate kernels",
  async (gpu) => {
    for (const [m, n, k] of [[9, 12, 8], [5, 7, 3]]) {
      const t = {
        a: upload(gpu, "a", normals(1, m * k)),
        b: upload(gpu, "b", normals(2, k * n)),
        bias: upload(gpu, "bias", normals(3, n)),
        residual: upload(gpu, "residual", normals(4, m * n)),
        c: poisoned(gpu, "c", [m, n]),
        activated: poisoned(gpu, "activated", [m, n]),
      };
      const shape = { layout: "nn", m, n, k, bias: true } as const;
      const plain = await prepareMatmul(gpu, shape);
      const branch = await runAndRead(gpu, t.c, (recorder) => plain.record(recorder, t));
      const add = await prepareResidual(gpu, { length: m * n });
      const sum = poisoned(gpu, "sum", [m, n]);
      gpu.submit("addition", (recorder) => add.forward(recorder, { a: t.residual, b: t.c, sum }));
      const withResidual = await prepareMatmul(gpu, { ...shape, residual: true });
      assertEquals(await runAndRead(gpu, t.c, (r) => withResidual.record(r, t)), await gpu.read(sum));
      for (const form of ["tanh", "exact"] as const) {
        const withGelu = await prepareMatmul(gpu, { ...shape, gelu: form });
        assertEquals(await runAndRead(gpu, t.c, (r) => withGelu.record(r, t)), branch);
        const gelu = await prepareGelu(gpu, { length: m * n, form });
        const post = poisoned(gpu, "post", [m, n]);
        const separate = await runAndRead(gpu, post, (r) => gelu.forward(r, { x: t.c, y: post }));
        assertEquals(await gpu.read(t.activated), separate);
      }
    }
  },
);

gpuTest(
  "a vocabulary that is no multiple of 4 is multiplied in padded slices, all three ways",
  async (gpu) => {
    // As the output head does it: logits [rows, stride] of V = 61 in slices of 32 and 29 entries.
    const [rows, width, V, stride] = [11, 8, 61, 64];
    const x = normals(1, rows * width);
    const wte = normals(2, V * width);
    const xTensor = upload(gpu, "x", x);
    const logits = poisoned(gpu, "logits", [rows, stride]);
    const dx = poisoned(gpu, "dx", [rows, width]);
    const dwte = gpu.tensor("dwte", [V, width]);
    const slices = [{ start: 0, count: 32 }, { start: 32, count: 29 }];
    const part = (values: Float32Array, start: number, count: number) =>
      values.slice(start * width, (start + count) * width);
    for (const { start, count } of slices) {
      const op = await prepareMatmul(gpu, {
        layout: "nt",
        m: rows,
        n: count,
        k: width,
        cStride: stride,
        cColumn: start,
      });
      const b = upload(gpu, "wte slice", part(wte, start, count));
      gpu.submit("logits", (recorder) => op.record(recorder, { a: xTensor, b, c: logits }));
    }
    const padded = await gpu.read(logits);
    const packed = Float32Array.from(
      { length: rows * V },
      (_, n) => padded[Math.floor(n / V) * stride + n % V],
    );
    const want = matmulReference({ layout: "nt", m: rows, n: V, k: width, a: x, b: wte });
    assertClose(packed, want, { tolerance: 1e-6, name: "logits" }); // measured 6e-8

    const dlogits = normals(3, rows * stride).map((value, n) => n % stride < V ? value : 0);
    gpu.write(logits, dlogits);
    for (const [index, { start, count }] of slices.entries()) {
      const b = upload(gpu, "wte slice", part(wte, start, count));
      const shared = { aStride: stride, aColumn: start };
      const dxOp = await prepareMatmul(gpu, {
        layout: "nn",
        m: rows,
        n: width,
        k: count,
        ...shared,
        accumulate: index > 0,
      });
      const dwOp = await prepareMatmul(gpu, { layout: "tn", m: count, n: width, k: rows, ...shared });
      const dslice = poisoned(gpu, "dwte slice", [count, width]);
      gpu.submit("head backward", (recorder) => {
        dxOp.record(recorder, { a: logits, b, c: dx });
        dwOp.record(recorder, { a: logits, b: xTensor, c: dslice });
        recorder.copy(dslice, dwte, start * width);
      });
    }
    const exact = Float32Array.from(
      { length: rows * V },
      (_, n) => dlogits[Math.floor(n / V) * stride + n % V],
    );
    assertClose(
      await gpu.read(dx),
      matmulReference({ layout: "nn", m: rows, n: width, k: V, a: exact, b: wte }),
      { tolerance: 1e-6, name: "dx" }, // measured 1e-7
    );
    assertClose(
      await gpu.read(dwte),
      matmulReference({ layout: "tn", m: V, n: width, k: rows, a: exact, b: x }),
      { tolerance: 1e-6, name: "dwte" }, // measured 8e-8
    );
  },
);

const WITHIN_WIDER = {
  aligned: { m: 9, n: 12, k: 8, aStride: 20, aColumn: 4, bStride: 24, bColumn: 8, cStride: 20, cColumn: 4 },
  unaligned: { m: 5, n: 7, k: 3, aStride: 11, aColumn: 2, bStride: 10, bColumn: 1, cStride: 11, cColumn: 3 },
};

for (const [name, config] of Object.entries(WITHIN_WIDER)) {
  gpuTest(`columns of wider matrices are read and written where they stand, ${name}`, async (gpu) => {
    const { m, n, k, aStride, aColumn, bStride, bColumn, cStride, cColumn } = config;
    for (const layout of ["nn", "nt", "tn"] as const) {
      const [aRows, aColumns] = layout === "tn" ? [k, m] : [m, k];
      const [bRows, bColumns] = layout === "nt" ? [n, k] : [k, n];
      const wideA = normals(1, aRows * aStride);
      const wideB = normals(2, bRows * bStride);
      const a = wideA.filter((_, at) => at % aStride >= aColumn && at % aStride < aColumn + aColumns);
      const b = wideB.filter((_, at) => at % bStride >= bColumn && at % bStride < bColumn + bColumns);
      const before = normals(3, m * cStride);
      const product = matmulReference({ layout, m, n, k, a, b });
      const tensors = {
        a: upload(gpu, "a", wideA, [aRows, aStride]),
        b: upload(gpu, "b", wideB, [bRows, bStride]),
        c: upload(gpu, "c", before, [m, cStride]),
      };
      const op = await prepareMatmul(gpu, { layout, ...config });
      const c = await runAndRead(gpu, tensors.c, (recorder) => op.record(recorder, tensors));
      const inside = (_: unknown, at: number) => at % cStride >= cColumn && at % cStride < cColumn + n;
      assertClose(c.filter(inside), product, { tolerance: 1e-6, name: layout }); // measured 7e-8
      const outside = (value: number, at: number) => !inside(value, at);
      assertEquals(c.filter(outside), before.filter(outside), `${layout} wrote outside its columns`);
    }
  });
}

const BATCHED = {
  // As a head's queries, keys and values: A one matrix for each, B and C columns side by side.
  aligned: { m: 9, n: 8, k: 12, bStride: 24, cStride: 24, steps: { aStep: 108, bStep: 8, cStep: 8 } },
  unaligned: { m: 5, n: 7, k: 3, bStride: 21, cStride: 21, steps: { aStep: 15, bStep: 7, cStep: 7 } },
};

for (const [name, { m, n, k, bStride, cStride, steps }] of Object.entries(BATCHED)) {
  gpuTest(`several products in one dispatch are each one's own, ${name}`, async (gpu) => {
    const count = 3;
    const wideA = normals(1, count * steps.aStep);
    const wideB = normals(2, k * bStride);
    const bias = normals(3, count * n);
    const residual = normals(4, m * cStride);
    const expected = new Float64Array(m * cStride);
    for (let batch = 0; batch < count; batch++) {
      const inColumns = (_: unknown, at: number) => Math.floor(at % bStride / n) === batch;
      matmulReference({
        layout: "nn",
        m,
        n,
        k,
        a: wideA.subarray(batch * steps.aStep, (batch + 1) * steps.aStep),
        b: wideB.filter(inColumns),
        bias: bias.subarray(batch * n, (batch + 1) * n),
      }).forEach((value, at) => {
        const target = Math.floor(at / n) * cStride + batch * n + at % n;
        expected[target] = value + residual[target];
      });
    }
    const tensors = {
      a: upload(gpu, "a", wideA),
      b: upload(gpu, "b", wideB),
      bias: upload(gpu, "bias", bias),
      residual: upload(gpu, "residual", residual),
      c: poisoned(gpu, "c", [m, cStride]),
    };
    for (const variant of name === "aligned" ? variantsOn(gpu) : [undefined]) {
      const op = await prepareMatmul(gpu, {
        layout: "nn",
        m,
        n,
        k,
        bStride,
        cStride,
        bias: true,
        residual: true,
        batches: { count, ...steps },
        variant,
      });
      const c = await runAndRead(gpu, tensors.c, (recorder) => op.record(recorder, tensors));
      assertClose(c, expected, { tolerance: 1e-6, name: "nn" }); // measured 7e-8
    }
  });
}

gpuTest("a product of queries' gradients with weights turned over goes head by head", async (gpu) => {
  // dx of each head alone: A and B columns side by side, C one matrix for each.
  const [m, heads, size, width] = [5, 3, 4, 12];
  const dq = normals(1, m * heads * size);
  const weight = normals(2, width * heads * size);
  const op = await prepareMatmul(gpu, {
    layout: "nt",
    m,
    n: width,
    k: size,
    aStride: heads * size,
    bStride: heads * size,
    batches: { count: heads, aStep: size, bStep: size, cStep: m * width },
  });
  const t = {
    a: upload(gpu, "dq", dq),
    b: upload(gpu, "weight", weight),
    c: poisoned(gpu, "dx", [heads, m, width]),
  };
  const c = await runAndRead(gpu, t.c, (recorder) => op.record(recorder, t));
  for (let head = 0; head < heads; head++) {
    const ofHead = (_: unknown, at: number) => Math.floor(at % (heads * size) / size) === head;
    const [a, b] = [dq.filter(ofHead), weight.filter(ofHead)];
    const expected = matmulReference({ layout: "nt", m, n: width, k: size, a, b });
    const found = c.subarray(head * m * width, (head + 1) * m * width);
    assertClose(found, expected, { tolerance: 1e-6, name: `head ${head}` }); // measured 5e-8
  }
});

gpuTest("the bias gradient is the column sum, whatever the number of rows", async (gpu) => {
  for (const [m, n] of [[1, 1], [63, 3], [64, 4], [65, 5], [131, 7]]) {
    const dc = normals(m, m * n);
    const tensors = { dc: upload(gpu, "dc", dc), dbias: poisoned(gpu, "dbias", [n]) };
    const op = await prepareBiasGradient(gpu, { m, n });
    const got = await runAndRead(gpu, tensors.dbias, (recorder) => op.record(recorder, tensors));
    // Measured: 9e-8.
    assertClose(got, biasGradientReference(m, n, dc), { tolerance: 1e-6, name: `dbias ${m} ${n}` });
    const adding = await prepareBiasGradient(gpu, { m, n, accumulate: true });
    const twice = await runAndRead(gpu, tensors.dbias, (recorder) => adding.record(recorder, tensors));
    assertEquals(twice, got.map((value) => Math.fround(value + value)));
  }
});

gpuTest("an extent of 0 is refused", async (gpu) => {
  await assertRejects(
    () => prepareMatmul(gpu, { layout: "nn", m: 0, n: 1, k: 1 }),
    RangeError,
    "m must be a positive",
  );
});
