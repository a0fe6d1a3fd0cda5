import type { Gpu } from "../../../kernels/core/gpu.ts";
import { type MatmulLayout, prepareMatmul } from "../../../kernels/matmul/op.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { assertClose } from "../../support/compare.ts";
import { upload } from "../../support/gpu.ts";
import { seeded } from "../../support/seeded.ts";
import type { BenchCase } from "../harness.ts";
import { jaxArray, jaxCandidate, jaxMatmul, openJax, ready } from "../peers/jax.ts";

/** One product C [m, n] with sums of k terms, beside jax-js. */
export async function matmulCase(
  gpu: Gpu,
  { layout, m, n, k }: { layout: MatmulLayout; m: number; n: number; k: number },
): Promise<BenchCase> {
  await openJax();
  const random = seeded(1);
  const values = (length: number) => Float32Array.from({ length }, () => random.normal());
  const shapes = { nn: [[m, k], [k, n]], nt: [[m, k], [n, k]], tn: [[k, m], [k, n]] }[layout];
  const [aValues, bValues] = [values(m * k), values(k * n)];
  const a = upload(gpu, "a", aValues, shapes[0]);
  const b = upload(gpu, "b", bValues, shapes[1]);
  const c = gpu.tensor("c", [m, n]);
  const product = await prepareMatmul(gpu, { layout, m, n, k });
  const [peerA, peerB] = [jaxArray(aValues, shapes[0]), jaxArray(bValues, shapes[1])];
  await ready(peerA, peerB);
  const peer = jaxCandidate(() => [jaxMatmul[layout](peerA.ref, peerB.ref)]);
  return {
    name: `matmul ${layout} ${m}x${n}x${k}`,
    operations: 2 * m * n * k,
    bytes: 4 * (m * k + k * n + m * n),
    ours: {
      run: () => gpu.submit("matmul", (recorder) => product.record(recorder, { a, b, c })),
      wait: () => gpu.sync(),
    },
    peers: {
      "jax-js": peer,
    },
    async check() {
      gpu.submit("matmul", (recorder) => product.record(recorder, { a, b, c }));
      peer.run();
      await peer.wait();
      const expected = await peer.last()[0].ref.data() as Float32Array;
      assertClose(await gpu.read(c), expected, { tolerance: 1e-5, name: `matmul ${layout}` });
    },
    destroy() {
      for (const tensor of [a, b, c]) destroyTensor(gpu, tensor);
      peer.destroy();
      for (const array of [peerA, peerB]) array.dispose();
    },
  };
}
