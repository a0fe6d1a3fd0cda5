import { assert } from "@std/assert";
import { compile } from "../../../kernels/core/kernel.ts";
import { createStopwatch } from "../../../kernels/core/stopwatch.ts";
import { gpuTest, upload } from "../../support/gpu.ts";
import { LOOP } from "../../support/loop.ts";

gpuTest("a hundred times the work takes longer, and none longer than was waited for it", async (gpu) => {
  const y = upload(gpu, "y", new Float32Array(64));
  const stopwatch = createStopwatch(gpu);
  try {
    const least = [];
    // llvmpipe ends a loop after 65,535 turns.
    for (const turns of [600, 60_000]) {
      const kernel = await compile(gpu, { label: "loop", source: LOOP, constants: { TURNS: turns } });
      const times = [];
      for (let n = 0; n < 4; n++) {
        const started = performance.now();
        const ms = await stopwatch.milliseconds((recorder) => recorder.dispatch(kernel, { y }, [8]));
        assert(ms > 0 && ms < performance.now() - started, `${ms} ms`);
        times.push(ms);
      }
      least.push(Math.min(...times));
    }
    // Measured on llvmpipe: 0.08 to 0.11 and 0.7 to 1.5 ms.
    assert(least[1] > 2 * least[0], `${least}`);
  } finally {
    stopwatch.destroy();
  }
});
