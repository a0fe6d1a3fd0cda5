/** The controller of λ on small fixed inputs, against the float64 reference. @module */
import { type Check, TRANSCENDENTAL, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareGeco } from "./op.ts";
import { gecoReference } from "./reference.ts";

/** A measurement and an update. */
export async function gecoCheck(gpu: Gpu): Promise<Check> {
  const settings = { scale: 0.8, alpha: 0.9, rate: 0.5, gain: 0.7, lowest: 0.02, highest: 5 };
  const [targetLoss, violation, positions] = [2, 0.5, 8];
  const op = await prepareGeco(gpu);
  op.configure({ ...settings, targetLoss });
  const t = {
    totals: upload(gpu, "totals", Float32Array.of(positions * (targetLoss + violation), 0, 0, positions)),
    state: upload(gpu, "state", Float32Array.of(0.3, 0.1, 0, 0)),
    lossScale: gpu.tensor("loss scale", [1]),
    edgeScale: gpu.tensor("edge scale", [1]),
  };
  const { lambda, average, acting } = gecoReference({ lambda: 0.3, average: 0.1 }, violation, settings);
  return {
    record(recorder) {
      op.measure(recorder, t);
      op.update(recorder, t);
    },
    comparisons: [{
      operation: "GECO",
      outputs: [
        [t.state, [lambda, average, violation, 1]],
        [t.lossScale, [acting / (1 + acting)]],
        [t.edgeScale, [1 / (1 + acting)]],
      ],
      tolerance: TRANSCENDENTAL,
    }],
  };
}
