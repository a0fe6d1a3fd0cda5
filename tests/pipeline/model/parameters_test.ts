import { assertEquals } from "@std/assert";
import { createParameters, uploadParameters } from "../../../pipeline/model/parameters.ts";
import { gpuTest } from "../../support/gpu.ts";

gpuTest(
  "no more than 32 MiB are on their way to the device, but for what is written at once",
  async (gpu) => {
    const MEBIBYTE = 1 << 20;
    // MiB of each: what is written of the fourth is cut in pieces.
    const sizes = { first: 20, second: 10, third: 20, fourth: 72 };
    const shapes = Object.entries(sizes).map(([name, size]) => ({ name, shape: [64 * size, 4096] }));
    const parameters = createParameters(gpu, shapes);
    const [write, sync] = [gpu.write.bind(gpu), gpu.sync.bind(gpu)];
    const underWay: number[] = [0];
    gpu.write = (tensor, values, start) => {
      underWay[underWay.length - 1] += values.byteLength / MEBIBYTE;
      write(tensor, values, start);
    };
    gpu.sync = () => {
      underWay.push(0);
      return sync();
    };
    await uploadParameters(
      gpu,
      parameters,
      (name) => Promise.resolve(new Float32Array(parameters.get(name)!.length).fill(sizes[name as "first"])),
    );
    assertEquals(underWay, [50, 32, 32, 8, 0]);
    for (const [name, tensor] of parameters) {
      assertEquals([...await gpu.read(tensor, tensor.length - 2)], new Array(2).fill(sizes[name as "first"]));
    }
  },
);
