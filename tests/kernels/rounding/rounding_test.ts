import { assertEquals, assertRejects } from "@std/assert";
import { prepareRounding } from "../../../kernels/rounding/op.ts";
import { roundingReference } from "../../../kernels/rounding/reference.ts";
import { gpuTest, upload } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

gpuTest("values are stored as the nearest float16, small, large and past its range", async (gpu) => {
  for (const length of [4, 60, 1028]) {
    const op = await prepareRounding(gpu, { length });
    const values = normals(length, length, 3);
    values.set([1e5, -1e5, 65504, 6.1e-5], 0);
    if (length > 8) values.set([NaN, Infinity, -Infinity, -NaN], 4);
    const rounded = gpu.tensor("rounded", [length], "f16");
    assertEquals(rounded.byteLength, 2 * length);
    const input = upload(gpu, "values", values);
    gpu.submit("rounding", (recorder) => op.record(recorder, { values: input, rounded }));
    // float16 has 11 bits: a driver may round either way where a value lies half way. None does here.
    assertEquals([...await gpu.read(rounded)], [...roundingReference(values)]);
  }
});

gpuTest("a length that is no multiple of four is refused", async (gpu) => {
  await assertRejects(() => prepareRounding(gpu, { length: 6 }), RangeError, "a multiple of 4: 6");
});
