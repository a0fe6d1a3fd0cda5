import { assert, assertEquals } from "@std/assert";
import { memoryNeeds } from "../../../pipeline/model/needs.ts";
import { type NetworkShape, planMemory } from "../../../pipeline/model/plan.ts";
import { GPT2 } from "../../support/gpt2.ts";

const ROWS = 8 * 1024;
const MiB = 2 ** 20;

const plan = (shape: Partial<NetworkShape>, config = GPT2) =>
  planMemory(config, { batch: 8, context: 1024, training: true, ...shape }, 1024 * MiB);

Deno.test("no two activations lie in one buffer while both hold something, and none is larger than its buffer", () => {
  for (const shape of [{}, { recompute: true }, { distill: true }, { training: false }]) {
    const { tensors, buffers } = plan(shape);
    const occupied = buffers.map(() => new Map<number, string>());
    for (const [name, { shape, buffer, lifetimes }] of tensors) {
      assert(4 * shape.reduce((a, b) => a * b) <= buffers[buffer], `${name} fits`);
      for (const [first, last] of lifetimes) {
        for (let moment = first; moment <= last; moment++) {
          const other = occupied[buffer].get(moment);
          assertEquals(other, undefined, `${name} and ${other} at moment ${moment}`);
          occupied[buffer].set(moment, name);
        }
      }
    }
  }
});

Deno.test("what one kernel reads and writes lies in different buffers, of whatever sizes", () => {
  for (const mlpWidth of [64, 768, 3072]) {
    for (const shape of [{}, { recompute: true }, { training: false }]) {
      const { tensors } = plan(shape, { ...GPT2, mlpWidth });
      const bufferOf = (name: string) => tensors.get(name)!.buffer;
      const block = "blocks.1";
      for (
        const [reads, writes] of [
          [[`${block}.attn.hook_z`, `${block}.hook_resid_pre`], [`${block}.hook_resid_mid`]],
          [[`${block}.ln2.hook_normalized`], [`${block}.mlp.hook_pre`, `${block}.mlp.hook_post`]],
          [[`${block}.mlp.hook_post`, `${block}.hook_resid_mid`], ["blocks.2.hook_resid_pre"]],
        ]
      ) {
        const all = [...reads, ...writes];
        assertEquals(new Set(all.map(bufferOf)).size, all.length, all.join(", "));
      }
    }
  }
});

Deno.test("without backward the activations' memory does not grow with the layers; with recompute by one residual stream", () => {
  const bytes = (layers: number, shape: Partial<NetworkShape>) =>
    plan(shape, { ...GPT2, layers }).buffers.reduce((a, b) => a + b);
  assertEquals(bytes(24, { training: false }), bytes(6, { training: false }));
  assertEquals(bytes(24, { recompute: true }) - bytes(23, { recompute: true }), 4 * ROWS * 768);
  // norm, query, key, value, z, both residual streams, second norm: 8 d; inside the MLP: 8 d. And what each row and
  // head keeps: two means and deviations, the log-sum-exp.
  assertEquals(bytes(24, {}) - bytes(23, {}), 4 * ROWS * (16 * 768 + 4 + 12));
});

Deno.test("activations that are kept have a buffer each", () => {
  const { tensors, buffers } = plan({ keep: true, training: false });
  assertEquals(buffers.length, tensors.size);
});

Deno.test("GPT-2 at 8 x 1024: recomputing takes less than a fifth of the activations' memory", () => {
  const needs = (shape: Partial<NetworkShape>) =>
    memoryNeeds(
      GPT2,
      { batch: 8, context: 1024, training: true, logitsBytes: 64 * MiB, ...shape },
      1024 * MiB,
    );
  assertEquals(needs({}).weights, 4 * 124439808);
  assertEquals(needs({}).total, 4 * needs({}).weights + needs({}).activations);
  assert(needs({ recompute: true }).activations < needs({}).activations / 5);
  assertEquals(needs({ distill: true }).teacher, needs({}).weights);
  assertEquals(needs({}).buffers.reduce((a, b) => a + b), needs({}).total);
});

Deno.test("logits are held in blocks of positions that fit a binding, at multiples of 64", () => {
  const { blocks, logitsStride } = plan({ logitsBytes: 64 * MiB });
  assertEquals(logitsStride, 50260);
  // 320 positions fit, which makes 26 blocks.
  assertEquals(blocks.length, 26);
  assertEquals(blocks[0], { first: 0, count: 320 });
  assertEquals(blocks.at(-1), { first: 8000, count: 192 });
  // 2624 would fit, which makes 4: the last of them would have 320.
  const large = plan({ logitsBytes: 512 * MiB }).blocks;
  assertEquals(large.map(({ first, count }) => [first, count]), [[0, 2048], [2048, 2048], [4096, 2048], [
    6144,
    2048,
  ]]);
});

Deno.test("a block of logits takes half a binding, and 576 MiB at most", () => {
  for (const [binding, most] of [[128, 64], [512, 256], [2047, 576]]) {
    const { blocks, logitsStride } = planMemory(
      GPT2,
      { batch: 8, context: 1024, training: true },
      binding * MiB,
    );
    const bytes = 4 * logitsStride * blocks[0].count;
    assert(bytes <= most * MiB && bytes > 0.7 * most * MiB, `${binding} MiB: ${bytes}`);
  }
});
