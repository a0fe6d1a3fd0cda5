/** Low-rank products beside a linear layer's own, and their gradients, against float64. */
import { assert, assertEquals } from "@std/assert";
import { type LowRank, prepareLowRank, prepareLowRankGradient } from "../../../kernels/matmul/low_rank.ts";
import { prepareLinear, prepareLinearGradient } from "../../../kernels/matmul/linear.ts";
import {
  lowRankGradientReference,
  lowRankReference,
  type LowRankReferenceInput,
  matmulReference,
} from "../../../kernels/matmul/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

interface Case {
  rows: number;
  inputs: number;
  outputs: number;
  adapters: LowRank[];
}

const part = (column: number, columns: number, rank: number, scale: number): LowRank => ({
  column,
  columns,
  rank,
  scale,
});

/** Ranks that are multiples of 4 and others, parts of unlike widths, and parts between which there is none. */
const CASES: Record<string, Case> = {
  "one adapter": { rows: 9, inputs: 20, outputs: 28, adapters: [part(0, 28, 8, 2)] },
  "three parts of unlike widths": {
    rows: 17,
    inputs: 24,
    outputs: 48,
    adapters: [part(0, 24, 4, 0.5), part(24, 12, 8, 3), part(36, 12, 4, 1)],
  },
  "parts with none between them": {
    rows: 33,
    inputs: 16,
    outputs: 48,
    adapters: [part(0, 16, 4, 2), part(32, 16, 4, 2)],
  },
  "ranks and widths that are no multiples of 4": {
    rows: 7,
    inputs: 12,
    outputs: 20,
    adapters: [part(0, 6, 2, 1.5), part(6, 7, 1, 2), part(13, 5, 1, 0.25)],
  },
  "such ranks before columns of others": {
    rows: 7,
    inputs: 12,
    outputs: 20,
    adapters: [part(0, 8, 2, 1.5), part(8, 5, 2, 2)],
  },
};

function drawn({ rows, inputs, outputs, adapters }: Case): LowRankReferenceInput & { dy: Float32Array } {
  const total = adapters.reduce((sum, { rank }) => sum + rank, 0);
  return {
    rows,
    inputs,
    outputs,
    adapters,
    x: normals(1, rows * inputs),
    down: normals(2, inputs * total),
    ups: adapters.map(({ rank, columns }, p) => normals(10 + p, rank * columns)),
    dy: normals(3, rows * outputs),
  };
}

Deno.test("gradients of low-rank products in float64 agree with central differences", () => {
  const of = drawn(CASES["parts with none between them"]);
  const { dx, ddown, dups } = lowRankGradientReference(of, of.dy);
  const objective = (changed: Partial<LowRankReferenceInput>): number =>
    lowRankReference({ ...of, ...changed }).reduce((sum, y, at) => sum + y * of.dy[at], 0);
  const numeric = (f: (v: Float64Array) => number, at: ArrayLike<number>) =>
    centralDifference(f, Float64Array.from(at));
  assert(relativeError(dx, numeric((x) => objective({ x }), of.x)) < 1e-8); // measured 7e-11
  assert(relativeError(ddown, numeric((down) => objective({ down }), of.down)) < 1e-8);
  dups.forEach((dup, p) => {
    const at = (up: Float64Array) => objective({ ups: of.ups.map((other, n) => n === p ? up : other) });
    assert(relativeError(dup, numeric(at, of.ups[p])) < 1e-8);
  });
});

for (const [name, each] of Object.entries(CASES)) {
  gpuTest(
    `${name}: low-rank products, a layer that is added to them, and all gradients equal float64`,
    async (gpu) => {
      const of = drawn(each);
      const { rows, inputs, outputs, adapters } = each;
      const total = adapters.reduce((sum, { rank }) => sum + rank, 0);
      const weights = normals(4, inputs * outputs);
      const biases = normals(5, outputs);
      const [x, down, dy, weight, bias] = [
        upload(gpu, "x", of.x as Float32Array, [rows, inputs]),
        upload(gpu, "A", of.down as Float32Array, [inputs, total]),
        upload(gpu, "dy", of.dy, [rows, outputs]),
        upload(gpu, "weight", weights, [inputs, outputs]),
        upload(gpu, "bias", biases, [outputs]),
      ];
      const ups = of.ups.map((values, p) =>
        upload(gpu, `B ${p}`, values as Float32Array, [adapters[p].rank, adapters[p].columns])
      );
      const [y, low, dlow, dx] = [
        poisoned(gpu, "y", [rows, outputs]),
        poisoned(gpu, "low", [rows, total]),
        poisoned(gpu, "dlow", [rows, total]),
        poisoned(gpu, "dx", [rows, inputs]),
      ];
      const shape = { ...each, half: false };
      const linearShape = {
        rows,
        inputs,
        outputs,
        bias: true,
        half: { x: false, weight: false, y: false },
        accumulate: true,
        frozen: true,
      };
      const products = await prepareLowRank(gpu, shape);
      const layer = await prepareLinear(gpu, linearShape);
      gpu.submit("low-rank products", (recorder) => products.record(recorder, { x, down, low, sum: y, ups }));
      const want = lowRankReference(of);
      // Measured: 1.8e-7 of dB.
      assertClose(await gpu.read(y), want, { tolerance: 1e-6, name: "low-rank products" });
      gpu.submit("y", (recorder) => layer.record(recorder, { x, weight, bias, y }));
      const own = matmulReference({
        layout: "nn",
        m: rows,
        n: outputs,
        k: inputs,
        a: of.x,
        b: weights,
        bias: biases,
      });
      assertClose(await gpu.read(y), own.map((value, n) => value + want[n]), { tolerance: 1e-6, name: "y" });

      const before = normals(6, inputs * total);
      const ddown = upload(gpu, "dA", before, [inputs, total]);
      const dups = ups.map(({ shape }, p) => upload(gpu, `dB ${p}`, of.ups[p] as Float32Array, [...shape]));
      const gradient = await prepareLowRankGradient(gpu, shape);
      const ofLayer = await prepareLinearGradient(gpu, linearShape);
      const record = (withDx: boolean) =>
        gpu.submit("gradients", (recorder) => {
          const tensors = { x, down, low, dy, dlow, ups, ...(withDx ? { dx } : {}) };
          gradient.record(recorder, tensors, withDx ? { ddown, dups } : undefined);
          // What is frozen has no gradient, whoever asks.
          ofLayer.record(recorder, { x, weight, dy, ...(withDx ? { dx } : {}) }, {});
        });
      record(true);
      const found = lowRankGradientReference(of, of.dy);
      const ofWeight = matmulReference({
        layout: "nt",
        m: rows,
        n: inputs,
        k: outputs,
        a: of.dy,
        b: weights,
      });
      const wholeDx = ofWeight.map((value, n) => value + found.dx[n]);
      assertClose(await gpu.read(dx), wholeDx, { tolerance: 1e-6, name: "dx" });
      const added = (gradient: Float64Array, to: ArrayLike<number>) =>
        gradient.map((value, n) => value + to[n]);
      assertClose(await gpu.read(ddown), added(found.ddown, before), { tolerance: 1e-6, name: "dA" });
      for (const [p, dup] of dups.entries()) {
        assertClose(await gpu.read(dup), added(found.dups[p], of.ups[p]), {
          tolerance: 1e-6,
          name: `dB ${p}`,
        });
      }
      const readAll = async () => [await gpu.read(dx), await gpu.read(ddown), await gpu.read(dups[0])];
      const stood = await readAll();
      record(false);
      assertEquals(await readAll(), stood, "without dx and gradients nothing is written");
    },
  );
}
