/**
 * The training step of a small gated GPT-2 in jax-js: forward, gradient and AdamW in one compiled function.
 *
 * @module
 */
import { type Array as JaxArray, jit, nn, numpy as np, valueAndGrad } from "@jax-js/jax";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { jaxGatedAttention } from "./jax.ts";

type Weights = Record<string, JaxArray>;

/** Inputs of a step that are not weights. */
export interface JaxBatch {
  /** One-hot tokens [B T, V]: lookups as products, whose gradients it has. */
  inputs: JaxArray;
  targets: JaxArray;
  /** [B H, T, T] for each layer. */
  noise: JaxArray[];
  /** 0 where j ≤ i, else −1e9, [T, T]. */
  causal: JaxArray;
}

const keep = (array: JaxArray): JaxArray => array.ref;

function layerNorm(x: JaxArray, weight: JaxArray, bias: JaxArray, epsilon: number): JaxArray {
  const centred = x.ref.sub(np.mean(x, -1, { keepdims: true }));
  const variance = np.mean(np.square(centred.ref), -1, { keepdims: true });
  return centred.div(np.sqrt(variance.add(epsilon))).mul(weight).add(bias);
}

function gelu(x: JaxArray): JaxArray {
  const inner = x.ref.add(x.ref.mul(x.ref).mul(x.ref).mul(0.044715)).mul(Math.sqrt(2 / Math.PI));
  return x.mul(0.5).mul(np.tanh(inner).add(1));
}

/** Cross-entropy and the whole objective (E + λ CE) / (1 + λ). */
function objective(
  weights: Weights,
  { inputs, targets, noise, causal }: JaxBatch,
  config: ModelConfig,
  shape: { batch: number; context: number; bias: number; lambda: number },
): JaxArray {
  const { layers, heads, width } = config;
  const { batch: B, context: T, bias, lambda } = shape;
  const headSize = width / heads;
  const w = (name: string): JaxArray => keep(weights[name]);
  const pairs = layers * B * heads * T * (T + 1) / 2;
  let x = np.matmul(inputs, w("wte.weight")).reshape([B, T, width]).add(w("wpe.weight").slice([0, T]))
    .reshape([B * T, width]);
  let open: JaxArray = np.array(0);
  for (let layer = 0; layer < layers; layer++) {
    const h = `h.${layer}.`;
    const linear = (x: JaxArray, name: string): JaxArray =>
      np.matmul(x, w(`${h}${name}.weight`)).add(w(`${h}${name}.bias`));
    const norm = (x: JaxArray, name: string): JaxArray =>
      layerNorm(x, w(`${h}${name}.weight`), w(`${h}${name}.bias`), config.norm.epsilon);
    const qkv = linear(norm(keep(x), "ln_1"), "attn.c_attn").reshape([B, T, 3, heads, headSize]);
    const part = (index: number): JaxArray =>
      np.transpose(keep(qkv).slice([], [], index), [0, 2, 1, 3]).reshape([B * heads, T, headSize]);
    const { y, open: opened } = jaxGatedAttention(
      { q: part(0), k: part(1), v: part(2), noise: noise[layer], causal: keep(causal) },
      { headSize, bias, pairs },
    );
    open = open.add(opened);
    const z = np.transpose(y.reshape([B, heads, T, headSize]), [0, 2, 1, 3]).reshape([B * T, width]);
    x = x.add(linear(z, "attn.c_proj"));
    x = keep(x).add(linear(gelu(linear(norm(x, "ln_2"), "mlp.c_fc")), "mlp.c_proj"));
    qkv.dispose();
  }
  const final = layerNorm(x, w("ln_f.weight"), w("ln_f.bias"), config.norm.epsilon);
  const logits = np.matmul(final, np.transpose(w("wte.weight")));
  const ce = nn.logSoftmax(logits, -1).mul(targets).sum().mul(-1 / (B * T));
  return ce.mul(lambda / (1 + lambda)).add(open.mul(1 / (1 + lambda)));
}

/** What one step returns; give it to the next. */
export type JaxState = {
  weights: Weights;
  first: Weights;
  second: Weights;
  loss: JaxArray;
};

/** Compiles the step. */
export function jaxTrainingStep(
  config: ModelConfig,
  shape: { batch: number; context: number; bias: number; lambda: number; learningRate: number },
): (state: Omit<JaxState, "loss">, batch: JaxBatch) => JaxState {
  const { learningRate } = shape;
  const [beta1, beta2, epsilon] = [0.9, 0.99, 1e-8];
  const step = (weights: Weights, first: Weights, second: Weights, batch: JaxBatch): JaxState => {
    const kept = Object.fromEntries(Object.entries(weights).map(([name, array]) => [name, keep(array)]));
    const [loss, gradients] = valueAndGrad((of: Weights) => objective(of, batch, config, shape))(kept);
    const next: JaxState = { weights: {}, first: {}, second: {}, loss };
    for (const name of Object.keys(weights)) {
      const gradient = gradients[name];
      next.first[name] = first[name].mul(beta1).add(keep(gradient).mul(1 - beta1));
      next.second[name] = second[name].mul(beta2).add(np.square(gradient).mul(1 - beta2));
      const update = keep(next.first[name]).div(np.sqrt(keep(next.second[name])).add(epsilon));
      next.weights[name] = weights[name].sub(update.mul(learningRate));
    }
    return next;
  };
  const compiled = jit(step) as (...args: Parameters<typeof step>) => JaxState;
  return ({ weights, first, second }, batch) => compiled(weights, first, second, batch);
}
