/**
 * One layer of OLMo-7B's and of Llama-3.2-1B's true widths, forward and backward of 1 × 128 tokens, against transformers'
 * in float64 (tests/fixtures/wide_layers), on no more than the bindings that every adapter has: weights, their gradients
 * and the head are larger.
 */
import { assert, assertEquals } from "@std/assert";
import { crc32 } from "node:zlib";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { elementsOf } from "../../../kernels/core/tensor.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { type StoredParameter, storedParameters } from "../../../pipeline/model/stored.ts";
import { PORTABLE_BINDING_BYTES } from "../../../pipeline/training/memory_budget.ts";
import { assertClose } from "../../support/compare.ts";
import { upload } from "../../support/gpu.ts";

const FIXTURES = new URL("../../fixtures/", import.meta.url).pathname;
const [T, SAMPLES] = [128, 96];

interface Sample {
  norm: number;
  values: number[];
}

interface Fixture {
  vocabulary: number;
  loss: number;
  logits: Sample;
  gradients: Record<string, Sample>;
}

/** The hash "lowbias32" (Wellons, 2018) of a uint32. */
function hashed(n: number): number {
  n ^= n >>> 16;
  n = Math.imul(n, 0x7feb352d);
  n ^= n >>> 15;
  n = Math.imul(n, 0x846ca68b);
  return (n ^ (n >>> 16)) >>> 0;
}

/** A parameter's values, each from its place in its tensor as make.py has it: matrices are [out, in] there. */
function valuesOf({ parameter: { kind, shape }, tensors }: StoredParameter): Float32Array {
  const columns = shape.at(-1)!;
  const rows = shape.length === 2 ? shape[0] : 1;
  const values = new Float32Array(rows * columns);
  const isVector = kind === "vector";
  let first = 0;
  for (const { savedAs, shape: theirs } of tensors) {
    const key = crc32(savedAs);
    const scale = isVector ? 0.125 : 2 ** Math.round(Math.log2(Math.sqrt(3 / theirs[1])));
    const [ofRow, ofColumn] = kind === "matrix" ? [1, rows] : [columns, 1];
    const count = kind === "matrix" ? theirs[0] : columns;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < count; column++) {
        const uniform = (hashed((row * ofRow + column * ofColumn) ^ key) >>> 8) / 2 ** 23 - 1;
        values[row * columns + first + column] = isVector ? 1 + scale * uniform : scale * uniform;
      }
    }
    first += count;
  }
  return values;
}

/** Samples of the n-th of the tensors that a parameter is made of, and its norm. */
function sampleOf(
  { parameter: { kind, shape }, tensors }: StoredParameter,
  n: number,
  values: Float32Array,
  tokens: Uint32Array,
): Sample {
  const { savedAs, shape: theirs } = tensors[n];
  const columns = shape.at(-1)!;
  const isMatrix = kind === "matrix";
  const first = isMatrix ? tensors.slice(0, n).reduce((sum, { shape }) => sum + shape[0], 0) : 0;
  const count = isMatrix ? theirs[0] : columns;
  const sampled = placesIn(savedAs, theirs, tokens).map((place) =>
    isMatrix ? values[place % theirs[1] * columns + first + Math.floor(place / theirs[1])] : values[place]
  );
  let sum = 0;
  for (let row = 0; row < values.length; row += columns) {
    for (let at = row + first; at < row + first + count; at++) sum += values[at] * values[at];
  }
  return { norm: Math.sqrt(sum), values: sampled };
}

const tokensOf = (name: string, vocabulary: number): Uint32Array =>
  Uint32Array.from({ length: T }, (_, n) => hashed(n ^ crc32(name)) % vocabulary);

/** Where a tensor was sampled; see make.py. */
function placesIn(name: string, shape: readonly number[], rows: Uint32Array): number[] {
  const key = crc32(name) ^ 0xffffffff;
  const length = elementsOf(shape);
  const places = Array.from({ length: SAMPLES - 2 }, (_, n) => hashed(n ^ key) % length);
  const among = name.includes("embed_tokens")
    ? places.map((place, n) => rows[n % rows.length] * shape[1] + place % shape[1])
    : places;
  return [0, length - 1, ...among];
}

/** Relative errors. Measured: 4.6e-6 of samples (the gradient of OLMo's queries), 1.3e-7 of norms and losses. */
const TOLERANCE = 1e-5;

for (const model of ["OLMo-7B-hf", "Llama-3.2-1B"]) {
  Deno.test(`a layer of ${model}'s width: logits, loss and gradients are transformers'`, async () => {
    const fixture: Fixture = JSON.parse(await Deno.readTextFile(`${FIXTURES}wide_layers/${model}.json`));
    const { vocabulary } = fixture;
    const config = {
      ...await readModelConfig(`${FIXTURES}configs/${model}`),
      layers: 1,
      vocabularySize: vocabulary,
    };
    const stored = storedParameters(config);
    const gpu = await Gpu.open({ maxBindingBytes: PORTABLE_BINDING_BYTES });
    try {
      const shapes = stored.map(({ parameter }) => parameter);
      const sizes = shapes.map(({ shape }) => 4 * elementsOf(shape));
      assert(Math.max(...sizes) > gpu.maxBindingBytes);
      const network = await prepareNetwork(gpu, config, { batch: 1, context: T, training: true });
      const parameters = createParameters(gpu, shapes);
      await uploadParameters(gpu, parameters, (name) => {
        return Promise.resolve(valuesOf(stored.find(({ parameter }) => parameter.name === name)!));
      });
      const gradients = createParameters(gpu, shapes, "gradient of ");
      const [inputs, targets] = ["inputs", "targets"].map((name) => tokensOf(name, vocabulary));
      network.upload(inputs, targets);
      network.configureLoss({ weight: 1 / T });
      const one = upload(gpu, "scale", new Float32Array([1]));

      gpu.submit("forward", (recorder) => network.forward(recorder, parameters, "dense"));
      gpu.submit("logits", (recorder) => network.logits(recorder, parameters, 0));
      assertEquals(network.blocks.length, 1);
      const logits = await gpu.read(network.logitsTensor);
      const compare = (name: string, found: Sample, want: Sample): void => {
        assertClose(found.values, want.values, { tolerance: TOLERANCE, name: `samples of ${name}` });
        assertClose([found.norm], [want.norm], { tolerance: TOLERANCE, name: `the norm of ${name}` });
      };
      compare("logits", {
        values: placesIn("logits", [T, vocabulary], inputs).map((place) => logits[place]),
        norm: Math.sqrt(logits.reduce((sum, x) => sum + x * x, 0)),
      }, fixture.logits);
      gpu.submit(
        "head",
        (recorder) => network.head(recorder, parameters, { backward: { gradients, lossScale: one } }),
      );
      gpu.submit("backward", (recorder) => network.backward(recorder, parameters, gradients, "dense", one));
      const [ce, , , count] = await gpu.read(network.totals);
      assertClose([ce / count], [fixture.loss], { tolerance: TOLERANCE, name: "the loss" });
      const seen: string[] = [];
      for (const group of stored) {
        const values = await gpu.read(gradients.get(group.parameter.name)!);
        for (const [n, { savedAs }] of group.tensors.entries()) {
          compare(savedAs, sampleOf(group, n, values, inputs), fixture.gradients[savedAs]);
          seen.push(savedAs);
        }
      }
      assertEquals(seen.toSorted(), Object.keys(fixture.gradients).toSorted());
    } finally {
      gpu.close();
    }
  });
}
