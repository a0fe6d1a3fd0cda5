/** How config.json tells of rotary positions, in both spellings of transformers. @module */
import { isObject } from "../../files.ts";
import type { ModelConfig } from "../config.ts";
import { Fields } from "../family.ts";

type Rotary = ModelConfig["positions"] & { kind: "rotary" };

/**
 * Reads `rope_parameters` (transformers 5), or `rope_theta` and `rope_scaling` (4).
 *
 * @param share of each head that turns
 */
export function rotaryOf(fields: Fields, headSize: number, { share = 1, theta = 1e4 } = {}): Rotary {
  const { json, path } = fields;
  const inner = json.rope_parameters ?? json.rope_scaling ?? {};
  const name = json.rope_parameters === undefined ? "rope_scaling" : "rope_parameters";
  if (!isObject(inner)) return fields.fail(name, "an object");
  const rope = new Fields({ ...inner, rope_theta: inner.rope_theta ?? json.rope_theta }, `${path}, ${name},`);
  const type = inner.rope_type ?? inner.type ?? "default";
  if (type !== "default" && type !== "llama3") {
    return new Fields({ rope_type: type }, rope.path).fail("rope_type", `"default" or "llama3"`);
  }
  const ofHead = rope.positive("partial_rotary_factor", share);
  const turned = Math.floor(ofHead * headSize);
  if (ofHead > 1 || turned % 2 !== 0 || turned < 2) {
    rope.fail("partial_rotary_factor", `a share of the head's ${headSize} that is even`);
  }
  return {
    kind: "rotary",
    theta: rope.positive("rope_theta", theta),
    share: ofHead,
    ...(type === "llama3"
      ? {
        scaling: {
          factor: rope.positive("factor"),
          low: rope.positive("low_freq_factor"),
          high: rope.positive("high_freq_factor"),
          original: rope.positive("original_max_position_embeddings"),
        },
      }
      : {}),
  };
}

/** Writes both spellings. */
export function rotaryFields(positions: ModelConfig["positions"]): Record<string, unknown> {
  if (positions.kind !== "rotary") return {};
  const { theta, share, scaling } = positions;
  const type = scaling ? "llama3" : "default";
  const scaled = scaling && {
    factor: scaling.factor,
    low_freq_factor: scaling.low,
    high_freq_factor: scaling.high,
    original_max_position_embeddings: scaling.original,
  };
  return {
    rope_theta: theta,
    rope_scaling: scaled ? { rope_type: type, ...scaled } : null,
    rope_parameters: {
      rope_type: type,
      rope_theta: theta,
      ...(share === 1 ? {} : { partial_rotary_factor: share }),
      ...scaled,
    },
  };
}
