/** GPT-2 (Radford et al. 2019). @module */
import { gpt2Config } from "../config.ts";
import type { Family } from "../family.ts";

export const GPT2: Family = {
  type: "gpt2",
  architecture: "GPT2LMHeadModel",
  prefix: "transformer",
  transposed: false,
  // Causal masks that old files carry as tensors.
  buffers: /^h\.\d+\.attn\.(masked_)?bias$/,
  names: {
    token: "wte",
    position: "wpe",
    final: "ln_f",
    head: "lm_head",
    layers: "h",
    attentionNorm: "ln_1",
    qkv: { name: "attn.c_attn" },
    attentionOut: "attn.c_proj",
    mlpNorm: "ln_2",
    mlpIn: { name: "mlp.c_fc" },
    mlpOut: "mlp.c_proj",
  },

  parse(fields) {
    fields.oneOf("activation_function", ["gelu_new", "gelu_pytorch_tanh", "gelu_fast"]);
    fields.oneOf("scale_attn_weights", [true]);
    fields.oneOf("scale_attn_by_inverse_layer_idx", [false]);
    const [width, heads] = [fields.count("n_embd"), fields.count("n_head")];
    if (width % heads !== 0) fields.fail("n_embd", `a multiple of n_head, ${heads}`);
    return gpt2Config({
      vocabularySize: fields.count("vocab_size"),
      contextLength: fields.count("n_positions", fields.json.n_ctx as number | undefined),
      width,
      layers: fields.count("n_layer"),
      heads,
      mlpWidth: fields.count("n_inner", 4 * width),
      epsilon: fields.positive("layer_norm_epsilon", 1e-5),
      tied: fields.flag("tie_word_embeddings", true),
    });
  },

  toJson: ({ vocabularySize, contextLength, width, layers, heads, mlpWidth, norm, tied }) => ({
    activation_function: "gelu_new",
    vocab_size: vocabularySize,
    n_positions: contextLength,
    n_embd: width,
    n_layer: layers,
    n_head: heads,
    n_inner: mlpWidth === 4 * width ? null : mlpWidth,
    layer_norm_epsilon: norm.epsilon,
    attn_pdrop: 0,
    embd_pdrop: 0,
    resid_pdrop: 0,
    scale_attn_weights: true,
    tie_word_embeddings: tied,
  }),
};
