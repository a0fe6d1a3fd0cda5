import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { compile } from "../../kernels/core/kernel.ts";
import type { Recorder } from "../../kernels/core/recorder.ts";
import type { Contest } from "../../kernels/core/gpu.ts";
import { cacheFolder, openTuner } from "../../pipeline/tuning_cache.ts";
import { gpuTest } from "../support/gpu.ts";
import { LOOP } from "../support/loop.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";

Deno.test("the cache lies where the system keeps what can be made again", () => {
  const of = (environment: Record<string, string>) => cacheFolder((name) => environment[name]);
  assertEquals(of({ XDG_CACHE_HOME: "/cache", HOME: "/home/a" }), "/cache/sparse-attention");
  assertEquals(of({ HOME: "/home/a" }), "/home/a/.cache/sparse-attention");
  assertEquals(of({}), undefined);
});

gpuTest(
  "what was found is known at the next start; damage and unwritable folders are done without",
  async (gpu) => {
    await using temporary = await temporaryFolder();
    const folder = temporary.path;
    let prepared = 0;
    const kernel = await compile(gpu, { label: "loop", source: LOOP, constants: { TURNS: 1 } });
    const y = gpu.tensor("y", [8]);
    function prepare(): Promise<Contest> {
      prepared++;
      const candidates = new Map([
        ["short", (recorder: Recorder) => recorder.dispatch(kernel, { y }, [1])],
      ]);
      return Promise.resolve({ candidates, destroy() {} });
    }
    const choose = async (folder: string | undefined) =>
      await (await openTuner(gpu, folder)).choose(gpu, "key", ["short"], prepare);
    assertEquals(await choose(folder), "short");
    assertEquals(await choose(folder), "short");
    assertEquals(prepared, 1);
    const [{ name }] = await Array.fromAsync(Deno.readDir(join(folder, "kernels")));
    assert(name.includes(Deno.version.deno), name);
    for (const damaged of ["{", "[1]", `{"key":1}`]) {
      await Deno.writeTextFile(join(folder, "kernels", name), damaged);
      assertEquals(await choose(folder), "short");
    }
    assertEquals(prepared, 4);
    await Deno.writeTextFile(join(folder, "file"), "");
    assertEquals(await choose(join(folder, "file")), "short");
  },
);
