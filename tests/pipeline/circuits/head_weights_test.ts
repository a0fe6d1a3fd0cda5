/** Weights by head, of a tiny model of every family, against what float64 computes by the weights as they lie together. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { readHeadWeights, type WeightArray } from "../../../pipeline/circuits/head_weights.ts";
import { referenceModel } from "../../../pipeline/model/reference_model.ts";
import { stepIn, trace } from "../../../pipeline/model/trace.ts";
import {
  FAMILY_MODELS,
  familyModel,
  randomModel,
  TINY,
  type TwoSidedModel,
} from "../../support/circuit_models.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";

const TOKENS = [3, 1, 4, 1, 5];

const MODELS: [name: string, open: (gpu: Gpu) => TwoSidedModel | Promise<TwoSidedModel>][] = [
  ["gpt2", (gpu) => randomModel(gpu, TINY)],
  ...FAMILY_MODELS.map((name): (typeof MODELS)[number] => [name, (gpu) => familyModel(gpu, name)]),
];

/** x W + b of a row. */
function product(x: ArrayLike<number>, weight: WeightArray, bias?: WeightArray): Float64Array {
  const [inputs, outputs] = weight.shape;
  return Float64Array.from({ length: outputs }, (_, n) => {
    let sum = bias?.values[n] ?? 0;
    for (let m = 0; m < inputs; m++) sum += x[m] * weight.values[m * outputs + n];
    return sum;
  });
}

for (const [name, open] of MODELS) {
  gpuTest(`${name}: a head's weights give its queries, keys and values, and what it adds`, async (gpu) => {
    const model = await open(gpu);
    const { config, reference: { weights } } = model;
    const { width, layers, heads, keyValueHeads, headSize } = config;
    const traced = trace(config, { batch: 1, context: TOKENS.length });
    const { values } = referenceModel(traced, weights, TOKENS);
    const row = (name: string, position: number): Float64Array => {
      const all = values.get(name)!;
      const length = all.length / TOKENS.length;
      return all.subarray(position * length, (position + 1) * length);
    };
    for (const branch of traced.branches.filter(({ kind }) => kind === "attention")) {
      const [first, out] = [stepIn(branch, "in"), stepIn(branch, "out")];
      const ofHeads = await Promise.all(
        Array.from({ length: heads }, (_, head) => readHeadWeights(gpu, model, branch.layer, head)),
      );
      for (const position of [0, TOKENS.length - 1]) {
        const x = row(first.reads.x.name, position);
        const packed = row(first.writes.y.name, position);
        const z = row(out.reads.x.name, position);
        const sum = Float64Array.from(ofHeads[0].b_O.values);
        for (const [head, { W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O }] of ofHeads.entries()) {
          for (const { shape } of [W_Q, W_K, W_V]) assertEquals(shape, [width, headSize]);
          for (const { shape } of [b_Q, b_K, b_V]) assertEquals(shape, [headSize]);
          assertEquals([W_O.shape, b_O.shape], [[headSize, width], [width]]);
          const keyHead = Math.floor(head * keyValueHeads / heads);
          for (
            const [what, found, place] of [
              ["q", product(x, W_Q, b_Q), head],
              ["k", product(x, W_K, b_K), heads + keyHead],
              ["v", product(x, W_V, b_V), heads + keyValueHeads + keyHead],
            ] as const
          ) {
            const expected = packed.subarray(place * headSize, (place + 1) * headSize);
            // Measured: 0, as both add the same terms in float64.
            assertClose(found, expected, { tolerance: 1e-14, name: `${what} of head ${head}` });
          }
          const added = product(z.subarray(head * headSize, (head + 1) * headSize), W_O);
          added.forEach((value, n) => sum[n] += value);
        }
        // Measured: 3.4e-16.
        assertClose(sum, row(out.writes.y.name, position), { tolerance: 1e-14, name: "attention's output" });
      }
      assertEquals(ofHeads.some(({ b_Q }) => b_Q.values.some((value) => value !== 0)), config.biases.qkv);
      assertEquals(ofHeads[0].b_O.values.some((value) => value !== 0), config.biases.other);
    }
    assert(layers > 1 && heads > 1);
    for (
      const [layer, head, message] of [
        [layers, 0, `layer ${layers} as there are 0 to ${layers - 1}`],
        [-1, 0, "layer -1"],
        [0, heads, `head ${heads} as there are 0 to ${heads - 1}`],
        [0, 0.5, "head 0.5"],
      ] as const
    ) await assertRejects(() => readHeadWeights(gpu, model, layer, head), RangeError, message);
  });
}
