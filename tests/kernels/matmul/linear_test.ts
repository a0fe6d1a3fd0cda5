/** A linear layer whose weight is larger than a binding, against float64. */
import { assertEquals, assertRejects } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { type ElementType, slicesOf, type Tensor } from "../../../kernels/core/tensor.ts";
import { geluReference } from "../../../kernels/gelu/reference.ts";
import { needsPartial, prepareLinear, prepareLinearGradient } from "../../../kernels/matmul/linear.ts";
import { biasGradientReference, matmulReference } from "../../../kernels/matmul/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { poisoned } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const [ROWS, INPUTS, OUTPUTS] = [5, 72, 28];
const MAX_BINDING_BYTES = 4096;
const SHAPE = { rows: ROWS, inputs: INPUTS, outputs: OUTPUTS, bias: true };
/** Relative error of float32. Measured: 1.2e-7. */
const SINGLE = 1e-6;
/** Of what is stored as f16. Measured: 2.4e-4. */
const HALF = 1e-3;

function values(length: number, seed: number, half: boolean): Float32Array {
  const values = normals(seed, length);
  return half ? Float32Array.from(values, Math.f16round) : values;
}

for (const half of [false, true]) {
  Deno.test(`a weight of several bindings${half ? ", stored as f16" : ""}: y, with what ends it, and its gradients`, async () => {
    const gpu = await Gpu.open({ maxBindingBytes: MAX_BINDING_BYTES });
    try {
      const slices = slicesOf(INPUTS, OUTPUTS, MAX_BINDING_BYTES, { smallest: half ? 2 : 4 });
      assertEquals(slices.map(({ count }) => count), [32, 32, 8]);
      const shape = { ...SHAPE, half: { x: half, weight: half, y: half } };
      assertEquals(needsPartial(shape, MAX_BINDING_BYTES), half);
      assertEquals(needsPartial(shape, 4 * INPUTS * OUTPUTS), false);
      const type = half ? "f16" : "f32";
      const put = (label: string, array: Float32Array, axes: number[], of: "f32" | "f16" = type): Tensor => {
        const tensor = gpu.tensor(label, axes, of);
        gpu.write(tensor, array);
        return tensor;
      };
      const [xs, ws, bs] = [
        values(ROWS * INPUTS, 1, half),
        values(INPUTS * OUTPUTS, 2, half),
        normals(3, OUTPUTS),
      ];
      const x = put("x", xs, [ROWS, INPUTS]);
      const weight = put("weight", ws, [INPUTS, OUTPUTS]);
      const bias = put("bias", bs, [OUTPUTS], "f32");
      const partial = half ? { partial: poisoned(gpu, "partial", [ROWS, OUTPUTS]) } : {};
      const product = matmulReference({
        layout: "nn",
        m: ROWS,
        n: OUTPUTS,
        k: INPUTS,
        a: xs,
        b: ws,
        bias: bs,
      });

      const y = put("y", new Float32Array(ROWS * OUTPUTS).fill(-7), [ROWS, OUTPUTS]);
      const activated = put("activated", new Float32Array(ROWS * OUTPUTS).fill(-7), [ROWS, OUTPUTS]);
      const withGelu = await prepareLinear(gpu, shape, { gelu: "tanh" });
      gpu.submit("y", (recorder) => withGelu.record(recorder, { x, weight, bias, y, activated, ...partial }));
      const tolerance = half ? HALF : SINGLE;
      assertClose(await gpu.read(y), product, { tolerance, name: "y" });
      assertClose(await gpu.read(activated), geluReference(product), { tolerance, name: "GELU(y)" });

      const residuals = normals(4, ROWS * OUTPUTS);
      const single = { ...shape, half: { ...shape.half, y: false } };
      const sum = poisoned(gpu, "sum", [ROWS, OUTPUTS]);
      const withResidual = await prepareLinear(gpu, single, { residual: true });
      const residual = put("residual", residuals, [ROWS, OUTPUTS], "f32");
      gpu.submit("sum", (recorder) => withResidual.record(recorder, { x, weight, bias, y: sum, residual }));
      const summed = product.map((value, n) => value + residuals[n]);
      assertClose(await gpu.read(sum), summed, { tolerance: SINGLE, name: "y and a residual" });
      if (half) {
        await assertRejects(() => prepareLinear(gpu, shape, { residual: true }), RangeError, "must be f32");
      }

      const dys = normals(5, ROWS * OUTPUTS);
      const before = normals(6, INPUTS * OUTPUTS);
      const dx = poisoned(gpu, "dx", [ROWS, INPUTS]);
      const dweight = put("dweight", before, [INPUTS, OUTPUTS], "f32");
      const dbias = put("dbias", bs, [OUTPUTS], "f32");
      const dy = put("dy", dys, [ROWS, OUTPUTS], "f32");
      const gradient = await prepareLinearGradient(gpu, shape);
      gpu.submit(
        "gradients",
        (recorder) => gradient.record(recorder, { x, weight, dy, dx }, { dweight, dbias }),
      );
      const want = matmulReference({ layout: "nt", m: ROWS, n: INPUTS, k: OUTPUTS, a: dys, b: ws });
      assertClose(await gpu.read(dx), want, { tolerance: SINGLE, name: "dx" });
      const added = matmulReference({ layout: "tn", m: INPUTS, n: OUTPUTS, k: ROWS, a: xs, b: dys })
        .map((value, n) => value + before[n]);
      assertClose(await gpu.read(dweight), added, { tolerance: SINGLE, name: "dweight" });
      const addedBias = biasGradientReference(ROWS, OUTPUTS, dys).map((value, n) => value + bs[n]);
      assertClose(await gpu.read(dbias), addedBias, { tolerance: SINGLE, name: "dbias" });
    } finally {
      gpu.close();
    }
  });
}

Deno.test("a frozen weight of several bindings, stored as int8: y and dx, in every half precision", async () => {
  const [inputs, outputs, maxBindingBytes] = [300, 64, 16384];
  const gpu = await Gpu.open({ maxBindingBytes });
  try {
    for (const half of [false, true]) {
      const shape = {
        rows: ROWS,
        inputs,
        outputs,
        bias: false,
        half: { x: half, weight: false, y: half },
        frozen: true,
        int8: true,
      };
      assertEquals(needsPartial(shape, maxBindingBytes), half);
      const put = (label: string, values: Float32Array, axes: number[], type: ElementType): Tensor => {
        const tensor = gpu.tensor(label, axes, type);
        gpu.write(tensor, values);
        return tensor;
      };
      const x = put("x", normals(1, ROWS * inputs), [ROWS, inputs], half ? "f16" : "f32");
      const weight = put("weight", normals(2, inputs * outputs), [inputs, outputs], "int8");
      const [a, b] = [await gpu.read(x), await gpu.read(weight)];
      const y = put("y", new Float32Array(ROWS * outputs).fill(-7), [ROWS, outputs], half ? "f16" : "f32");
      const partial = half ? { partial: poisoned(gpu, "partial", [ROWS, outputs]) } : {};
      const linear = await prepareLinear(gpu, shape);
      gpu.submit("y", (recorder) => linear.record(recorder, { x, weight, y, ...partial }));
      const product = matmulReference({ layout: "nn", m: ROWS, n: outputs, k: inputs, a, b });
      assertClose(await gpu.read(y), product, { tolerance: half ? HALF : SINGLE, name: "y" });

      const dys = normals(5, ROWS * outputs);
      const [dy, dx] = [put("dy", dys, [ROWS, outputs], "f32"), poisoned(gpu, "dx", [ROWS, inputs])];
      const gradient = await prepareLinearGradient(gpu, shape);
      gpu.submit("dx", (recorder) => gradient.record(recorder, { x, weight, dy, dx }));
      const want = matmulReference({ layout: "nt", m: ROWS, n: inputs, k: outputs, a: dys, b });
      assertClose(await gpu.read(dx), want, { tolerance: SINGLE, name: "dx" });
    }
  } finally {
    gpu.close();
  }
});
