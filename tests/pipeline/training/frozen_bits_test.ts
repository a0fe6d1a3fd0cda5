/**
 * The embedded models' training keeps its bits (tests/fixtures/frozen_bits). Where a change of bits is meant, its make.ts
 * writes them anew.
 */
import { assertEquals } from "@std/assert";
import { assertClose } from "../../support/compare.ts";
import {
  computedOn,
  FROZEN_RUNS,
  type FrozenBits,
  frozenBits,
  type FrozenOn,
} from "../../support/frozen_bits.ts";
import { gpuTest } from "../../support/gpu.ts";

const { on, runs }: { on: FrozenOn; runs: Record<string, FrozenBits> } = JSON.parse(
  await Deno.readTextFile(new URL("../../fixtures/frozen_bits/expected.json", import.meta.url)),
);

for (const name of Object.keys(FROZEN_RUNS) as (keyof typeof FROZEN_RUNS)[]) {
  gpuTest(
    `${name}: ten steps have the bits that they had, and so has a run that was resumed`,
    async (gpu) => {
      const found = await frozenBits(gpu, name);
      assertEquals(found.resumedState, found.state, "a resumed run ends elsewhere");
      const here = computedOn(gpu);
      if (JSON.stringify(here) === JSON.stringify(on)) {
        assertEquals(found, runs[name]);
        return;
      }
      console.log(
        `not the bits, as they were made on ${JSON.stringify(on)}; here is ${JSON.stringify(here)}`,
      );
      // Bits differ between drivers; no other was at hand, so these two bounds are not measured. In half precision what is rounded this way on one is rounded that way on another.
      const tolerance = FROZEN_RUNS[name].half ? 1e-3 : 1e-5;
      assertClose(found.losses, runs[name].losses, { tolerance, name: "losses" });
      assertClose(found.norms, runs[name].norms, { tolerance: 10 * tolerance, name: "gradient norms" });
    },
  );
}
