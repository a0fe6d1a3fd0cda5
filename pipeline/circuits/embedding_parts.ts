/**
 * What tokens and positions each add to the residual stream, of a model whose embedding sums the two at once.
 *
 * @module
 */
import { allOrNothing } from "../../kernels/core/all_or_nothing.ts";
import type { Gpu } from "../../kernels/core/gpu.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import { destroyTensor, type Tensor } from "../../kernels/core/tensor.ts";
import { prepareEmbedding } from "../../kernels/embedding/op.ts";
import { prepareResidual } from "../../kernels/residual/op.ts";
import type { Parameters } from "../model/parameters.ts";
import type { Model } from "../model/trace.ts";

/** Compiled for one shape. */
export interface EmbeddingParts {
  /** What each adds [B · T, d], by TransformerLens's name. */
  readonly tensors: Readonly<Record<"hook_embed" | "hook_pos_embed", Tensor>>;
  /** Takes the tokens [B · T] of the next submissions. */
  upload(tokens: Uint32Array): void;
  /** Overwrites both tensors. */
  record(recorder: Recorder, parameters: Parameters): void;
  /** Overwrites `sum` by their sum. */
  add(recorder: Recorder, sum: Tensor): void;
  /** Frees what it holds on the device. */
  destroy(): void;
}

/** Compiles the parts of a model's embedding, which must have learned positions, for B × T. */
export function prepareEmbeddingParts(
  gpu: Gpu,
  model: Model,
  shape: { batch: number; positions: number },
): Promise<EmbeddingParts> {
  return allOrNothing(() => prepare(gpu, model, shape));
}

async function prepare(
  gpu: Gpu,
  { config: { vocabularySize, contextLength, width }, embed }: Model,
  { batch, positions }: { batch: number; positions: number },
): Promise<EmbeddingParts> {
  const { token, position } = embed.parameters;
  const of = (vocabularySize: number) =>
    prepareEmbedding(gpu, { batch, positions, vocabularySize, width, positionEmbedding: false });
  const [ofTokens, ofPositions] = [await of(vocabularySize), await of(contextLength)];
  const rows = batch * positions;
  const addition = await prepareResidual(gpu, { length: rows * width });
  const [tokens, learned] = ["tokens", "positions"].map((what) =>
    gpu.tensor(`embedding of ${what}`, [rows, width])
  );
  ofPositions.upload(Uint32Array.from({ length: rows }, (_, n) => n % positions));
  return {
    tensors: { hook_embed: tokens, hook_pos_embed: learned },
    upload: ofTokens.upload,
    record(recorder, parameters) {
      ofTokens.forward(recorder, { tokenEmbedding: parameters.get(token.name)!, x: tokens });
      ofPositions.forward(recorder, { tokenEmbedding: parameters.get(position.name)!, x: learned });
    },
    add: (recorder, sum) => addition.forward(recorder, { a: tokens, b: learned, sum }),
    destroy() {
      for (const tensor of [tokens, learned]) destroyTensor(gpu, tensor);
      for (const part of [ofTokens, ofPositions]) part.destroy();
    },
  };
}
