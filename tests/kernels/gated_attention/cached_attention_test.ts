import { assert, assertEquals, assertThrows } from "@std/assert";
import { Gpu } from "../../../kernels/core/gpu.ts";
import { prepareCachedAttention } from "../../../kernels/gated_attention/cached_attention.ts";
import { attentionReference } from "../../../kernels/gated_attention/reference.ts";
import { roundingReference } from "../../../kernels/rounding/reference.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const BIAS = 0.2;

interface Case {
  batch: number;
  heads: number;
  keyValueHeads: number;
  headSize: number;
  positions: number;
  capacity: number;
  mode: "dense" | "deterministic";
  half?: boolean;
}

/** y of all positions (batch, position, head, D), computed some positions at a time. */
async function decode(gpu: Gpu, test: Case, qkv: ArrayLike<number>, counts: readonly number[]) {
  const { batch, heads, keyValueHeads, headSize, positions, capacity, mode, half = false } = test;
  assertEquals(counts.reduce((sum, count) => sum + count), positions);
  const type = half ? "f16" : "f32";
  const columns = (heads + 2 * keyValueHeads) * headSize;
  const width = heads * headSize;
  const op = await prepareCachedAttention(gpu, {
    batch,
    heads,
    keyValueHeads,
    headSize,
    half,
  });
  /** What no kernel writes stands everywhere: past what is filled it must not be seen. */
  const tensor = (name: string, shape: number[]) => {
    const made = gpu.tensor(name, shape, type);
    gpu.write(made, new Float32Array(made.length).fill(-12345.678));
    return made;
  };
  const cacheShape = [capacity, batch, keyValueHeads, headSize];
  const [keys, values] = [tensor("keys", cacheShape), tensor("values", cacheShape)];
  const all = new Float32Array(batch * positions * width);
  let filled = 0;
  for (const count of counts) {
    const part = Float32Array.from({ length: batch * count * columns }, (_, n) => {
      const [b, inRow] = [Math.floor(n / (count * columns)), n % (count * columns)];
      return qkv[(b * positions + filled) * columns + inRow];
    });
    const t = {
      qkv: tensor("qkv", [batch, count, columns]),
      keys,
      values,
      y: tensor("y", [batch, count, heads, headSize]),
    };
    gpu.write(t.qkv, part);
    op.configure({ filled, count, bias: BIAS });
    gpu.submit("cached attention", (recorder) => {
      op.append(recorder, t);
      op.forward(recorder, mode, t);
    });
    const y = await gpu.read(t.y);
    for (let b = 0; b < batch; b++) {
      all.set(y.subarray(b * count * width, (b + 1) * count * width), (b * positions + filled) * width);
    }
    filled += count;
  }
  return { y: all, keys: await gpu.read(keys) };
}

function reference({ mode, ...shape }: Case, qkv: ArrayLike<number>) {
  const gate = { bias: BIAS, temperature: 1, saturationBound: 1, saturationWeight: 0, edgeGradient: 0 };
  const full = attentionReference({ ...shape, qkv, gate: mode === "dense" ? undefined : gate });
  const open = full.masks.reduce((sum, mask) => sum + mask, 0) / full.masks.length;
  assert(
    mode === "dense" || (open > 0.2 && open < 0.8),
    `the test must leave gates open and closed: ${open}`,
  );
  assertEquals(full.noisyLogits.filter((logit) => mode !== "dense" && Math.abs(logit) < 1e-5).length, 0);
  return full.y;
}

const ones = (count: number): number[] => new Array(count).fill(1);
const SHAPES = [
  { batch: 2, heads: 4, keyValueHeads: 2, headSize: 12, positions: 37, capacity: 40 },
  { batch: 1, heads: 3, keyValueHeads: 1, headSize: 5, positions: 9, capacity: 9 },
  { batch: 2, heads: 2, keyValueHeads: 2, headSize: 64, positions: 11, capacity: 12 },
];

for (const mode of ["dense", "deterministic"] as const) {
  gpuTest(`${mode}: token by token, or some at a time, equals attention to all at once`, async (gpu) => {
    for (const shape of SHAPES) {
      const test: Case = { ...shape, mode };
      const { batch, heads, keyValueHeads, headSize, positions } = shape;
      const qkv = normals(positions, batch * positions * (heads + 2 * keyValueHeads) * headSize);
      const want = reference(test, qkv);
      const name = Object.values(shape).join(" x ");
      const single = await decode(gpu, test, qkv, ones(positions));
      // Measured: 1.7e-7.
      assertClose(single.y, want, { tolerance: 2e-6, name: `y ${name}` });
      const several = await decode(gpu, test, qkv, [positions - 6, 1, 3, 1, 1]);
      assertEquals(several, single);
    }
  });

  gpuTest(`${mode}: without subgroups, token by token equals attention to all at once`, async () => {
    const plain = await Gpu.open({ subgroups: false });
    try {
      const test: Case = { ...SHAPES[0], mode };
      const qkv = normals(37, 2 * 37 * 8 * 12);
      const { y } = await decode(plain, test, qkv, [36, 1]);
      assertClose(y, reference(test, qkv), { tolerance: 2e-6, name: "y" }); // measured 1.7e-7
    } finally {
      plain.close();
    }
  });
}

gpuTest("in half precision the cache holds what was rounded, and y is that of it", async (gpu) => {
  const test: Case = { ...SHAPES[0], mode: "deterministic", half: true };
  const qkv = roundingReference(normals(4, 2 * 37 * 8 * 12));
  const { y, keys } = await decode(gpu, test, qkv, [30, ...ones(7)]);
  // y is rounded to 2^-11. Measured: 2.0e-4.
  assertClose(y, reference(test, qkv), { tolerance: 5e-4, name: "y" });
  // Row 1, key head 1, position 33.
  const at = ((33 * 2 + 1) * 2 + 1) * 12;
  assertEquals([...keys.subarray(at, at + 12)], [
    ...qkv.slice((37 + 33) * 96 + 5 * 12, (37 + 33) * 96 + 6 * 12),
  ]);
});

gpuTest("a cache is not filled beyond its room, nor by nothing", async (gpu) => {
  const op = await prepareCachedAttention(gpu, { batch: 1, heads: 2, headSize: 4 });
  const cache = gpu.tensor("cache", [8, 1, 2, 4]);
  const qkv = gpu.tensor("qkv", [1, 2, 6, 4]);
  const append = () =>
    gpu.submit("appending", (recorder) => {
      op.append(recorder, { qkv, keys: cache, values: gpu.tensor("values", cache.shape) });
    });
  op.configure({ filled: 6, count: 2, bias: 0 });
  append();
  op.configure({ filled: 7, count: 2, bias: 0 });
  assertThrows(append, RangeError, "room for 8 positions: 2 behind 7");
  assertThrows(() => op.configure({ filled: 0, count: 0, bias: 0 }), RangeError, "0 behind 0");
  assertThrows(() => op.configure({ filled: -1, count: 1, bias: 0 }), RangeError, "1 behind -1");
});
