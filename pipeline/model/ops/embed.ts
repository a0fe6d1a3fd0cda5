/** Tokens, and positions where they have vectors of their own, to vectors. @module */
import { embeddingCheck } from "../../../kernels/embedding/check.ts";
import { prepareEmbedding } from "../../../kernels/embedding/op.ts";
import { embeddingGradientReference, embeddingReference } from "../../../kernels/embedding/reference.ts";
import type { Op } from "../op.ts";

/** y [B · T, d] = token, plus position unless `positionEmbedding` is false. */
export function embed(
  of: {
    batch: number;
    positions: number;
    vocabularySize: number;
    width: number;
    positionEmbedding?: boolean;
    /** Whether the token embedding is f16. */
    half?: boolean;
  },
): Op {
  return {
    key: `embed ${JSON.stringify(of)}`,
    kind: "embed",
    checks: [embeddingCheck],
    keeps: [],
    reference: {
      forward: ({ token, position }, { tokens }) =>
        embeddingReference(tokens!, of.positions, of.width, token, position),
      backward({ position, dy }, { tokens }) {
        const { positions, vocabularySize } = of;
        const found = embeddingGradientReference(tokens!, positions, vocabularySize, dy);
        const gradients: Record<string, Float64Array> = { token: found.dtokenEmbedding };
        if (position) {
          // Positions behind the context have a gradient of 0.
          gradients.position = new Float64Array(position.length);
          gradients.position.set(found.dpositionEmbedding);
        }
        return gradients;
      },
    },
    async compile(gpu) {
      const compiled = await prepareEmbedding(gpu, of);
      return {
        forward: (recorder, { token, position, y }) =>
          compiled.forward(recorder, { tokenEmbedding: token, positionEmbedding: position, x: y }),
        backward: (recorder, { dy }, gradients) => {
          // Both are trained, or neither.
          if (!gradients?.token) return;
          compiled.backward(recorder, {
            dx: dy,
            dtokenEmbedding: gradients.token,
            dpositionEmbedding: gradients.position,
          });
        },
        upload: (tokens) => compiled.upload(tokens),
        startAt: (position) => compiled.startAt(position),
        destroy: () => compiled.destroy(),
      };
    },
  };
}
