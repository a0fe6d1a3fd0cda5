/** GPT-NeoX (arXiv 2204.06745), as Pythia: attention and MLP read the same residual stream. @module */
import type { Family } from "../family.ts";
import { rotaryFields, rotaryOf } from "./rotary.ts";

export const GPT_NEOX: Family = {
  type: "gpt_neox",
  architecture: "GPTNeoXForCausalLM",
  prefix: "gpt_neox",
  transposed: true,
  byHead: true,
  buffers: /attention\.(bias|masked_bias|rotary_emb\.inv_freq)$/,
  names: {
    token: "embed_in",
    final: "final_layer_norm",
    head: "embed_out",
    layers: "layers",
    attentionNorm: "input_layernorm",
    qkv: { name: "attention.query_key_value" },
    attentionOut: "attention.dense",
    mlpNorm: "post_attention_layernorm",
    mlpIn: { name: "mlp.dense_h_to_4h" },
    mlpOut: "mlp.dense_4h_to_h",
  },

  parse(fields) {
    fields.oneOf("hidden_act", ["gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"]);
    fields.oneOf("attention_bias", [true]);
    const [width, heads] = [fields.count("hidden_size"), fields.count("num_attention_heads")];
    if (width % heads !== 0) fields.fail("hidden_size", `a multiple of num_attention_heads, ${heads}`);
    const share = fields.positive("rotary_pct", 0.25);
    const theta = fields.positive("rotary_emb_base", 1e4);
    return {
      family: "gpt_neox",
      vocabularySize: fields.count("vocab_size"),
      contextLength: fields.count("max_position_embeddings"),
      width,
      layers: fields.count("num_hidden_layers"),
      heads,
      keyValueHeads: heads,
      headSize: width / heads,
      mlpWidth: fields.count("intermediate_size"),
      norm: { kind: "layer", affine: "both", epsilon: fields.positive("layer_norm_eps", 1e-5), at: "input" },
      positions: rotaryOf(fields, width / heads, { share, theta }),
      mlp: (fields.json.hidden_act ?? "gelu") === "gelu" ? "gelu" : "geluTanh",
      biases: { qkv: true, other: true },
      parallel: fields.flag("use_parallel_residual", true),
      tied: fields.flag("tie_word_embeddings", false),
    };
  },

  toJson(config) {
    const { vocabularySize, contextLength, width, layers, heads, mlpWidth } = config;
    const { norm, positions, mlp, parallel, tied } = config;
    const rotary = positions.kind === "rotary" ? positions : undefined;
    return {
      hidden_act: mlp === "gelu" ? "gelu" : "gelu_new",
      attention_bias: true,
      vocab_size: vocabularySize,
      max_position_embeddings: contextLength,
      hidden_size: width,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      intermediate_size: mlpWidth,
      layer_norm_eps: norm.epsilon,
      rotary_pct: rotary?.share,
      rotary_emb_base: rotary?.theta,
      ...rotaryFields(positions),
      use_parallel_residual: parallel,
      attention_dropout: 0,
      hidden_dropout: 0,
      tie_word_embeddings: tied,
    };
  },
};
