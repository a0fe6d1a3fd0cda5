import { assert, assertEquals, assertRejects } from "@std/assert";
import { prepareClip } from "../../../kernels/clip/op.ts";
import { clipGradientReference, clipReference } from "../../../kernels/clip/reference.ts";
import { roundingReference } from "../../../kernels/rounding/reference.ts";
import { relativeError } from "../../support/compare.ts";
import { centralDifference } from "../../support/gradient_check.ts";
import { gpuTest, poisoned, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

Deno.test("the clip reference's gradient agrees with central differences", () => {
  const x = normals(1, 50, 2);
  const dy = normals(2, 50);
  const numeric = centralDifference(
    (v) => clipReference(v, 1.5).reduce((sum, y, n) => sum + y * dy[n], 0),
    Float64Array.from(x),
  );
  assert(relativeError(clipGradientReference(x, dy, 1.5), numeric) < 1e-8); // measured 4e-11
});

gpuTest(
  "clip forward and backward are the reference's bits, at the limit too and at awkward lengths",
  async (gpu) => {
    for (const length of [1, 63, 64, 65, 1009, 1012]) {
      for (const half of length % 4 === 0 ? [false, true] : [false]) {
        const x = normals(length, length, 2);
        x.set([1.5, -1.5, 1e30].slice(0, length));
        const dy = normals(length + 1, length);
        const op = await prepareClip(gpu, { length, limit: 1.5, half });
        const type = half ? "f16" : "f32";
        const t = {
          x: gpu.tensor("x", [length], type),
          dy: upload(gpu, "dy", dy),
          y: gpu.tensor("y", [length], type),
          dx: poisoned(gpu, "dx", [length]),
        };
        gpu.write(t.x, x);
        gpu.submit("clip", (recorder) => {
          op.forward(recorder, t);
          op.backward(recorder, t);
        });
        const stored = half ? roundingReference(x) : x;
        assertEquals(await gpu.read(t.y), Float32Array.from(clipReference(stored, 1.5)));
        assertEquals(await gpu.read(t.dx), Float32Array.from(clipGradientReference(stored, dy, 1.5)));
      }
    }
  },
);

gpuTest("a limit that is not a positive number is refused", async (gpu) => {
  for (const limit of [0, -1, NaN, Infinity]) {
    await assertRejects(
      () => prepareClip(gpu, { length: 4, limit }),
      RangeError,
      `positive number: ${limit}`,
    );
  }
});
