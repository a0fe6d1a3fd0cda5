import { assertEquals, assertRejects } from "@std/assert";
import { prepareBiasGradient, prepareMatmul } from "../../../kernels/matmul/op.ts";
import { biasGradientReference, matmulReference } from "../../../kernels/matmul/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, poisoned, runAndRead, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const SHAPES = [
  [1, 1, 1],
  [7, 5, 3],
  [8, 8, 4],
  [9, 12, 8],
  [13, 64, 20],
  [65, 68, 36],
  [31, 132, 4],
] as const;

for (const layout of ["nn", "nt", "tn"] as const) {
  gpuTest(
    `matmul ${layout} equals float64 at awkward shapes, with bias and added to what is there`,
    async (gpu) => {
      for (const [m, n, k] of SHAPES) {
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
        const plain = await prepareMatmul(gpu, { layout, m, n, k, bias: true });
        // Measured: 1.6e-7.
        assertClose(
          await runAndRead(gpu, tensors.c, (recorder) => plain.record(recorder, tensors)),
          reference,
          {
            tolerance: 1e-6,
            name: `${layout} ${m} ${n} ${k}`,
          },
        );
        gpu.write(tensors.c, before);
        const adding = await prepareMatmul(gpu, { layout, m, n, k, bias: true, accumulate: true });
        assertClose(
          await runAndRead(gpu, tensors.c, (recorder) => adding.record(recorder, tensors)),
          reference.map((value, at) => value + before[at]),
          { tolerance: 1e-6, name: `${layout} ${m} ${n} ${k}, added` },
        );
      }
    },
  );
}

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
    assertClose(packed, want, { tolerance: 1e-6, name: "logits" });

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
      { tolerance: 1e-6, name: "dx" },
    );
    assertClose(
      await gpu.read(dwte),
      matmulReference({ layout: "tn", m: V, n: width, k: rows, a: exact, b: x }),
      { tolerance: 1e-6, name: "dwte" },
    );
  },
);

gpuTest("the bias gradient is the column sum, whatever the number of rows", async (gpu) => {
  for (const [m, n] of [[1, 1], [63, 3], [64, 4], [65, 5], [131, 7]]) {
    const dc = normals(m, m * n);
    const tensors = { dc: upload(gpu, "dc", dc), dbias: poisoned(gpu, "dbias", [n]) };
    const op = await prepareBiasGradient(gpu, { m, n });
    const got = await runAndRead(gpu, tensors.dbias, (recorder) => op.record(recorder, tensors));
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
