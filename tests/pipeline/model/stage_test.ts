/** A model cut into stages on one device: what passes between them, and that the bits are those of the whole. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { destroyTensor, type Tensor } from "../../../kernels/core/tensor.ts";
import { prepareAdditionTo } from "../../../kernels/residual/op.ts";
import { adaptersFor } from "../../../pipeline/model/adapters.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { initialWeights } from "../../../pipeline/model/initial_weights.ts";
import { memoryNeeds } from "../../../pipeline/model/needs.ts";
import { type Network, prepareNetwork } from "../../../pipeline/model/network.ts";
import type { Parameter } from "../../../pipeline/model/op.ts";
import {
  createParameters,
  destroyParameters,
  loadParameters,
  type Parameters,
} from "../../../pipeline/model/parameters.ts";
import { type NetworkShape, planMemory } from "../../../pipeline/model/plan.ts";
import {
  inFlightOf,
  layersOf,
  type StageAction,
  stageActions,
  stageOf,
} from "../../../pipeline/model/stage.ts";
import { trace } from "../../../pipeline/model/trace.ts";
import { watchBuffers } from "../../support/device_memory.ts";
import { GPT2 } from "../../support/gpt2.ts";
import { gpuTest } from "../../support/gpu.ts";
import { choicesOf } from "../../support/tiny_model.ts";
import { seeded } from "../../support/seeded.ts";

const [BATCH, CONTEXT, MICRO_BATCHES] = [2, 8, 3];
const SIZES = { vocabularySize: 80, contextLength: 8, width: 16, layers: 3, heads: 2, mlpWidth: 24 };
const PLAIN = gpt2Config(SIZES);

/** A model of three layers that is otherwise as a fixture. */
async function like(fixture: string): Promise<ModelConfig> {
  return { ...PLAIN, ...await choicesOf(fixture) };
}

const ADAPTERS = (config: ModelConfig) =>
  adaptersFor(config, { rank: 4, alpha: 8, rankStabilised: false, targets: ["query", "value"] });

function load(gpu: Gpu, all: readonly Parameter[], own: readonly Parameter[]): Promise<Parameters> {
  return loadParameters(gpu, own, (name) => {
    const index = all.findIndex((parameter) => parameter.name === name);
    // B of an adapter begins at 0, which would give A no gradient.
    const parameter = all[index].adapter ? { ...all[index], initial: { deviation: 0.1 } } : all[index];
    return Promise.resolve(initialWeights(parameter, { seed: 5, index }).map((value) => 3 * value));
  });
}

/** Random tokens, so many to each. */
function microBatches({ batch, context }: NetworkShape) {
  const random = seeded(2);
  return Array.from({ length: MICRO_BATCHES }, () => {
    const tokens = () =>
      Uint32Array.from({ length: batch * context }, () => random.integer(SIZES.vocabularySize));
    return { inputs: tokens(), targets: tokens() };
  });
}

/** A network with its weights and gradients. */
interface Held {
  network: Network;
  parameters: Parameters;
  gradients: Parameters;
}

async function hold(gpu: Gpu, config: ModelConfig, shape: NetworkShape): Promise<Held> {
  const network = await prepareNetwork(gpu, config, shape);
  const { parameters, trained } = network.stage;
  return {
    network,
    parameters: await load(gpu, network.model.parameters, parameters),
    gradients: createParameters(gpu, trained.map(({ name, shape }) => ({ name, shape }))),
  };
}

function release(gpu: Gpu, { network, parameters, gradients }: Held): void {
  network.destroy();
  for (const set of [parameters, gradients]) destroyParameters(gpu, set);
}

/** Everything that training leaves, by name. */
type Result = Record<string, Float32Array>;

async function readAll(gpu: Gpu, held: readonly Held[]): Promise<Result> {
  const result: Result = {};
  for (const { gradients, network } of held) {
    for (const [name, gradient] of gradients) result[name] = await gpu.read(gradient);
    // A stage's sums of what it has no part in are 0.
    for (const name of ["totals", "distillationTotals", "headSums"] as const) {
      const values = await gpu.read(network[name]);
      result[name] = values.map((value, n) => value + (result[name]?.[n] ?? 0));
    }
  }
  return result;
}

const LOSS_SCALE = 0.7;

/** What a pass of a network needs. */
async function prepare(gpu: Gpu, batches: ReturnType<typeof microBatches>) {
  const [lossScale, edgeScale] = [gpu.tensor("loss scale", [1]), gpu.tensor("edge scale", [1])];
  gpu.write(lossScale, Float32Array.of(LOSS_SCALE));
  gpu.write(edgeScale, Float32Array.of(1 - LOSS_SCALE));
  const addTo = await prepareAdditionTo(gpu, {
    length: SIZES.vocabularySize * SIZES.width,
  });
  function upload({ network }: Held, n: number): void {
    network.upload(batches[n].inputs, batches[n].targets);
    network.configureGates({
      seed: 7,
      step: 3,
      firstRow: n * network.shape.batch * SIZES.heads,
      bias: 0.3,
      temperature: 0.8,
      saturationWeight: 0.1,
      saturationBound: 0.5,
      batchRows: network.shape.batch * MICRO_BATCHES,
    });
    network.configureLoss({ weight: 1 / (network.shape.batch * CONTEXT * MICRO_BATCHES), distill: 0.3 });
  }
  return { lossScale, edgeScale, addTo, upload };
}

/** All micro-batches by the whole model. */
async function trainWhole(gpu: Gpu, config: ModelConfig, shape: NetworkShape): Promise<Result> {
  const batches = microBatches(shape);
  const held = await hold(gpu, config, shape);
  const { lossScale, edgeScale, upload } = await prepare(gpu, batches);
  const { network, parameters, gradients } = held;
  for (const n of batches.keys()) {
    upload(held, n);
    gpu.submit("the whole", (recorder) => {
      if (shape.distill) {
        network.forward(recorder, parameters, "dense", { countEdges: false });
        network.keepAsTeacher(recorder);
      }
      network.forward(recorder, parameters, "sampled");
      network.head(recorder, parameters, {
        backward: { gradients, lossScale },
        teacher: shape.distill ? parameters : undefined,
      });
      network.backward(recorder, parameters, gradients, "sampled", edgeScale);
    });
  }
  const result = await readAll(gpu, [held]);
  release(gpu, held);
  return result;
}

/** Values on their way from one stage to another. */
class Mail {
  readonly #waiting = new Map<string, Tensor[]>();

  constructor(readonly gpu: Gpu) {}

  post(way: string, tensor: Tensor): void {
    const copy = this.gpu.tensor(way, tensor.shape);
    this.gpu.submit(way, (recorder) => recorder.copy(tensor, copy));
    this.#waiting.set(way, [...this.#waiting.get(way) ?? [], copy]);
  }

  has(way: string): boolean {
    return (this.#waiting.get(way)?.length ?? 0) > 0;
  }

  take(way: string, target: Tensor): void {
    const copy = this.#waiting.get(way)!.shift()!;
    this.gpu.submit(way, (recorder) => recorder.copy(copy, target));
    destroyTensor(this.gpu, copy);
  }
}

/** The same by stages, each with as many micro-batches in flight as its schedule has. */
async function trainStages(
  gpu: Gpu,
  config: ModelConfig,
  shape: NetworkShape,
  count: number,
): Promise<Result> {
  const batches = microBatches(shape);
  const { lossScale, edgeScale, addTo, upload } = await prepare(gpu, batches);
  const stages: Held[] = [];
  for (let index = 0; index < count; index++) {
    const inFlight = inFlightOf({ index, count }, MICRO_BATCHES);
    stages.push(await hold(gpu, config, { ...shape, stage: { index, count, inFlight } }));
  }
  const { model, stage: last } = stages.at(-1)!.network;
  const dhead = last.headIsElsewhere ? gpu.tensor("gradient of the head", model.head.shape) : undefined;
  const mail = new Mail(gpu);
  const passes = shape.distill ? ["dense", "sampled"] as const : ["sampled"] as const;

  function run(index: number, { kind, microBatch: n }: StageAction): void {
    const { network, parameters, gradients } = stages[index];
    network.select(n % network.shape.stage!.inFlight!);
    upload(stages[index], n);
    if (kind === "forward") {
      for (const mode of passes) {
        if (network.cut.input) mail.take(`to ${index}`, network.cut.input);
        gpu.submit("forward", (recorder) => {
          network.forward(recorder, parameters, mode, { countEdges: mode === "sampled" });
          if (mode === "dense" && network.stage.hasHead) network.keepAsTeacher(recorder);
        });
        if (network.cut.output) mail.post(`to ${index + 1}`, network.cut.output);
      }
      for (const block of network.stage.hasHead ? network.blocks.keys() : []) {
        gpu.submit("head", (recorder) => {
          if (dhead) recorder.clear(dhead);
          network.head(recorder, parameters, {
            backward: {
              gradients: dhead ? new Map([...gradients, [model.head.name, dhead]]) : gradients,
              lossScale,
            },
            teacher: shape.distill ? parameters : undefined,
            block,
          });
        });
        if (dhead) mail.post("head", dhead);
      }
      return;
    }
    if (network.cut.doutput) mail.take(`back to ${index}`, network.cut.doutput);
    if (index === 0 && dhead) {
      const part = gpu.tensor("part of the head's gradient", dhead.shape);
      for (const _ of stages.at(-1)!.network.blocks) {
        mail.take("head", part);
        gpu.submit(
          "head",
          (recorder) => addTo.record(recorder, { a: part, sum: gradients.get(model.head.name)! }),
        );
      }
      destroyTensor(gpu, part);
    }
    gpu.submit(
      "backward",
      (recorder) => network.backward(recorder, parameters, gradients, "sampled", edgeScale),
    );
    if (network.cut.dinput) mail.post(`back to ${index - 1}`, network.cut.dinput);
  }

  const left = stages.map((_, index) => stageActions({ index, count }, MICRO_BATCHES));
  while (left.some(({ length }) => length > 0)) {
    const ready = left.findIndex(([next], index) => {
      if (next?.kind === "forward") return index === 0 || mail.has(`to ${index}`);
      return next !== undefined && (index === count - 1 || mail.has(`back to ${index}`));
    });
    assert(ready >= 0, "no stage can go on");
    run(ready, left[ready].shift()!);
  }
  const result = await readAll(gpu, stages);
  if (dhead) destroyTensor(gpu, dhead);
  for (const held of stages) release(gpu, held);
  return result;
}

const TRAINING: NetworkShape = { batch: BATCH, context: CONTEXT, training: true };

for (
  const [what, fixture, others] of [
    ["GPT-2", undefined, {}],
    ["GPT-2 that computes activations anew", undefined, { recompute: true }],
    ["GPT-2 in half precision", undefined, { half: true }],
    ["GPT-2 with a teacher", undefined, { distill: true }],
    ["GPT-2 with its logits in blocks", undefined, { batch: 16, logitsBytes: 1 }],
    ["a model whose branches read one stream", "gpt_neox", {}],
    ["a model whose norms stand behind", "olmo2", {}],
    ["a model with grouped keys and a tied head", "qwen3", { recompute: true }],
    ["adapters", undefined, { train: "lora" }],
  ] as const
) {
  for (const count of [2, 3]) {
    gpuTest(`${what} in ${count} stages has the bits of the whole`, async (gpu) => {
      const config = fixture ? await like(fixture) : PLAIN;
      const shape: NetworkShape = {
        ...TRAINING,
        ...others,
        ...("train" in others ? { adapters: ADAPTERS(config) } : {}),
      };
      const whole = await trainWhole(gpu, config, shape);
      const cut = await trainStages(gpu, config, shape, count);
      assertEquals(Object.keys(cut).toSorted(), Object.keys(whole).toSorted());
      for (const [name, values] of Object.entries(whole)) {
        assertEquals(cut[name], values, name);
        const zero = name === "distillationTotals" && !shape.distill;
        assertEquals(values.some((value) => value !== 0), !zero, name);
      }
    });
  }
}

gpuTest("stages hold their own layers alone, and as much as was planned", async (gpu) => {
  for (const others of [{}, { recompute: true }, { half: true }]) {
    const shape: NetworkShape = { ...TRAINING, ...others };
    const whole = memoryNeeds(PLAIN, shape, gpu.maxBindingBytes);
    const weights: number[] = [];
    const table = 4 * SIZES.vocabularySize * SIZES.width;
    for (let index = 0; index < 3; index++) {
      const stage = { index, count: 3, inFlight: 3 - index };
      const planned = memoryNeeds(PLAIN, { ...shape, stage }, gpu.maxBindingBytes);
      weights.push(planned.weights);
      const before = gpu.allocatedBytes;
      using buffers = watchBuffers(gpu);
      const held = await hold(gpu, PLAIN, { ...shape, stage });
      assertEquals(buffers.created.filter((label) => /moment/.test(label)), []);
      const bytes = gpu.allocatedBytes - before;
      // Beside what is planned: tokens, losses and sums of each row and head.
      const small = 16 * BATCH * CONTEXT * 4 + 4 * 8 * SIZES.layers * SIZES.heads + 100;
      // What the last stage sends of a head's gradient, and the first receives, is their trainers'.
      const ofHead = index === 1 ? 0 : table;
      const expected = planned.total - planned.moments - ofHead;
      assert(bytes >= expected && bytes < expected + small, `${bytes} of stage ${index}: ${expected}`);
      release(gpu, held);
    }
    // The tied embedding lies at both ends.
    assertEquals(weights.reduce((a, b) => a + b), whole.weights + table);
  }
});

Deno.test("every layer is at one stage, and none has more than one layer more than another", () => {
  for (const layers of [1, 2, 3, 12, 32, 61]) {
    for (let count = 1; count <= Math.min(layers, 9); count++) {
      const of = Array.from({ length: count }, (_, index) => layersOf(layers, { index, count }));
      assertEquals(of.map(({ first }) => first), [0, ...of.slice(0, -1).map(({ end }) => end)]);
      assertEquals(of.at(-1)!.end, layers);
      const sizes = of.map(({ first, end }) => end - first);
      assert(Math.max(...sizes) - Math.min(...sizes) <= 1, sizes.join());
    }
  }
});

Deno.test("every parameter is trained at one stage, and read where its steps or the head are", () => {
  for (const tied of [true, false]) {
    const config = { ...GPT2, tied };
    const model = trace(config, { batch: 1, context: 1 });
    const stages = [0, 1, 2, 3].map((index) => stageOf(model, { index, count: 4 }));
    assertEquals(stages.flatMap(({ trained }) => trained), parametersOfStages(model, tied));
    assertEquals(stages.map(({ headIsElsewhere }) => headIsElsewhere), [false, false, false, tied]);
    assert(stages[3].parameters.includes(model.head));
    assertThrows(() => stageOf(model, { index: 4, count: 4 }), RangeError, "stage 4 of 4");
    assertThrows(() => stageOf(model, { index: 0, count: 13 }), RangeError, "12 layers");
  }
});

Deno.test("a stage goes through micro-batches in their order, with as many in flight as stages are behind it", () => {
  for (const count of [1, 2, 3, 5]) {
    for (const microBatches of [1, 2, 4, 9]) {
      for (let index = 0; index < count; index++) {
        const actions = stageActions({ index, count }, microBatches);
        for (const kind of ["forward", "backward"] as const) {
          assertEquals(
            actions.filter((action) => action.kind === kind).map(({ microBatch }) => microBatch),
            Array.from({ length: microBatches }, (_, n) => n),
          );
        }
        let [now, most] = [0, 0];
        for (const { kind } of actions) most = Math.max(most, now += kind === "forward" ? 1 : -1);
        assertEquals([now, most], [0, inFlightOf({ index, count }, microBatches)]);
        assertEquals(most, Math.min(count - index, microBatches));
      }
    }
  }
});

Deno.test("what waits for backward has a place for each micro-batch in flight, and nothing else has", () => {
  const shape: NetworkShape = { batch: 8, context: 1024, training: true };
  const bytes = (inFlight: number) => {
    const plan = planMemory(GPT2, { ...shape, stage: { index: 0, count: 4, inFlight } }, 1 << 30);
    const own = [...plan.tensors.values()].filter(({ buffersOfOthers }) => buffersOfOthers);
    assert(
      own.every(({ buffer, buffersOfOthers }) => new Set([buffer, ...buffersOfOthers!]).size === inFlight),
    );
    return plan.buffers.reduce((a, b) => a + b);
  };
  // As of the whole model (memory_plan_test.ts), of three layers.
  assertEquals(bytes(4) - bytes(3), 3 * 4 * 8 * 1024 * (16 * 768 + 4 + 12));
  assertEquals(bytes(3) - bytes(2), bytes(4) - bytes(3));
});

/** What all stages train, as the model has it. */
function parametersOfStages({ parameters, head }: ReturnType<typeof trace>, tied: boolean): Parameter[] {
  return tied ? [...parameters] : parameters.filter((parameter) => parameter !== head).concat(head);
}
