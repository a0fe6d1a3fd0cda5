/** Gated attention of one layer. @module */
import { distanceCheck, gatedAttentionChecks } from "../../../kernels/gated_attention/check.ts";
import { type GatedAttentionConfig, prepareGatedAttention } from "../../../kernels/gated_attention/op.ts";
import {
  attentionGradientReference,
  attentionReference,
  type AttentionReferenceInput,
} from "../../../kernels/gated_attention/reference.ts";
import type { Op, ReferencePass } from "../op.ts";

/**
 * y (batch, position, head, D) from x (batch, position, H + 2 K, D), K key heads, H where `keyValueHeads` is left out;
 * `logSumExp` (batch, head, query) and `rowSums` (batch, head, query, 4) beside it. Backward adds the gradient of E, in which
 * edges weigh by `distancePower`, and alike where it is left out.
 */
export function attention(
  { keyValueHeads, ...rest }:
    & Required<Pick<GatedAttentionConfig, "batch" | "heads" | "positions" | "headSize" | "layer" | "half">>
    & Pick<GatedAttentionConfig, "keyValueHeads" | "distancePower">,
): Op {
  const of = { ...rest, keyValueHeads: keyValueHeads ?? rest.heads };
  const gateOf = ({ gateBias, isOpen, sampled }: ReferencePass): AttentionReferenceInput["gate"] => {
    const { layer, distancePower } = of;
    if (sampled) return { ...sampled, distancePower, noise: { ...sampled.noise, layer } };
    if (gateBias === undefined && !isOpen) return undefined;
    return {
      bias: gateBias ?? Number.MAX_VALUE,
      isOpen: isOpen &&
        ((head, query, key, gate) => isOpen({ layer, head, query, key }, gate)),
      temperature: 1,
      saturationBound: Number.MAX_VALUE,
      saturationWeight: 0,
      edgeGradient: 0,
    };
  };
  const inFloat64 = (qkv: ArrayLike<number>, pass: ReferencePass) => ({ ...of, qkv, gate: gateOf(pass) });
  return {
    key: `attention ${JSON.stringify(of)}`,
    kind: "attention",
    checks: [...gatedAttentionChecks(of), ...of.distancePower ? [distanceCheck(of)] : []],
    keeps: ["x", "y", "logSumExp"],
    reference: {
      forward: ({ x }, pass) => attentionReference(inFloat64(x, pass)).y,
      backward: ({ x, dy }, pass) => ({ x: attentionGradientReference(inFloat64(x, pass), dy) }),
    },
    scratch: { delta: [of.batch, of.heads, of.positions] },
    async compile(gpu, training) {
      const layer = await prepareGatedAttention(gpu, { ...of, training });
      return {
        forward(recorder, { x: qkv, y, logSumExp, rowSums }, { mode, headSums }) {
          layer.forward(recorder, mode, { qkv, y, logSumExp, rowSums });
          if (headSums) layer.sumHeads(recorder, { rowSums, headSums });
        },
        backward: (recorder, { x: qkv, y, logSumExp, dy, dx, delta }, _gradients, { mode, edgeScale }) =>
          layer.backward(recorder, mode, { qkv, y, logSumExp, dy, dqkv: dx!, delta, edgeScale: edgeScale! }),
        configureGates: (settings) => layer.configure(settings),
        configureRows: (rows) => layer.configureRows(rows),
        destroy: () => layer.destroy(),
      };
    },
  };
}
