/** Embeddings on fixed inputs, against the float64 reference. @module */
import { ARITHMETIC, type Check, normals, upload } from "../core/check.ts";
import type { Gpu } from "../core/gpu.ts";
import { prepareEmbedding } from "./op.ts";
import { embeddingGradientReference, embeddingReference } from "./reference.ts";

/** With positions and without; a row has more vectors than a workgroup lanes. Tokens repeat, so that the gradient's scatter has something to add up. */
export async function embeddingCheck(gpu: Gpu): Promise<Check> {
  const [batch, positions, vocabularySize, width] = [2, 4, 7, 260];
  const tokens = Uint32Array.of(3, 6, 3, 0, 5, 3, 6, 1);
  const tokenEmbedding = normals(1, vocabularySize * width);
  const positionEmbedding = normals(2, positions * width);
  const dx = normals(3, tokens.length * width);
  const op = await prepareEmbedding(gpu, { batch, positions, vocabularySize, width });
  const tokensOnly = await prepareEmbedding(gpu, {
    batch,
    positions,
    vocabularySize,
    width,
    positionEmbedding: false,
  });
  for (const { upload } of [op, tokensOnly]) upload(tokens);
  const t = {
    tokenEmbedding: upload(gpu, "wte", tokenEmbedding, [vocabularySize, width]),
    positionEmbedding: upload(gpu, "wpe", positionEmbedding, [positions, width]),
    x: gpu.tensor("x", [tokens.length, width]),
    dx: upload(gpu, "dx", dx),
    dtokenEmbedding: gpu.tensor("dwte", [vocabularySize, width]),
    dpositionEmbedding: gpu.tensor("dwpe", [positions, width]),
  };
  const alone = { ...t, x: gpu.tensor("x", [tokens.length, width]) };
  const want = embeddingGradientReference(tokens, positions, vocabularySize, dx);
  return {
    record(recorder) {
      op.forward(recorder, t);
      op.backward(recorder, t);
      tokensOnly.forward(recorder, alone);
    },
    comparisons: [
      {
        operation: "embedding forward",
        outputs: [[t.x, embeddingReference(tokens, positions, width, tokenEmbedding, positionEmbedding)]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "embedding without positions",
        outputs: [[alone.x, embeddingReference(tokens, positions, width, tokenEmbedding)]],
        tolerance: ARITHMETIC,
      },
      {
        operation: "embedding backward",
        outputs: [[t.dtokenEmbedding, want.dtokenEmbedding], [t.dpositionEmbedding, want.dpositionEmbedding]],
        tolerance: ARITHMETIC,
      },
    ],
  };
}
