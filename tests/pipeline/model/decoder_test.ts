/** A model that reads token by token says what the network says of the whole text: every family, dense and gated. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { type Decoder, prepareDecoder } from "../../../pipeline/model/decoder.ts";
import { type HeldShape, loadHeld, openHeld } from "../../../pipeline/model/held_weights.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { hardGates } from "../../../pipeline/model/gates.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { destroyParameters, loadParameters, type Parameters } from "../../../pipeline/model/parameters.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { seeded } from "../../support/seeded.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;
const FAMILIES = `${ROOT}tests/fixtures/families/`;
const MODELS = [
  ...Array.from(Deno.readDirSync(FAMILIES)).filter(({ isDirectory }) => isDirectory)
    .map(({ name }) => FAMILIES + name).toSorted(),
  `${ROOT}data/english`,
  `${ROOT}data/english-sparse`,
];
/** Of the logits of one position. */
const TOLERANCE = 5e-6;

async function open(gpu: Gpu, folder: string) {
  const config = await readModelConfig(folder);
  const weights = await openWeights(folder, config);
  return { config, parameters: await loadParameters(gpu, weights.parameters, weights.read) };
}

/** Logits of every position of a text, by the network [T, V]. */
async function wholeText(
  gpu: Gpu,
  { config, parameters }: { config: ModelConfig; parameters: Parameters },
  tokens: readonly number[],
  gateBias: number | undefined,
  held: HeldShape = {},
): Promise<Float32Array[]> {
  const context = tokens.length;
  const network = await prepareNetwork(gpu, config, { batch: 1, context, training: false, ...held });
  network.upload(Uint32Array.from(tokens), new Uint32Array(context));
  network.configureGates(hardGates(gateBias, 1));
  assertEquals(network.blocks.length, 1);
  gpu.submit("whole text", (recorder) => {
    network.forward(recorder, parameters, gateBias === undefined ? "dense" : "deterministic");
    network.logits(recorder, parameters, 0);
  });
  const logits = await gpu.read(network.logitsTensor);
  network.destroy();
  const at = (position: number): number => position * network.logitsStride;
  return tokens.map((_, position) => logits.slice(at(position), at(position) + config.vocabularySize));
}

const highest = (logits: Float32Array): number => logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));

/** Reads a prompt and then what it says itself, until it has no positions left. */
async function continued(decoder: Decoder, prompt: readonly number[]) {
  const tokens = [...prompt];
  const logits = [await decoder.read(prompt)];
  while (decoder.filled < decoder.positions) {
    tokens.push(highest(logits.at(-1)!));
    logits.push(await decoder.read([tokens.at(-1)!]));
  }
  return { tokens, logits };
}

for (const folder of MODELS) {
  const name = folder.slice(folder.lastIndexOf("/") + 1);
  gpuTest(
    `${name}: token by token, the likeliest next one each time, through growing room, it says what the network says`,
    async (gpu) => {
      const model = await open(gpu, folder);
      const { config, parameters } = model;
      const positions = Math.min(config.contextLength, 70);
      // Rooms of 3, 6, 12, 24, ...: of a prompt of 11, ten tokens are read at once.
      const decoder = await prepareDecoder(gpu, config, { positions, room: 3 });
      const random = seeded(5);
      const prompt = Array.from({ length: 11 }, () => random.integer(config.vocabularySize));
      const differ: number[][] = [];
      try {
        // One decoder takes both: nothing of the text before is seen.
        for (const gateBias of [undefined, config.gate?.bias ?? 0.3]) {
          decoder.begin(parameters, { gateBias });
          const { tokens, logits } = await continued(decoder, prompt);
          assertEquals([tokens.length, logits.length], [positions, positions - prompt.length + 1]);
          const want = await wholeText(gpu, model, tokens, gateBias);
          for (const [n, found] of logits.entries()) {
            const position = prompt.length - 1 + n;
            // Measured: at most 2.9e-6 (Qwen 2).
            assertClose(found, want[position], {
              tolerance: TOLERANCE,
              name: `logits of position ${position}`,
            });
            assertEquals(
              highest(want[position]),
              tokens[position + 1] ?? highest(found),
              `position ${position}`,
            );
          }
          differ.push([...logits.at(-1)!]);
        }
        assert(
          differ[0].some((value, n) => Math.abs(value - differ[1][n]) > 1e-3),
          "gates must close something",
        );
      } finally {
        decoder.destroy();
        destroyParameters(gpu, parameters);
      }
    },
  );
}

const ENGLISH = `${ROOT}data/english-sparse`;

gpuTest("a text read at once, in parts or token by token has the same logits, to the bit", async (gpu) => {
  const { config, parameters } = await open(gpu, ENGLISH);
  const decoder = await prepareDecoder(gpu, config, { room: 40 });
  const random = seeded(6);
  const text = Array.from({ length: 101 }, () => random.integer(config.vocabularySize));
  // 128 rows at once, of which 28 are of no token; parts that end among rows, and where no 16 fit any more.
  const parts = [[101], [1, 33, 2, 65], [100, 1], new Array(101).fill(1)];
  const found: Float32Array[] = [];
  for (const counts of parts) {
    decoder.begin(parameters, { gateBias: config.gate!.bias });
    let at = 0;
    let logits: Float32Array | undefined;
    for (const count of counts) logits = await decoder.read(text.slice(at, at += count));
    assertEquals([at, decoder.filled], [101, 101]);
    found.push(logits!);
  }
  for (const logits of found) assertEquals(logits, found[0]);
  decoder.begin(parameters, { gateBias: config.gate!.bias });
  await decoder.read(text.concat(text).slice(0, 119));
  const last = await decoder.read(text.slice(0, 9));
  assertEquals(decoder.filled, config.contextLength);
  const want = await wholeText(
    gpu,
    { config, parameters },
    text.concat(text).slice(0, 119).concat(text.slice(0, 9)),
    config.gate!.bias,
  );
  assertClose(last, want.at(-1)!, { tolerance: TOLERANCE, name: "logits of the last position" });
  decoder.destroy();
  destroyParameters(gpu, parameters);
});

gpuTest(
  "weights that lie as f16 or int8, an adapter beside them, say what they say in the network",
  async (gpu) => {
    const folder = FAMILIES + "llama";
    const config = await readModelConfig(folder);
    const tokens = [3, 1, 4, 15, 9, 2, 6, 5, 30, 5, 8, 9, 7, 9, 3, 2, 3, 8];
    const last: Float32Array[] = [];
    for (const frozen of ["f32", "f16", "int8"] as const) {
      const adapter = `${ROOT}tests/fixtures/lora/llama`;
      const weights = await openHeld(folder, config, { adapter, frozen });
      const said: string[] = [];
      const parameters = await loadHeld(gpu, weights, (message) => said.push(message));
      assertEquals(said.length, frozen === "f32" ? 0 : 1);
      const decoder = await prepareDecoder(gpu, config, { held: weights.shape });
      decoder.begin(parameters, { gateBias: 0.3 });
      const found = await decoder.read(tokens);
      const want = await wholeText(gpu, { config, parameters }, tokens, 0.3, weights.shape);
      assertClose(found, want.at(-1)!, { tolerance: TOLERANCE, name: `${frozen}: logits` });
      last.push(found);
      decoder.destroy();
      destroyParameters(gpu, parameters);
    }
    const [exact, half, int8] = last;
    // Measured: 1.7e-3 and 3.1e-2, of weights by chance.
    assertClose(half, exact, { tolerance: 2.5e-3, name: "f16" });
    assertClose(int8, exact, { tolerance: 4.5e-2, name: "int8" });
    assert(half.some((value, n) => value !== exact[n]) && int8.some((value, n) => value !== half[n]));
  },
);

gpuTest("rows of which nobody asks for logits have no room for them", async (gpu) => {
  const { config, parameters } = await open(gpu, ENGLISH);
  const decoder = await prepareDecoder(gpu, config);
  decoder.begin(parameters);
  await decoder.read([1]);
  const before = gpu.allocatedBytes;
  // 16 rows are prepared.
  await decoder.read(Array.from({ length: 17 }, (_, n) => n));
  const added = gpu.allocatedBytes - before;
  assert(added > 0 && added < 4 * 16 * config.vocabularySize, `${added} bytes`);
  decoder.destroy();
  destroyParameters(gpu, parameters);
});

Deno.test({
  name: "where bindings are small, logits come in slices and a layer's keys end where its binding does",
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    // 4 heads of 32 take 512 bytes a position; of the 4096 rows of 512 bytes 512 fit.
    const gpu = await Gpu.open({ maxBindingBytes: 262144 });
    try {
      const model = await open(gpu, ENGLISH);
      const decoder = await prepareDecoder(gpu, model.config);
      const tokens = [5, 900, 4000, 17];
      decoder.begin(model.parameters, { gateBias: model.config.gate!.bias });
      const found = await decoder.read(tokens);
      const want = await wholeText(gpu, model, tokens, model.config.gate!.bias);
      assertClose(found, want[3], { tolerance: TOLERANCE, name: "logits" });
      const longer = { ...model.config, contextLength: 1024 };
      assertEquals((await prepareDecoder(gpu, longer)).positions, 512);
    } finally {
      gpu.close();
    }
  },
});

gpuTest("what cannot be read is refused, and nothing of it counts as read", async (gpu) => {
  const { config, parameters } = await open(gpu, FAMILIES + "llama");
  for (const positions of [0, 33, 1.5]) {
    await assertRejects(
      () => prepareDecoder(gpu, config, { positions }),
      RangeError,
      `Cannot decode ${positions} positions as there must be 1 to the model's 32`,
    );
  }
  const decoder = await prepareDecoder(gpu, config, { positions: 4 });
  await assertRejects(() => decoder.read([1]), RangeError, "no text was begun");
  decoder.begin(parameters);
  await assertRejects(() => decoder.read([]), RangeError, "Cannot read 0 tokens behind 0");
  await assertRejects(() => decoder.read([1, 2, 3, 4, 5]), RangeError, "Cannot read 5 tokens behind 0");
  await assertRejects(() => decoder.read([1, 31]), RangeError, "the vocabulary has 31 entries: token 31");
  assertEquals(decoder.filled, 0);
  const stop = new AbortController();
  stop.abort();
  await assertRejects(() => decoder.read([1], stop.signal), DOMException);
  decoder.begin(parameters);
  await decoder.read([1, 2]);
  await assertRejects(() => decoder.read([1, 2, 3]), RangeError, "Cannot read 3 tokens behind 2");
  const logits = await decoder.read([3, 4]);
  decoder.begin(parameters);
  assertEquals(await decoder.read([1, 2, 3, 4]), logits);
  decoder.destroy();
  destroyParameters(gpu, parameters);
});

gpuTest("a decoder gives back all that it took", async (gpu) => {
  const { config, parameters } = await open(gpu, FAMILIES + "qwen3");
  const before = gpu.allocatedBytes;
  const decoder = await prepareDecoder(gpu, config, { room: 2 });
  decoder.begin(parameters, { gateBias: 0.3 });
  // Rooms of 2, 4, 8 and 23, the last for seven tokens and 16 rows.
  for (let token = 1; token <= 7; token++) await decoder.read([token]);
  await decoder.read([8, 9, 10]);
  assert(gpu.allocatedBytes > before);
  decoder.destroy();
  assertEquals(gpu.allocatedBytes, before);
  destroyParameters(gpu, parameters);
});
