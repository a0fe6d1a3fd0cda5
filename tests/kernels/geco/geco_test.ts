import { assertEquals } from "@std/assert";
import { prepareGeco } from "../../../kernels/geco/op.ts";
import { gecoReference } from "../../../kernels/geco/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest, upload } from "../../support/gpu.ts";

const SETTINGS = { scale: 0.03, alpha: 0.9, rate: 0.5, gain: 0.7, lowest: 0.02, highest: 5 };
const STEPS = 100;

gpuTest(
  "the multiplier follows the reference up to its ceiling, down to its floor, and keeps the scales",
  async (gpu) => {
    const geco = await prepareGeco(gpu);
    geco.configure({ ...SETTINGS, targetLoss: 2 });
    const tensors = {
      totals: gpu.tensor("totals", [4]),
      state: upload(gpu, "state", Float32Array.of(0.3, 0, 0, 0)),
      lossScale: gpu.tensor("loss scale", [1]),
      edgeScale: gpu.tensor("edge scale", [1]),
    };
    const history = gpu.tensor("history", [STEPS, 6]);
    const violations = Array.from({ length: STEPS }, (_, step) => step < 25 ? 0.5 : step % 3 ? -0.2 : 0.01);
    for (const [step, violation] of violations.entries()) {
      gpu.write(tensors.totals, Float32Array.of(10 * (2 + violation), 0, 0, 10));
      gpu.submit("geco", (recorder) => {
        geco.measure(recorder, tensors);
        geco.update(recorder, tensors);
        recorder.copy(tensors.state, history, 6 * step);
        recorder.copy(tensors.lossScale, history, 6 * step + 4);
        recorder.copy(tensors.edgeScale, history, 6 * step + 5);
      });
    }
    const rows = await gpu.read(history);
    let reference = { lambda: Math.fround(0.3), average: 0, acting: 0 };
    const seen = new Set<number>();
    for (const [step, violation] of violations.entries()) {
      const [lambda, average, measured, isMeasured, loss, edge] = rows.subarray(6 * step);
      // CE near 2 is held to 2^-23, of which a violation of 0.01 is a small difference: 1e-5 of it. Measured: 9.5e-7.
      assertClose([measured], [violation], { tolerance: 1e-4, name: `violation of step ${step}` });
      assertEquals(isMeasured, 1);
      reference = gecoReference(reference, measured, SETTINGS);
      // Measured: 1.6e-6, grown over the steps in which lambda climbs to its ceiling; 3e-7 in the first.
      assertClose([lambda, average], [reference.lambda, reference.average], {
        tolerance: 1e-5,
        name: `state of step ${step}`,
      });
      // Measured: 1.3e-6 where lambda's is 1.6e-6.
      assertClose([loss, edge], [reference.acting / (1 + reference.acting), 1 / (1 + reference.acting)], {
        tolerance: 1e-5,
        name: `scales of step ${step}`,
      });
      seen.add(lambda);
    }
    assertEquals([seen.has(5), seen.has(Math.fround(0.02))], [true, true], "both bounds were reached");
  },
);

gpuTest("nothing moves before the first measurement", async (gpu) => {
  const geco = await prepareGeco(gpu);
  geco.configure({ ...SETTINGS, targetLoss: 2 });
  const tensors = {
    state: upload(gpu, "state", Float32Array.of(0.3, 0.1, 0.5, 0)),
    lossScale: upload(gpu, "loss scale", Float32Array.of(-1)),
    edgeScale: upload(gpu, "edge scale", Float32Array.of(-1)),
  };
  gpu.submit("geco", (recorder) => geco.update(recorder, tensors));
  assertEquals(await gpu.read(tensors.state), Float32Array.of(0.3, 0.1, 0.5, 0));
  assertEquals([...await gpu.read(tensors.lossScale), ...await gpu.read(tensors.edgeScale)], [-1, -1]);
});

gpuTest("a loss that is not a number is not taken", async (gpu) => {
  const geco = await prepareGeco(gpu);
  geco.configure({ ...SETTINGS, targetLoss: 2 });
  const state = upload(gpu, "state", Float32Array.of(0.3, 0.1, -0.5, 1));
  // The last is 0 / 0: no position counted.
  for (const totals of [[NaN, 0, 0, 10], [Infinity, 0, 0, 10], [-Infinity, 0, 0, 10], [0, 0, 0, 0]]) {
    const tensors = { totals: upload(gpu, "totals", Float32Array.from(totals)), state };
    gpu.submit("geco", (recorder) => geco.measure(recorder, tensors));
    assertEquals(await gpu.read(state), Float32Array.of(0.3, 0.1, -0.5, 1), `totals ${totals}`);
  }
});
