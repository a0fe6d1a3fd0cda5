import type { Gpu } from "../../../kernels/core/gpu.ts";
import { destroyTensor, rows, slicesOf } from "../../../kernels/core/tensor.ts";
import { type MatmulLayout, prepareMatmul } from "../../../kernels/matmul/op.ts";
import { matmulReference } from "../../../kernels/matmul/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { upload } from "../../support/gpu.ts";
import { seeded } from "../../support/seeded.ts";
import { fill } from "../data.ts";
import { type BenchCase, kernelCandidate } from "../harness.ts";
import { jaxArray, jaxMatmul, jaxPeer, jaxValues, openJax, ready } from "../peers/jax.ts";
import { tfjsMatmul } from "../peers/tfjs.ts";
import { type Torch, torchPeers } from "../peers/torch.ts";

/** Rows and columns of C that are compared with the reference. */
const SAMPLE = 16;
/** At most 1.1e-6 was seen, at k = 3072, against the reference and against jax-js; TensorFlow.js had the same bits. */
const TOLERANCE = 1e-5;

/** One product C [m, n] with sums of k terms; of `nt`, in as many pieces as B's rows need bindings. */
export async function matmulCase(
  gpu: Gpu,
  { layout, m, n, k, torch }: { layout: MatmulLayout; m: number; n: number; k: number; torch?: Torch },
): Promise<BenchCase> {
  const shapes = { nn: [[m, k], [k, n]], nt: [[m, k], [n, k]], tn: [[k, m], [k, n]] }[layout];
  const [aValues, bValues] = [fill(1, m * k), fill(2, k * n)];
  const a = upload(gpu, "a", aValues, shapes[0]);
  const b = upload(gpu, "b", bValues, shapes[1]);
  const c = gpu.tensor("c", [m, n]);
  const slices = layout === "nt" ? slicesOf(n, k, gpu.maxBindingBytes) : [{ start: 0, count: n }];
  const products = await Promise.all(slices.map(async ({ start, count }) => ({
    b: layout === "nt" ? rows(b, start, count) : b,
    product: await prepareMatmul(gpu, { layout, m, n: count, k, cStride: n, cColumn: start }),
  })));
  const run = (): void =>
    gpu.submit(
      "matmul",
      (recorder) => products.forEach(({ product, b }) => product.record(recorder, { a, b, c })),
    );

  return {
    operations: 2 * m * n * k,
    bytes: 4 * (m * k + k * n + m * n),
    ours: kernelCandidate(gpu, run),
    peers: {
      "jax-js": async () => {
        await openJax();
        const [peerA, peerB] = [jaxArray(aValues, shapes[0]), jaxArray(bValues, shapes[1])];
        await ready(peerA, peerB);
        return jaxPeer(
          () => [jaxMatmul[layout](peerA.ref, peerB.ref)],
          async ([product]) =>
            assertClose(await gpu.read(c), await jaxValues(product), {
              tolerance: TOLERANCE,
              name: "jax-js's C",
            }),
          [peerA, peerB],
        );
      },
      tfjs: () =>
        tfjsMatmul(
          { layout, a: aValues, b: bValues, shapes },
          async (values) =>
            assertClose(await gpu.read(c), values, { tolerance: TOLERANCE, name: "tfjs's C" }),
        ),
      ...torchPeers(torch, { kind: "matmul", layout, m, n, k }),
    },
    async check() {
      run();
      const random = seeded(3);
      const at = (length: number) =>
        Array.from({ length: Math.min(SAMPLE, length) }, () => random.integer(length));
      const [rowsOfC, columns] = [at(m), at(n)];
      const values = await gpu.read(c);
      const actual = rowsOfC.flatMap((row) => columns.map((column) => values[row * n + column]));
      const part = (values: Float32Array, of: number[], extent: number, alongK: boolean) =>
        of.flatMap((at) =>
          Array.from({ length: k }, (_, i) => values[alongK ? at * k + i : i * extent + at])
        );
      const expected = matmulReference({
        layout: "nt",
        m: rowsOfC.length,
        n: columns.length,
        k,
        a: part(aValues, rowsOfC, m, layout !== "tn"),
        b: part(bValues, columns, n, layout === "nt"),
      });
      assertClose(actual, expected, { tolerance: TOLERANCE, name: "sampled elements of C" });
    },
    destroy() {
      for (const tensor of [a, b, c]) destroyTensor(gpu, tensor);
    },
  };
}
