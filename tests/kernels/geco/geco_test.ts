import { assertEquals } from "@std/assert";
import { prepareGeco } from "../../../kernels/geco/op.ts";
import { gecoReference } from "../../../kernels/geco/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, upload } from "../../support/gpu.ts";

const SETTINGS = { scale: 0.03, alpha: 0.9, rate: 0.5, lowest: 0.02, highest: 5 };

gpuTest(
  "the multiplier follows the reference up to its ceiling, down to its floor, and keeps the scales",
  async (gpu) => {
    const geco = await prepareGeco(gpu);
    geco.configure({ ...SETTINGS, targetLoss: 2 });
    const state = upload(gpu, "state", Float32Array.of(0.3, 0, 0, 0));
    const tensors = {
      totals: gpu.tensor("totals", [4]),
      state,
      lossScale: upload(gpu, "loss scale", Float32Array.of(-1)),
      edgeScale: upload(gpu, "edge scale", Float32Array.of(-1)),
    };
    gpu.submit("geco", (recorder) => geco.update(recorder, tensors));
    assertEquals([...await gpu.read(tensors.lossScale)], [-1], "nothing moves before the first measurement");
    let reference = { lambda: Math.fround(0.3), average: 0 };
    const seen = new Set<number>();
    for (let step = 0; step < 100; step++) {
      const violation = step < 25 ? 0.5 : step % 3 === 0 ? 0.01 : -0.2;
      gpu.write(tensors.totals, Float32Array.of(10 * (2 + violation), 0, 0, 10));
      gpu.submit("geco", (recorder) => {
        geco.measure(recorder, tensors);
        geco.update(recorder, tensors);
      });
      const measured = (await gpu.read(state))[2];
      assertClose([measured], [violation], { tolerance: 1e-4, name: "violation" });
      reference = gecoReference(reference, measured, SETTINGS);
      const [lambda, average] = await gpu.read(state);
      assertClose([lambda, average], [reference.lambda, reference.average], {
        tolerance: 1e-5,
        name: `step ${step}`,
      });
      seen.add(lambda);
      const [loss] = await gpu.read(tensors.lossScale);
      const [edge] = await gpu.read(tensors.edgeScale);
      assertClose([loss, edge], [lambda / (1 + lambda), 1 / (1 + lambda)], {
        tolerance: 1e-6,
        name: "scales",
      });
    }
    assertEquals([seen.has(5), seen.has(Math.fround(0.02))], [true, true], "both bounds were reached");
  },
);

gpuTest("a loss that is not a number is not taken", async (gpu) => {
  const geco = await prepareGeco(gpu);
  geco.configure({ ...SETTINGS, targetLoss: 2 });
  const state = upload(gpu, "state", Float32Array.of(0.3, 0.1, -0.5, 1));
  for (const bad of [NaN, Infinity]) {
    const totals = upload(gpu, "totals", Float32Array.of(bad, 0, 0, 10));
    gpu.submit("geco", (recorder) => geco.measure(recorder, { totals, state }));
    assertEquals(await gpu.read(state), Float32Array.of(0.3, 0.1, -0.5, 1));
  }
});
