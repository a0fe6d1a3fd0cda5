/**
 * The embedded sparse models give the logits that transformers gives when it loads them by the sparse_attention.py that
 * they carry (tests/fixtures/sparse_in_transformers).
 */
import { assertEquals } from "@std/assert";
import { loadModel } from "../../../pipeline/load_model.ts";
import { openSafetensors } from "../../../pipeline/model/safetensors.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;
const FOLDER = `${ROOT}tests/fixtures/sparse_in_transformers/`;
const expected = JSON.parse(await Deno.readTextFile(`${FOLDER}expected.json`));

for (const name of ["english-sparse", "addition-sparse"]) {
  gpuTest(
    `${name} gives transformers' logits with the gates that its folder's loader brings`,
    async (gpu) => {
      const logits = await openSafetensors(`${FOLDER}logits.safetensors`);
      using model = await loadModel(`${ROOT}data/${name}`, { gpu });
      const run = await model.run(expected[name]);
      // Measured: at most 6.4e-7.
      assertClose(run.logits.values, await logits.read(name), { tolerance: 1e-5, name: "logits" });
      const carried = await Deno.readTextFile(`${ROOT}data/${name}/sparse_attention.py`);
      assertEquals(carried, await Deno.readTextFile(`${ROOT}pipeline/model/sparse_attention.py`));
    },
  );
}
