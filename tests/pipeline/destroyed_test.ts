/** What was destroyed says so where it is used, and leaves the device to others. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { destroyTensor } from "../../kernels/core/tensor.ts";
import { createUniform } from "../../kernels/core/uniform.ts";
import { prepareResidual } from "../../kernels/residual/op.ts";
import { createCircuitEngine } from "../../pipeline/circuits/engine.ts";
import { prepareInterventions } from "../../pipeline/circuits/interventions.ts";
import { prepareDecoder } from "../../pipeline/model/decoder.ts";
import { prepareNetwork } from "../../pipeline/model/network.ts";
import { destroyParameters } from "../../pipeline/model/parameters.ts";
import { randomModel, randomSet, TINY } from "../support/circuit_models.ts";
import { gpuTest } from "../support/gpu.ts";

const CONFIG = { ...TINY, layers: 1 };
const SHAPE = { batch: 1, context: 4, training: false };
const WHY = "as it was destroyed, or the network, engine or model that it is of";

gpuTest("a tensor that was destroyed is refused wherever it is used, and is freed once", async (gpu) => {
  const [gone, there, sum] = ["gone", "there", "sum"].map((label) => gpu.tensor(label, [4]));
  const uniform = createUniform(gpu, "uniform", [["n", "u32"]]);
  const addition = await prepareResidual(gpu, { length: 4 });
  const record = () =>
    gpu.submit(
      "an addition",
      (recorder) => addition.forward(recorder, { a: gone, b: there, sum }),
    );
  record();
  const bytes = gpu.allocatedBytes;
  for (let n = 0; n < 2; n++) destroyTensor(gpu, gone);
  assertEquals(gpu.allocatedBytes, bytes - gone.byteLength, "freed once");
  uniform.destroy();
  for (
    const use of [
      () => gpu.write(gone, new Float32Array(4)),
      () => uniform.set({ n: 1 }),
      record,
      () => gpu.submit("a copy from it", (recorder) => recorder.copy(gone, there)),
      () => gpu.submit("a copy to it", (recorder) => recorder.copy(there, gone)),
      () => gpu.submit("a clearing", (recorder) => recorder.clear(gone)),
      () => gpu.submit("a copy to a buffer", (recorder) => recorder.copyToBuffer(gone, there.buffer)),
    ]
  ) assertThrows(use, RangeError, WHY);
  await assertRejects(() => gpu.read(gone), RangeError, WHY);
  await gpu.sync();
});

gpuTest("a network, an engine and a decoder that were destroyed say so, and others go on", async (gpu) => {
  const model = randomModel(gpu, CONFIG);
  const { parameters } = model;
  const [network, other] = [
    await prepareNetwork(gpu, CONFIG, SHAPE),
    await prepareNetwork(gpu, CONFIG, SHAPE),
  ];
  const [inputs, targets] = [Uint32Array.of(1, 2, 3, 4), new Uint32Array(4)];
  const runs = (one: typeof network) => {
    one.upload(inputs, targets);
    gpu.submit("a forward", (recorder) => one.forward(recorder, parameters, "dense"));
  };
  runs(network);
  network.destroy();
  assertThrows(() => network.upload(inputs, targets), RangeError, WHY);
  assertThrows(
    () => gpu.submit("a forward", (recorder) => network.forward(recorder, parameters, "dense")),
    RangeError,
    WHY,
  );
  assertThrows(() => gpu.submit("a head", (recorder) => network.head(recorder, parameters)), RangeError, WHY);

  const engine = await createCircuitEngine(gpu, model, {
    set: randomSet(CONFIG, { pairs: 2, positions: 4 }),
  });
  await engine.baselines();
  engine.destroy();
  const kept = new Uint8Array(engine.graph.edges);
  for (const use of [() => engine.baselines(), () => engine.run(kept), () => engine.patchNodes("noising")]) {
    await assertRejects(use, RangeError, WHY);
  }
  const interventions = await prepareInterventions(gpu, model, { batch: 1, positions: 4 });
  interventions.destroy();
  await assertRejects(() => interventions.run([[1, 2, 3, 4]]), RangeError, WHY);
  const decoder = await prepareDecoder(gpu, CONFIG);
  decoder.destroy();
  decoder.begin(parameters);
  await assertRejects(() => decoder.read([1, 2]), RangeError, WHY);
  runs(other);
  await gpu.sync();
  destroyParameters(gpu, parameters);
  assertThrows(() => runs(other), RangeError, WHY);
  other.destroy();
  await gpu.sync();
});
