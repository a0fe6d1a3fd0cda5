import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { compile } from "../../../kernels/core/kernel.ts";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { readByTexture, type TextureLimits, Textures } from "../../../kernels/core/textures.ts";
import { destroyTensor, rows } from "../../../kernels/core/tensor.ts";
import { gpuTest, runAndRead, testGpu, upload } from "../../support/gpu.ts";

/** What can be read where all can. */
const ALL: TextureLimits = {
  most: 9,
  formats: new Set(["rgba32float", "rg32float", "r32float", "rg32uint", "r32uint"]),
};

/** Bytes of the texture of 4,096 elements of 4 bytes: 16 rows of 256, with 4 behind each. */
const OF_4096 = 16 * 260 * 4;

const DOUBLE = `
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < N) { y[id.x] = 2.0 * x[id.x]; }
}`;

Deno.test("what a kernel reads is read from a texture, what it writes is written to storage", () => {
  const of = (body: string, element = "vec4f", access = "read") =>
    readByTexture(`@group(0) @binding(3) var<storage, ${access}> x: array<${element}>;\n${body}`, ["x"], ALL);
  assertStringIncludes(of("let a = x[4u * i];").source, "let a = texel_of_x(4u * i);");
  assertStringIncludes(of("let a = x[i].xy;", "vec2f").source, "let a = texel_of_x(i).xy;");
  assertMatch(
    of("", "vec2f").source,
    /^fn texel_of_x\(at: u32\) -> vec2f { return textureLoad\(x, .*\)\.xy; }/,
  );
  assertStringIncludes(of("let a = my.x[i] + max[i];").source, "let a = my.x[i] + max[i];");
  assertStringIncludes(
    of("let a = y[x[x[i]]];", "u32").source,
    "let a = y[texel_of_x(texel_of_x(i))];",
  );
  assertEquals(of("", "u32").reads.get("x"), { of: "x", format: "r32uint" });
  const both = of("x[i] = x[i] + 1.0; x[i] += 1.0; let same = x[i] == 1.0;", "f32", "read_write");
  assertStringIncludes(
    both.source,
    "@group(0) @binding(4) var x_before: texture_storage_2d_array<r32float, read>;",
  );
  assertStringIncludes(
    both.source,
    "x[i] = texel_of_x_before(i) + 1.0; x[i] += 1.0; let same = texel_of_x_before(i) == 1.0;",
  );
  assertEquals(both.reads.get("x_before"), { of: "x", format: "r32float" });
  assertThrows(() => of("", "vec3f"), SyntaxError, "as none holds this: var<storage, read> x: array<vec3f>");
  assertThrows(() => readByTexture("", ["x"], ALL), SyntaxError, "storage array x: it is not declared");
});

gpuTest("a texture follows what is written to its tensor, by whatever way", async (gpu) => {
  const doubled = await compile(gpu, {
    label: "double",
    source: DOUBLE,
    constants: { N: 5000 },
    textures: ["x"],
  });
  // More than a row of texels, and no whole number of rows.
  const values = Float32Array.from({ length: 5000 }, (_, n) => n - 7);
  const x = upload(gpu, "x", values);
  const y = gpu.tensor("y", [5000]);
  const z = gpu.tensor("z", [5000]);
  const grid = [5000 / 8] as const;
  const twice = (factor: number) => values.map((value) => factor * value);
  assertEquals(await runAndRead(gpu, y, (r) => r.dispatch(doubled, { x, y }, grid)), twice(2));
  gpu.write(x, Float32Array.of(11), 4999);
  assertEquals((await runAndRead(gpu, y, (r) => r.dispatch(doubled, { x, y }, grid)))[4999], 22);
  gpu.write(x, values);
  const chained = await runAndRead(gpu, z, (r) => {
    r.dispatch(doubled, { x, y }, grid);
    r.dispatch(doubled, { x: y, y: z }, grid);
    r.dispatch(doubled, { x: z, y }, grid);
    r.dispatch(doubled, { x: y, y: z }, grid);
  });
  assertEquals(chained, twice(16), "written by a kernel");
  const copied = await runAndRead(gpu, y, (r) => {
    r.copy(x, z);
    r.dispatch(doubled, { x: z, y }, grid);
  });
  assertEquals(copied, twice(2), "copied over");
  const cleared = await runAndRead(gpu, y, (r) => {
    r.clear(z);
    r.dispatch(doubled, { x: z, y }, grid);
  });
  assertEquals(cleared, new Float32Array(5000), "cleared");
});

gpuTest("a texture of several layers, whole rows and a part of one holds all of its tensor", async (gpu) => {
  const length = 2 * 8192 * 256 + 3 * 256 + 7;
  // Far apart over all layers, then the last elements one by one: four rows, of which one is not whole.
  const count = 1032;
  const far = await compile(gpu, {
    label: "far apart",
    source: DOUBLE.replace("x[id.x]", "x[select(id.x * 8191u, LENGTH - N + id.x, id.x >= 512u)]"),
    constants: { N: count, LENGTH: length },
    textures: ["x"],
  });
  const x = upload(gpu, "x", Float32Array.from({ length }, (_, n) => n));
  const y = gpu.tensor("y", [count]);
  const expected = Float32Array.from(
    { length: count },
    (_, n) => 2 * (n < 512 ? n * 8191 : length - count + n),
  );
  assertEquals(await runAndRead(gpu, y, (r) => r.dispatch(far, { x, y }, [count / 8])), expected);
});

Deno.test("what cannot be read by texture, for its format or as one too many, is read from storage", async () => {
  const binding = (n: number, name: string, element: string) =>
    `@group(0) @binding(${n}) var<storage, read> ${name}: array<${element}>;\n`;
  const source = binding(2, "w", "vec2f") + binding(3, "z", "f32") +
    DOUBLE.replace("2.0 * x[id.x]", "x[id.x] + w[id.x].y + z[id.x]");
  const names = ["w", "x", "z"];
  const without = { ...ALL, formats: new Set([...ALL.formats].filter((format) => format !== "rg32float")) };
  const one = { ...without, most: 1 };
  const readOf = (limits: TextureLimits) => [...readByTexture(source, names, limits).reads.keys()];
  assertEquals(readOf(ALL), names);
  assertEquals(readOf(without), ["x", "z"]);
  assertEquals(readOf(one), ["x"]);
  assertEquals(readOf({ ...ALL, most: 0 }), []);
  const gpu = await Gpu.open({ textureLimits: one });
  try {
    const kernel = await compile(gpu, { label: "sum", source, constants: { N: 8 }, textures: names });
    const [x, z] = [2, 3].map((value) => upload(gpu, "operand", new Float32Array(8).fill(value)));
    const w = upload(gpu, "pairs", new Float32Array(16).fill(4));
    const y = gpu.tensor("y", [8]);
    const sums = await runAndRead(gpu, y, (r) => r.dispatch(kernel, { w, x, y, z }, [1]));
    assertEquals(sums, new Float32Array(8).fill(9));
    assertEquals(gpu.textures.bytes, gpu.adapter.software ? 8 * 4 : 0);
  } finally {
    gpu.close();
  }
});

gpuTest(
  "of a slice of a tensor the texture holds the slice, and writing the tensor makes it stale",
  async (gpu) => {
    const doubled = await compile(gpu, {
      label: "double",
      source: DOUBLE,
      constants: { N: 64 },
      textures: ["x"],
    });
    const x = upload(gpu, "x", Float32Array.from({ length: 256 }, (_, n) => n), [4, 64]);
    const y = gpu.tensor("y", [64]);
    const second = rows(x, 1, 1);
    const of = () => runAndRead(gpu, y, (r) => r.dispatch(doubled, { x: second, y }, [8]));
    assertEquals((await of())[3], 2 * 67);
    gpu.write(x, Float32Array.of(-1), 67);
    assertEquals((await of())[3], -2);
  },
);

Deno.test({
  name: "beyond their capacity textures make place, the longest unused first, and the results stay",
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async () => {
    const gpu = await testGpu();
    const forgotten: GPUTexture[] = [];
    const textures = new Textures(gpu.device, (texture) => forgotten.push(texture), 3 * OF_4096);
    const tensors = Array.from({ length: 12 }, (_, n) => gpu.tensor(`tensor ${n}`, [4096]));
    // Three dispatches of two textures, then one of six.
    const shadows = tensors.map((tensor, n) => {
      if (n < 6 ? n % 2 === 0 : n === 6) textures.begin();
      return textures.of(tensor, "r32float");
    });
    assertEquals(textures.bytes, 6 * OF_4096, "those of one dispatch are never taken from it");
    assertEquals(
      forgotten,
      [0, 1, 2, 3, 4, 5].map((n) => shadows[n].texture),
      "the longest unused first",
    );
    assertEquals(
      new Set(shadows.map(({ texture }) => texture)).size,
      6,
      "one of the same size is used again",
    );
    assertEquals(new Set(shadows.map(({ id }) => id)).size, 12, "but as another");
    const last = textures.of(tensors[11], "r32float");
    assertEquals(last.id, shadows[11].id);
    assert(textures.of(tensors[0], "r32float").stale, "one that lost its place must be copied anew");
    for (const tensor of tensors) {
      textures.drop(tensor.buffer);
      destroyTensor(gpu, tensor);
    }
    assertEquals(textures.bytes, 0);
  },
});

gpuTest("steps that read more than textures may take make new ones in the first of them alone", (gpu) => {
  const made = new Set<GPUTexture>();
  const textures = new Textures(gpu.device, () => {}, 4 * OF_4096);
  const tensors = [1, 1, 2, 1, 1, 1, 4, 2].map((times, n) => gpu.tensor(`tensor ${n}`, [4096 * times]));
  const step = (): number => {
    const before = made.size;
    for (const tensor of tensors) {
      textures.begin();
      made.add(textures.of(tensor, "r32float").texture);
      // A step is many submissions, all recorded before the first has run.
      textures.submitted();
    }
    return made.size - before;
  };
  const first = step();
  assertEquals([step(), step()], [0, 0], `the first made ${first}`);
  for (const tensor of tensors) {
    textures.drop(tensor.buffer);
    destroyTensor(gpu, tensor);
  }
  return Promise.resolve();
});

gpuTest("parts of one buffer that take each other's place are all still known", (gpu) => {
  // Room for one of the parts.
  const textures = new Textures(gpu.device, () => {}, 4 * OF_4096);
  const whole = gpu.tensor("whole", [8 * 4096]);
  const parts = [rows({ ...whole, shape: [8, 4096] }, 0, 4), rows({ ...whole, shape: [8, 4096] }, 4, 3)];
  for (let n = 0; n < 6; n++) {
    textures.begin();
    const shadow = textures.of(parts[n % 2], "r32float");
    shadow.stale = false;
    assertEquals(textures.bytes, 4 * OF_4096, `after ${n + 1} times`);
    textures.written(whole.buffer);
    assert(shadow.stale, "what is bound must be told of what is written");
  }
  textures.drop(whole.buffer);
  assertEquals(textures.bytes, 0);
  destroyTensor(gpu, whole);
  return Promise.resolve();
});

gpuTest("what was recorded and never submitted leaves no texture that counts as fresh", async (gpu) => {
  const doubled = await compile(gpu, {
    label: "double",
    source: DOUBLE,
    constants: { N: 8 },
    textures: ["x"],
  });
  const x = upload(gpu, "x", new Float32Array(8).fill(3));
  const y = gpu.tensor("y", [8]);
  const fault = () =>
    gpu.submit("a fault", (r) => {
      r.dispatch(doubled, { x, y }, [1]);
      throw new Error("on purpose");
    });
  assertThrows(fault, Error, "on purpose");
  assertEquals((await runAndRead(gpu, y, (r) => r.dispatch(doubled, { x, y }, [1])))[7], 6);
});

gpuTest("nothing is written or submitted while something is recorded", async (gpu) => {
  const x = upload(gpu, "x", new Float32Array(8));
  const inside = (act: () => void) => () => gpu.submit("outer", act);
  assertThrows(
    inside(() => gpu.submit("inner", () => {})),
    RangeError,
    "Cannot start inner while outer is being recorded",
  );
  assertThrows(inside(() => gpu.write(x, Float32Array.of(1))), RangeError, "Cannot start writing x while");
  gpu.write(x, Float32Array.of(2));
  assertEquals((await gpu.read(x))[0], 2);
});

gpuTest("a tensor that is written cannot be another of a kernel's tensors, as on a GPU", async (gpu) => {
  const doubled = await compile(gpu, {
    label: "double",
    source: DOUBLE,
    constants: { N: 8 },
    textures: ["x"],
  });
  const x = upload(gpu, "x", new Float32Array(128), [2, 64]);
  const [y, z] = [rows(x, 0, 1), rows(x, 1, 1)];
  const refused = "as x while x[0:1] is written as y: they share a buffer";
  assertThrows(() => doubled.bind({ x: y, y }), RangeError, refused);
  assertThrows(() => doubled.bind({ x: z, y }), RangeError, refused);
});

gpuTest("a destroyed tensor's texture and bind groups go with it", async (gpu) => {
  const doubled = await compile(gpu, {
    label: "double",
    source: DOUBLE,
    constants: { N: 8 },
    textures: ["x"],
  });
  const y = gpu.tensor("y", [8]);
  const before = [gpu.textures.bytes, gpu.bindGroups.size];
  for (let n = 0; n < 3; n++) {
    const x = upload(gpu, "x", new Float32Array(8).fill(n));
    assertEquals((await runAndRead(gpu, y, (r) => r.dispatch(doubled, { x, y }, [1])))[7], 2 * n);
    destroyTensor(gpu, x);
  }
  assertEquals([gpu.textures.bytes, gpu.bindGroups.size], before);
});
