/**
 * Generating text: one token more, behind keys and values that are kept, beside the network on the whole text.
 *
 * @module
 */
import type { Gpu } from "../../../kernels/core/gpu.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { readModelConfig } from "../../../pipeline/model/config_file.ts";
import { prepareDecoder } from "../../../pipeline/model/decoder.ts";
import { openWeights } from "../../../pipeline/model/load_weights.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { destroyParameters, loadParameters } from "../../../pipeline/model/parameters.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { assertClose } from "../../support/compare.ts";
import { fill } from "../data.ts";
import { type BenchCase, candidate, type Peer } from "../harness.ts";

const ENGLISH = new URL("../../../data/english", import.meta.url).pathname;
/** Random weights give logits that are near 0, and nearly each other's: relatively this far off. Measured: 4e-7. */
const TOLERANCE = 1e-5;

/**
 * One token behind some positions, logits read back, with random weights; dense, since of random weights no gate is worth
 * looking at.
 *
 * @param read the weights; left out: random ones
 */
export async function generatingCase(
  gpu: Gpu,
  config: ModelConfig,
  positions: number,
  read = (name: string): Promise<Float32Array> => {
    const length = parametersOf(config).find((each) => each.name === name)!.shape.reduce((a, b) => a * b);
    return Promise.resolve(
      /norm|\bln_/.test(name) ? new Float32Array(length).fill(1) : fill(1, length, 0.02),
    );
  },
): Promise<BenchCase> {
  const parameters = await loadParameters(gpu, parametersOf(config), read);
  const text = Array.from({ length: positions }, (_, n) => (n * n) % config.vocabularySize);
  const decoder = await prepareDecoder(gpu, config);
  async function begin(): Promise<void> {
    decoder.begin(parameters);
    await decoder.read(text.slice(0, -1));
  }
  await begin();
  async function next(): Promise<Float32Array> {
    if (decoder.filled === decoder.positions) await begin();
    return await decoder.read([text.at(-1)!]);
  }
  async function whole(): Promise<Peer> {
    const network = await prepareNetwork(gpu, config, { batch: 1, context: positions, training: false });
    network.upload(Uint32Array.from(text), new Uint32Array(positions));
    const block = network.blocks.length - 1;
    const row = positions - 1 - network.blocks[block].first;
    const logits = async (): Promise<Float32Array> => {
      gpu.submit("the whole text", (recorder) => {
        network.forward(recorder, parameters, "dense");
        network.logits(recorder, parameters, block);
      });
      return await gpu.read(network.logitsTensor, row * network.logitsStride, config.vocabularySize);
    };
    return {
      ...candidate(async () => void await logits(), () => gpu.sync()),
      async check() {
        await begin();
        assertClose(await next(), await logits(), { tolerance: TOLERANCE, name: "logits" });
      },
      destroy: () => network.destroy(),
    };
  }
  return {
    tokens: 1,
    ours: candidate(async () => void await next(), () => gpu.sync()),
    peers: { "the whole text each time": whole },
    // The peer compares.
    check: () => Promise.resolve(),
    destroy() {
      decoder.destroy();
      destroyParameters(gpu, parameters);
    },
  };
}

/** The same with the embedded English model. */
export async function embeddedGeneratingCase(gpu: Gpu): Promise<BenchCase> {
  const config = await readModelConfig(ENGLISH);
  const weights = await openWeights(ENGLISH, config);
  return await generatingCase(gpu, config, 64, weights.read);
}
