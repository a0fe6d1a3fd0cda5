import { assert, assertEquals, assertThrows } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { prepareEmbedding, sortByToken } from "../../../kernels/embedding/op.ts";
import { embeddingGradientReference, embeddingReference } from "../../../kernels/embedding/reference.ts";
import { assertClose, relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals, seeded } from "../../support/seeded.ts";

Deno.test("the embedding reference's gradients agree with central differences", () => {
  const [positions, vocabularySize, width] = [3, 4, 2];
  const tokens = [1, 3, 1, 0, 3, 3];
  const wte = normals(1, vocabularySize * width);
  const wpe = normals(2, positions * width);
  const dx = normals(3, tokens.length * width);
  const objective = (wte: ArrayLike<number>, wpe: ArrayLike<number>) =>
    embeddingReference(tokens, positions, width, wte, wpe).reduce((sum, x, n) => sum + x * dx[n], 0);
  const { dtokenEmbedding, dpositionEmbedding } = embeddingGradientReference(
    tokens,
    positions,
    vocabularySize,
    dx,
  );
  const dwte = centralDifference((v) => objective(v, wpe), Float64Array.from(wte));
  const dwpe = centralDifference((v) => objective(wte, v), Float64Array.from(wpe));
  assert(relativeError(dtokenEmbedding, dwte) < 1e-8); // measured 1e-11
  assert(relativeError(dpositionEmbedding, dwpe) < 1e-8); // measured 1e-11
});

async function check(gpu: Gpu, [batch, positions, vocabularySize, width]: number[]) {
  const random = seeded(positions);
  const tokens = Uint32Array.from({ length: batch * positions }, () => random.integer(vocabularySize));
  const tokenEmbedding = normals(1, vocabularySize * width);
  const positionEmbedding = normals(2, (positions + 3) * width);
  const dx = normals(3, tokens.length * width);
  const op = await prepareEmbedding(gpu, { batch, positions, vocabularySize, width });
  const t = {
    tokenEmbedding: upload(gpu, "wte", tokenEmbedding, [vocabularySize, width]),
    positionEmbedding: upload(gpu, "wpe", positionEmbedding, [positions + 3, width]),
    x: poisoned(gpu, "x", [tokens.length, width]),
    dx: upload(gpu, "dx", dx),
    dtokenEmbedding: gpu.tensor("dwte", [vocabularySize, width]),
    dpositionEmbedding: gpu.tensor("dwpe", [positions + 3, width]),
  };
  op.upload(tokens);
  gpu.submit("embedding", (recorder) => {
    op.forward(recorder, t);
    op.backward(recorder, t);
  });
  const want = embeddingReference(tokens, positions, width, tokenEmbedding, positionEmbedding);
  assertEquals(await gpu.read(t.x), Float32Array.from(want));
  const gradient = embeddingGradientReference(tokens, positions, vocabularySize, dx);
  // Measured: 7e-8, from the order of the sums.
  assertClose(await gpu.read(t.dtokenEmbedding), gradient.dtokenEmbedding, { tolerance: 1e-6, name: "dwte" });
  const dwpe = await gpu.read(t.dpositionEmbedding);
  assertClose(dwpe.subarray(0, positions * width), gradient.dpositionEmbedding, {
    tolerance: 1e-6,
    name: "dwpe",
  });
  assert(dwpe.subarray(positions * width).every((value) => value === 0));
  return op;
}

gpuTest(
  "embedding forward and its scatter backward equal the reference, with tokens that repeat",
  async (gpu) => {
    for (const shape of [[1, 1, 1, 1], [2, 13, 5, 7], [3, 17, 300, 64], [2, 64, 11, 65]]) {
      await check(
        gpu,
        shape,
      );
    }
  },
);

Deno.test("a token embedding larger than a binding is read and added to in slices", async () => {
  const gpu = await Gpu.open({ maxBindingBytes: 16 * 1024 });
  try {
    await check(gpu, [2, 13, 131, 64]);
  } finally {
    gpu.close();
  }
});

gpuTest(
  "without an embedding of positions there is that of tokens alone, forward and backward",
  async (gpu) => {
    for (const [batch, positions, vocabularySize, width] of [[1, 1, 1, 1], [2, 13, 5, 7], [2, 64, 11, 68]]) {
      const random = seeded(positions);
      const tokens = Uint32Array.from({ length: batch * positions }, () => random.integer(vocabularySize));
      const tokenEmbedding = normals(1, vocabularySize * width);
      const dx = normals(3, tokens.length * width);
      const shape = { batch, positions, vocabularySize, width };
      const op = await prepareEmbedding(gpu, { ...shape, positionEmbedding: false });
      const t = {
        tokenEmbedding: upload(gpu, "wte", tokenEmbedding, [vocabularySize, width]),
        x: poisoned(gpu, "x", [tokens.length, width]),
        dx: upload(gpu, "dx", dx),
        dtokenEmbedding: gpu.tensor("dwte", [vocabularySize, width]),
      };
      op.upload(tokens);
      gpu.submit("embedding", (recorder) => {
        op.forward(recorder, t);
        op.backward(recorder, t);
      });
      const want = embeddingReference(tokens, positions, width, tokenEmbedding);
      assertEquals(await gpu.read(t.x), Float32Array.from(want));
      const { dtokenEmbedding } = embeddingGradientReference(tokens, positions, vocabularySize, dx);
      // Measured: 7e-8, from the order of the sums.
      assertClose(await gpu.read(t.dtokenEmbedding), dtokenEmbedding, { tolerance: 1e-6, name: "dwte" });
      op.destroy();
    }
  },
);

gpuTest("a frozen token embedding stored as f16 is read as what it holds", async (gpu) => {
  const [batch, positions, vocabularySize, width] = [2, 13, 40, 32];
  for (const positionEmbedding of [true, false]) {
    const tokens = Uint32Array.from({ length: batch * positions }, (_, n) => (7 * n) % vocabularySize);
    const op = await prepareEmbedding(gpu, {
      batch,
      positions,
      vocabularySize,
      width,
      positionEmbedding,
      half: true,
    });
    const ofPositions = normals(2, positions * width);
    const t = {
      tokenEmbedding: gpu.tensor("wte", [vocabularySize, width], "f16"),
      positionEmbedding: upload(gpu, "wpe", ofPositions, [positions, width]),
      x: poisoned(gpu, "x", [tokens.length, width]),
    };
    gpu.write(t.tokenEmbedding, normals(1, vocabularySize * width));
    op.upload(tokens);
    gpu.submit("embedding", (recorder) => op.forward(recorder, t));
    const table = await gpu.read(t.tokenEmbedding);
    const want = embeddingReference(
      tokens,
      positions,
      width,
      table,
      positionEmbedding ? ofPositions : undefined,
    );
    assertEquals(await gpu.read(t.x), Float32Array.from(want));
    op.destroy();
  }
});

gpuTest("rows that begin at a later position have the embeddings of theirs", async (gpu) => {
  const [batch, positions, vocabularySize, width, there] = [2, 3, 5, 8, 9];
  const tokens = Uint32Array.of(4, 0, 2, 2, 1, 3);
  const tokenEmbedding = normals(1, vocabularySize * width);
  const positionEmbedding = normals(2, there * width);
  const op = await prepareEmbedding(gpu, { batch, positions, vocabularySize, width });
  const t = {
    tokenEmbedding: upload(gpu, "wte", tokenEmbedding, [vocabularySize, width]),
    positionEmbedding: upload(gpu, "wpe", positionEmbedding, [there, width]),
    x: poisoned(gpu, "x", [tokens.length, width]),
  };
  op.upload(tokens);
  for (const start of [6, 1, 0]) {
    op.startAt(start);
    gpu.submit("embedding", (recorder) => op.forward(recorder, t));
    const theirs = positionEmbedding.subarray(start * width);
    const want = embeddingReference(tokens, positions, width, tokenEmbedding, theirs);
    assertEquals(await gpu.read(t.x), Float32Array.from(want));
  }
  for (const wrong of [-1, 0.5]) assertThrows(() => op.startAt(wrong), RangeError, `from 0: ${wrong}`);
  op.startAt(7);
  assertThrows(
    () => gpu.submit("embedding", (recorder) => op.forward(recorder, t)),
    RangeError,
    "Cannot embed 3 positions from 7 on as there are embeddings for 9",
  );
});

gpuTest("a token outside the vocabulary is refused", async (gpu) => {
  const op = await check(gpu, [1, 2, 5, 4]);
  assertThrows(() => op.upload(Uint32Array.of(0, 5)), RangeError, "token 5");
  assertThrows(() => op.upload(Uint32Array.of(0)), RangeError, "the batch holds 2");
});

Deno.test("positions are sorted by token and then by position, in one run for each token", () => {
  const { order, runs } = sortByToken(Uint32Array.of(7, 3, 7, 3, 9));
  assertEquals([...order], [1, 3, 0, 2, 4]);
  assertEquals([...runs.subarray(0, 12)], [3, 0, 2, 3, 7, 2, 4, 0, 9, 4, 5, 0]);
});
