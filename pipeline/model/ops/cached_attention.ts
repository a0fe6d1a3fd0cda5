/** Gated attention of new positions of one layer to all before them. @module */
import {
  type CachedAttentionConfig,
  prepareCachedAttention,
} from "../../../kernels/gated_attention/cached_attention.ts";
import { cachedAttentionChecks } from "../../../kernels/gated_attention/check.ts";
import type { Op } from "../op.ts";

/**
 * y (batch, position, head, D) from x (batch, position, H + 2 K, D) and from what is kept of all positions before, `keys`
 * and `values` (position, batch, key head, D), which gain those of x.
 */
export function cachedAttention(
  of: Required<CachedAttentionConfig> & {
    /** New positions of each row. */
    positions: number;
  },
): Op {
  const { batch, keyValueHeads, headSize, half } = of;
  const ofPosition = { shape: [batch, keyValueHeads, headSize], half };
  return {
    key: `cached attention ${JSON.stringify(of)}`,
    kind: "attention",
    checks: cachedAttentionChecks({ headSize, half }),
    keeps: [],
    kept: { keys: ofPosition, values: ofPosition },
    async compile(gpu) {
      const { positions, ...config } = of;
      const layer = await prepareCachedAttention(gpu, config);
      let place = { filled: 0, count: positions, bias: 0 };
      layer.configure(place);
      return {
        forward(recorder, { x: qkv, y, keys, values }, { mode }) {
          if (mode === "sampled") throw new RangeError("Cannot sample gates where keys and values are kept");
          layer.append(recorder, { qkv, keys, values });
          layer.forward(recorder, mode, { qkv, keys, values, y });
        },
        startAt(filled) {
          place = { ...place, filled };
          layer.configure(place);
        },
        configureGates({ bias }) {
          place = { ...place, bias };
          layer.configure(place);
        },
        destroy: () => layer.destroy(),
      };
    },
  };
}
