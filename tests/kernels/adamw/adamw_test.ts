import { assert, assertEquals } from "@std/assert";
import { prepareAdamW } from "../../../kernels/adamw/op.ts";
import { adamwReference } from "../../../kernels/adamw/reference.ts";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const SETTINGS = { learningRate: 0.01, beta1: 0.9, beta2: 0.99, epsilon: 1e-8, weightDecay: 0.1 };
const SHAPES: { shape: number[]; decayFrom: number; rate?: number }[] = [
  { shape: [5, 12], decayFrom: 8 },
  { shape: [7], decayFrom: Infinity, rate: 3 },
  { shape: [33, 3], decayFrom: 0, rate: 0.25 },
];

async function setUp(gpu: Gpu, shapes = SHAPES) {
  const parameters = shapes.map(({ shape, decayFrom, rate }, index) => {
    const length = shape.reduce((a, b) => a * b);
    const values = (seed: number) => normals(10 * index + seed, length);
    return {
      host: {
        weight: values(1),
        gradient: values(2),
        first: values(3),
        second: values(4).map(Math.abs) as Float32Array,
        columns: shape.at(-1)!,
        decayFrom,
        learningRate: (rate ?? 1) * SETTINGS.learningRate,
      },
      device: {
        weight: upload(gpu, "weight", values(1), shape),
        gradient: upload(gpu, "gradient", values(2), shape),
        first: upload(gpu, "first", values(3), shape),
        second: upload(gpu, "second", values(4).map(Math.abs) as Float32Array, shape),
        decayFrom,
        rate,
      },
    };
  });
  const op = await prepareAdamW(gpu, parameters.map(({ device }) => device));
  const update = gpu.tensor("update", [4]);
  const norm = Math.sqrt(
    parameters.flatMap(({ host }) => [...host.gradient]).reduce((sum, g) => sum + g * g, 0),
  );
  return { parameters, op, update, norm };
}

async function check(gpu: Gpu, shapes = SHAPES) {
  for (const clip of [1, 1e6]) {
    const { parameters, op, update, norm } = await setUp(gpu, shapes);
    op.configure({ ...SETTINGS, step: 3, clip });
    gpu.submit("adamw", (recorder) => op.record(recorder, { update }));
    const [gotNorm, factor, skipped] = await gpu.read(update);
    // Measured: 1e-7 for both.
    assertClose([gotNorm], [norm], { tolerance: 1e-6, name: "norm" });
    assertClose([factor], [Math.min(1, clip / norm)], { tolerance: 1e-6, name: "factor" });
    assertEquals(skipped, 0);
    for (const { host, device } of parameters) {
      const want = adamwReference({ ...SETTINGS, ...host, step: 3, clipFactor: Math.min(1, clip / norm) });
      // Measured: 3e-8 for weights, 6e-8 for moments.
      assertClose(await gpu.read(device.weight), want.weight, { tolerance: 1e-6, name: "weight" });
      assertClose(await gpu.read(device.first), want.first, { tolerance: 1e-6, name: "first moment" });
      assertClose(await gpu.read(device.second), want.second, { tolerance: 1e-6, name: "second moment" });
    }
  }
}

gpuTest(
  "AdamW equals float64 over several parameters, clipped and not, decaying only the columns it should, each at its own rate",
  (gpu) => check(gpu),
);

Deno.test("a parameter larger than a binding is updated in slices", async () => {
  const gpu = await Gpu.open({ maxBindingBytes: 16 * 1024 });
  try {
    await check(gpu, [{ shape: [150, 64], decayFrom: 0 }, { shape: [64], decayFrom: Infinity }]);
  } finally {
    gpu.close();
  }
});

for (const bad of [NaN, Infinity, 1e30]) {
  gpuTest(`a gradient of ${bad} anywhere skips the step and changes nothing`, async (gpu) => {
    const { parameters, op, update } = await setUp(gpu);
    gpu.write(parameters[1].device.gradient, Float32Array.of(bad), 3);
    op.configure({ ...SETTINGS, step: 1, clip: 1 });
    gpu.submit("adamw", (recorder) => op.record(recorder, { update }));
    assertEquals((await gpu.read(update))[2], 1);
    for (const { host, device } of parameters) {
      assertEquals(await gpu.read(device.weight), host.weight);
      assertEquals(await gpu.read(device.first), host.first);
      assertEquals(await gpu.read(device.second), host.second);
    }
  });
}

gpuTest("the same step from the same state gives the same bits", async (gpu) => {
  const results: Float32Array[] = [];
  for (let n = 0; n < 2; n++) {
    const { parameters, op, update } = await setUp(gpu);
    op.configure({ ...SETTINGS, step: 2, clip: 1 });
    gpu.submit("adamw", (recorder) => op.record(recorder, { update }));
    results.push(await gpu.read(parameters[2].device.weight));
  }
  assertEquals(results[0], results[1]);
  assert(results[0].every(Number.isFinite));
});

gpuTest("a gradient of 0 everywhere is no division by 0: moments shrink and weights decay", async (gpu) => {
  const [host, zero] = [normals(1, 6), new Float32Array(6)];
  const parameter = {
    weight: upload(gpu, "weight", host),
    gradient: upload(gpu, "gradient", zero),
    first: upload(gpu, "first", zero),
    second: upload(gpu, "second", zero),
    decayFrom: 0,
  };
  const op = await prepareAdamW(gpu, [parameter]);
  const update = gpu.tensor("update", [4]);
  op.configure({ ...SETTINGS, step: 1, clip: 1 });
  gpu.submit("adamw", (recorder) => op.record(recorder, { update }));
  assertEquals([...await gpu.read(update)], [0, 1, 0, 0]);
  const want = host.map((weight) => weight * (1 - SETTINGS.learningRate * SETTINGS.weightDecay));
  assertClose(await gpu.read(parameter.weight), want, { tolerance: 1e-6, name: "weight" }); // measured 0
});
