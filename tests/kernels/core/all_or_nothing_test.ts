import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { allOrNothing } from "../../../kernels/core/all_or_nothing.ts";
import { createUniform } from "../../../kernels/core/uniform.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { assertLeavesNothing, watchBuffers } from "../../support/device_memory.ts";
import { gpuTest } from "../../support/gpu.ts";

const fails = (): never => {
  throw new Error("the last part fails");
};

gpuTest(
  "of what fails in the middle nothing is left, of whichever part, and of other work all is",
  async (gpu) => {
    using buffers = watchBuffers(gpu);
    const before = gpu.allocatedBytes;
    const [begun, other] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const preparing = allOrNothing(async () => {
      gpu.tensor("first", [4]);
      const part = allOrNothing(async () => {
        gpu.tensor("int8", [4, 8], "int8");
        await begun.promise;
        return createUniform(gpu, "uniform", [["n", "u32"]]);
      });
      destroyTensor(gpu, gpu.tensor("freed in the middle", [4]));
      await part;
      await other.promise;
      fails();
    });
    begun.resolve();
    const kept = await allOrNothing(async () => {
      await begun.promise;
      return gpu.tensor("other", [4]);
    });
    other.resolve();
    await assertRejects(() => preparing, Error, "the last part fails");
    assertEquals(buffers.live(), ["other"]);
    destroyTensor(gpu, kept);
    assertEquals(gpu.allocatedBytes, before);
  },
);

gpuTest("what is kept is its owner's to free, in whichever preparation it is used after", async (gpu) => {
  await assertLeavesNothing(gpu, async () => {
    const kept = await allOrNothing(() => Promise.resolve(gpu.tensor("kept", [4])));
    await assertRejects(
      () => allOrNothing(() => Promise.resolve().then(fails)),
      Error,
      "the last part fails",
    );
    gpu.write(kept, new Float32Array(4));
    destroyTensor(gpu, kept);
  });
  await gpu.sync();
});

gpuTest("what goes on behind a preparation that has failed can make nothing any more", async (gpu) => {
  await assertLeavesNothing(gpu, async () => {
    const failed = Promise.withResolvers<void>();
    let late: Promise<void> | undefined;
    const preparing = allOrNothing(async () => {
      gpu.tensor("first", [4]);
      late = failed.promise.then(() => {
        assertThrows(() => gpu.tensor("late", [4]), RangeError, "Cannot create late as the preparation");
      });
      await Promise.resolve();
      fails();
    });
    await assertRejects(() => preparing, Error, "the last part fails");
    failed.resolve();
    await late;
  });
});

gpuTest("a part that ends behind a preparation that has failed leaves nothing either", async (gpu) => {
  await assertLeavesNothing(gpu, async () => {
    const failed = Promise.withResolvers<void>();
    let part: Promise<unknown> | undefined;
    const preparing = allOrNothing(async () => {
      part = allOrNothing(async () => {
        const tensor = gpu.tensor("of the part", [4]);
        await failed.promise;
        return tensor;
      });
      await Promise.resolve();
      fails();
    });
    await assertRejects(() => preparing, Error, "the last part fails");
    failed.resolve();
    await part;
  });
});
