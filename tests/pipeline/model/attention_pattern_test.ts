import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { UserError } from "../../../pipeline/errors.ts";
import {
  layerPattern,
  readAttention,
  type ReadAttentionOptions,
} from "../../../pipeline/model/attention_pattern.ts";
import { initialWeights } from "../../../pipeline/model/initial_weights.ts";
import { gpt2Config, type ModelConfig } from "../../../pipeline/model/config.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { createParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";

const CONFIG: ModelConfig = gpt2Config({
  vocabularySize: 50,
  contextLength: 16,
  width: 16,
  layers: 2,
  heads: 2,
  mlpWidth: 64,
});
const TOKENS = [3, 14, 15, 9, 26, 5];
const HEAD_SIZE = 8;

/**
 * A random network with weights large enough that gates at bias 0 are open here and closed there. Its logits are held in
 * blocks of 64 positions.
 */
async function randomNetwork(gpu: Gpu, context = 16, half = false, gate?: ModelConfig["gate"]) {
  const config = { ...CONFIG, contextLength: context, gate };
  const shape = { batch: 1, context, training: false, keep: true, logitsBytes: 1, half };
  const network = await prepareNetwork(gpu, config, shape);
  const shapes = parametersOf(config);
  const parameters = createParameters(gpu, shapes);
  await uploadParameters(gpu, parameters, (name) => {
    const index = shapes.findIndex((shape) => shape.name === name);
    const weights = initialWeights(shapes[index], { seed: 3, index });
    return Promise.resolve(weights.map((value) => 5 * value));
  });
  return { network, parameters };
}

const CASES = [
  { what: "dense" },
  { what: "gated", gateBias: 0 },
  { what: "gated, with bias -0.5", gateBias: -0.5 },
  { what: "dense, in f16", half: true },
  { what: "gated, in f16", gateBias: 0, half: true },
];

for (const { what, gateBias, half = false } of CASES) {
  gpuTest(
    `${what}: weights times values give what the device's attention gave, and the same edges are open`,
    async (gpu) => {
      const { network, parameters } = await randomNetwork(gpu, 16, half);
      const { layers } = await readAttention(gpu, network, parameters, TOKENS, { gateBias });
      let open = 0;
      for (const [layer, { weights, gates }] of layers.entries()) {
        const read = (name: string) => gpu.read(network.activations.get(`blocks.${layer}.attn.${name}`)!);
        const [qkv, z, sums] = [await read("hook_qkv"), await read("hook_z"), await read("row_sums")];
        const length = TOKENS.length;
        const expected = new Float64Array(length * CONFIG.width);
        for (let head = 0; head < 2; head++) {
          for (let i = 0; i < length; i++) {
            let opened = 0;
            for (let j = 0; j < length; j++) {
              const at = (head * length + i) * length + j;
              if (j > i) assertEquals(weights[at], 0);
              if (gateBias !== undefined && j <= i && gates[at] > 0) opened++;
              for (let d = 0; d < HEAD_SIZE; d++) {
                const value = qkv[((j * 3 + 2) * 2 + head) * HEAD_SIZE + d];
                expected[(i * 2 + head) * HEAD_SIZE + d] += weights[at] * value;
              }
            }
            if (gateBias !== undefined) {
              assertEquals(opened, sums[(head * 16 + i) * 4 + 1], `head ${head}, query ${i}`);
            }
            open += opened;
          }
        }
        // Measured in the first layer: 1.3e-7, and in f16, in which z is stored, 1.8e-4.
        assertClose(z.subarray(0, length * CONFIG.width), expected, {
          tolerance: half ? 1e-3 : 2e-6,
          name: `z of layer ${layer}`,
        });
      }
      if (gateBias !== undefined) {
        assert(open > 10 && open < 80, `some gates are open and some closed: ${open} of 84`);
      }
    },
  );
}

for (const [where, length, blocks] of [["the first", 6, 1], ["the last", 68, 2]] as const) {
  gpuTest(
    `the next token's log-probabilities are those of the prompt's last position, in ${where} block`,
    async (gpu) => {
      const context = 64 * blocks - 48;
      const { network, parameters } = await randomNetwork(gpu, context);
      assertEquals(network.blocks.length, blocks);
      const tokens = Array.from({ length }, (_, n) => (7 * n + 3) % CONFIG.vocabularySize);
      const { next } = await readAttention(gpu, network, parameters, tokens);
      const total = next.reduce((sum, logProbability) => sum + Math.exp(logProbability), 0);
      assertClose([total], [1], { tolerance: 1e-6, name: "sum of probabilities" });
      // The loss kernel says the same of a target at that position.
      const inputs = new Uint32Array(context);
      inputs.set(tokens);
      const targets = new Uint32Array(context).fill(0xffffffff);
      targets[length - 1] = 7;
      network.upload(inputs, targets);
      gpu.submit("loss", (recorder) => {
        network.forward(recorder, parameters, "dense");
        network.head(recorder, parameters);
      });
      const rows = await gpu.read(network.lossRows);
      assertClose([-next[7]], [rows[4 * (length - 1)]], { tolerance: 1e-6, name: "cross-entropy" });
    },
  );
}

gpuTest("attention is read through the model's own gates, unless others are named or none", async (gpu) => {
  const { network: plain, parameters } = await randomNetwork(gpu);
  const { network } = await randomNetwork(gpu, 16, false, { bias: -0.5, temperature: 1 });
  const read = (of: typeof network, options?: ReadAttentionOptions) =>
    readAttention(gpu, of, parameters, TOKENS, options);
  const own = await read(network);
  assertEquals(own, await read(plain, { gateBias: -0.5 }));
  assertEquals(own, await read(network, { dense: false }));
  assertEquals(await read(network, { gateBias: 0 }), await read(plain, { gateBias: 0 }));
  const dense = await read(network, { dense: true });
  assertEquals(dense, await read(plain));
  assertNotEquals(dense.next, own.next);
  const refused = (options: unknown, message: string) =>
    assertRejects(() => read(network, options as ReadAttentionOptions), UserError, message);
  await refused(-0.5, "its options must be an object: -0.5");
  await refused(null, "its options must be an object: null");
  await refused({ Dense: true }, "no unknown key: Dense (did you mean dense?)");
  await refused({ gateBias: "3" }, '`gateBias` must be a finite number: "3"');
  await refused({ gateBias: 3, dense: true }, "`gateBias` must be left out where it is dense: 3");
});

gpuTest("no token, and more tokens than positions, are refused", async (gpu) => {
  const { network, parameters } = await randomNetwork(gpu);
  for (const tokens of [[], new Array(17).fill(1)]) {
    await assertRejects(
      () => readAttention(gpu, network, parameters, tokens),
      RangeError,
      `${tokens.length} tokens`,
    );
  }
});

Deno.test("a gate closes without renormalising, and at 0 it is closed", () => {
  // One head of size 1: queries and keys chosen so that the scores of query 1 are 0 and ln 3.
  const qkv = [0, 0, 1, 1, Math.log(3), 1];
  const dense = layerPattern(qkv, { heads: 1, headSize: 1, length: 2 });
  assertClose(dense.weights, [1, 0, 0.25, 0.75], { tolerance: 1e-7, name: "dense weights" });
  const gated = layerPattern(qkv, { heads: 1, headSize: 1, length: 2, gateBias: 0 });
  assertClose(gated.weights, [0, 0, 0, 0.75], { tolerance: 1e-7, name: "gated weights" });
  assertClose(gated.gates, [0, 0, 0, Math.log(3)], { tolerance: 1e-7, name: "gate logits" });
});
