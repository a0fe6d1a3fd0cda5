import { assertEquals } from "@std/assert";
import { compile } from "../../../kernels/core/kernel.ts";
import { destroyTensor } from "../../../kernels/core/tensor.ts";
import { createTuner } from "../../../kernels/core/tuner.ts";
import type { Contest, Gpu } from "../../../kernels/core/gpu.ts";
import { prepareMatmul } from "../../../kernels/matmul/op.ts";
import { gpuTest, runAndRead, upload } from "../../support/gpu.ts";
import { LOOP } from "../../support/loop.ts";
import { normals } from "../../support/seeded.ts";

/** Candidates whose work is proportional to their `turns`; counts how often they were prepared. */
function loops(gpu: Gpu, turns: Record<string, number>) {
  const names = Object.keys(turns);
  const counts = { prepared: 0, destroyed: 0 };
  async function prepare(): Promise<Contest> {
    counts.prepared++;
    const y = gpu.tensor("y", [64]);
    const kernels = await Promise.all(
      names.map((name) => compile(gpu, { label: name, source: LOOP, constants: { TURNS: turns[name] } })),
    );
    return {
      candidates: new Map(
        names.map((name, index) => [name, (recorder) => recorder.dispatch(kernels[index], { y }, [8])]),
      ),
      destroy() {
        counts.destroyed++;
        destroyTensor(gpu, y);
      },
    };
  }
  return { names, prepare, counts };
}

const NOTHING_KNOWN = { known: new Map(), seconds: 60, onFound: () => {} };

gpuTest(
  "the candidate with a hundredth of the work is found, remembered, and not measured again",
  async (gpu) => {
    const { names, prepare, counts } = loops(gpu, { slow: 60_000, fast: 600 });
    const saved: ReadonlyMap<string, string>[] = [];
    const options = {
      seconds: 60,
      onFound: (known: ReadonlyMap<string, string>) => void saved.push(new Map(known)),
    };
    const tuner = createTuner({ known: new Map(), ...options });
    assertEquals(await tuner.choose(gpu, "loop", names, prepare), "fast");
    assertEquals(await tuner.choose(gpu, "loop", names, prepare), "fast");
    assertEquals(counts, { prepared: 1, destroyed: 1 });
    assertEquals(saved, [new Map([["loop", "fast"]])]);
    const later = createTuner({ known: saved[0], ...options });
    assertEquals(await later.choose(gpu, "loop", names, prepare), "fast");
    assertEquals(counts.prepared, 1);
  },
);

gpuTest("a difference far below what waiting for the device takes is found", async (gpu) => {
  // A few tenths of a millisecond on llvmpipe, where waiting takes 11.
  const { names, prepare } = loops(gpu, { slow: 60_000, fast: 6000 });
  for (let n = 0; n < 3; n++) {
    assertEquals(await createTuner(NOTHING_KNOWN).choose(gpu, "loop", names, prepare), "fast");
  }
});

gpuTest(
  "a name that is no candidate any more is measured anew; without time nothing is measured",
  async (gpu) => {
    const { names, prepare, counts } = loops(gpu, { one: 10 });
    const known = new Map([["loop", "gone"]]);
    const tuner = createTuner({ ...NOTHING_KNOWN, known });
    assertEquals(await tuner.choose(gpu, "loop", names, prepare), "one");
    const hasty = createTuner({ ...NOTHING_KNOWN, known, seconds: 0 });
    assertEquals(await hasty.choose(gpu, "loop", names, prepare), undefined);
    assertEquals(counts.prepared, 1);
  },
);

gpuTest(
  "candidates that cannot be measured or fail are told to who asked, and the next are measured all the same",
  async (gpu) => {
    const tuner = createTuner(NOTHING_KNOWN);
    const fail = () => Promise.reject(new Error("no such thing"));
    const failing = tuner.choose(gpu, "a", ["one"], fail).then(() => "found", (error) => error.message);
    const unheld = tuner.choose(gpu, "b", ["one"], () => Promise.resolve(undefined));
    const { names, prepare } = loops(gpu, { one: 10 });
    const next = tuner.choose(gpu, "b", names, prepare);
    assertEquals(await failing, "no such thing");
    assertEquals(await unheld, undefined);
    assertEquals(await next, "one");
  },
);

gpuTest("a tuned product has the bits of an untuned one, and small ones are not measured", async (gpu) => {
  // A CPU driver has nothing to choose between.
  const description = gpu.adapter as { software: boolean };
  const { software } = description;
  description.software = false;
  const [m, n, k] = [512, 512, 64];
  const t = {
    a: upload(gpu, "a", normals(1, m * k)),
    b: upload(gpu, "b", normals(2, k * n)),
    c: gpu.tensor("c", [m, n]),
  };
  const product = async () => {
    const op = await prepareMatmul(gpu, { layout: "nn", m, n, k });
    return await runAndRead(gpu, t.c, (recorder) => op.record(recorder, t));
  };
  const untuned = await product();
  const keys: string[] = [];
  const allocated = gpu.allocatedBytes;
  try {
    gpu.tuner = createTuner({
      known: new Map(),
      seconds: 60,
      onFound: (known) => void keys.push(...known.keys()),
    });
    assertEquals(await product(), untuned);
    await prepareMatmul(gpu, { layout: "nn", m: 64, n: 64, k: 64 });
    assertEquals(keys, ["matmul nn 512 x 512 x 64 rows of 64, 512"]);
    assertEquals(gpu.allocatedBytes, allocated, "what was measured with is freed");
  } finally {
    description.software = software;
    gpu.tuner = undefined;
  }
});

gpuTest("a product whose matrices the device cannot hold twice is chosen by rule", async (gpu) => {
  let measured: Contest | undefined;
  try {
    gpu.canHold = () => Promise.resolve(false);
    gpu.tuner = {
      async choose(_gpu, _key, _names, prepare) {
        measured = await prepare();
        return undefined;
      },
    };
    await prepareMatmul(gpu, { layout: "nn", m: 136, n: 192, k: 1024 });
    assertEquals(measured, undefined);
  } finally {
    gpu.tuner = undefined;
    // The own property goes, the class's method shows again.
    delete (gpu as Partial<Gpu>).canHold;
  }
});
