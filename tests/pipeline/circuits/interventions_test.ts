import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { Gpu } from "../../../kernels/core/gpu.ts";
import { elementsOf } from "../../../kernels/core/tensor.ts";
import { createCircuitEngine } from "../../../pipeline/circuits/engine.ts";
import {
  closedEdges,
  type Interventions,
  prepareInterventions,
} from "../../../pipeline/circuits/interventions.ts";
import type { Replacement } from "../../../pipeline/model/replacement.ts";
import { activationAxes, noActivation } from "../../../pipeline/model/activation_names.ts";
import { referenceLogits } from "../../support/reference_run.ts";
import type { ModelConfig } from "../../../pipeline/model/config.ts";
import { prepareNetwork } from "../../../pipeline/model/network.ts";
import { randomModel, randomSet, TINY, type TwoSidedModel } from "../../support/circuit_models.ts";
import { assertClose } from "../../support/compare.ts";
import { gpuTest } from "../../support/gpu.ts";
import { normals } from "../../support/seeded.ts";

const GATED: ModelConfig = { ...TINY, gate: { bias: 0.3, temperature: 1 } };
const [BATCH, POSITIONS] = [2, 6];
const { pairs } = randomSet(TINY, { pairs: 5, positions: POSITIONS });
const CLEAN = pairs.slice(0, BATCH).map(({ clean }) => clean);
const CORRUPTED = pairs.slice(0, BATCH).map(({ corrupted }) => corrupted);
const ALL = Array.from({ length: POSITIONS }, (_, position) => position);
const V = TINY.vocabularySize;

async function withModel(
  gpu: Gpu,
  config: ModelConfig,
  body: (model: Interventions, sides: TwoSidedModel) => Promise<void>,
): Promise<void> {
  const sides = randomModel(gpu, config);
  const model = await prepareInterventions(gpu, sides, { batch: BATCH, positions: POSITIONS });
  try {
    await body(model, sides);
  } finally {
    model.destroy();
  }
}

const isScale = (name: string): boolean => name.endsWith("hook_scale");
const replaceable = ({ names }: Interventions) => [...names].filter(([name]) => !isScale(name));

const isMasked = (name: string): boolean => /attn_scores|gate_logits/.test(name);
/** −∞ for keys behind the query. */
const masked = (square: Float32Array) =>
  square.map((value, n) => n % POSITIONS > Math.floor(n / POSITIONS) % POSITIONS ? -Infinity : value);

const logitsInFloat64 = (model: TwoSidedModel, prompts: readonly (readonly number[])[]): number[] =>
  prompts.flatMap((tokens) => [...referenceLogits(model.reference, tokens)]);

gpuTest("runs that are asked for together follow one another, also behind one that fails", async (gpu) => {
  await withModel(gpu, GATED, async (model) => {
    const events: string[] = [];
    const { submit, read } = gpu;
    gpu.submit = (operation, ...rest) => {
      events.push(operation);
      return submit.call(gpu, operation, ...rest);
    };
    gpu.read = async (...args: Parameters<typeof read>) => {
      const values = await read.apply(gpu, args);
      events.push("read");
      return values;
    };
    try {
      const failing = assertRejects(() => model.run(CLEAN, { at: [POSITIONS] }), RangeError);
      await Promise.all([failing, ...[CLEAN, CORRUPTED].map((prompts) => model.run(prompts))]);
    } finally {
      Object.assign(gpu, { submit, read });
    }
    const one = ["run with interventions", "logits", "read"];
    assertEquals(events, [...one, ...one]);
  });
});

gpuTest("what is replaced in one prompt of a batch leaves the others as they are", async (gpu) => {
  await withModel(gpu, GATED, async (model) => {
    const plain = (await model.run(CLEAN)).logits;
    for (
      const activation of ["blocks.0.hook_resid_mid", "blocks.1.attn.hook_z", "blocks.1.attn.hook_pattern"]
    ) {
      const by = { prompts: CORRUPTED };
      const both = (await model.run(CLEAN, { replace: [{ activation, by }] })).logits;
      const inRow = async (row: number) =>
        (await model.run(CLEAN, { replace: [{ activation, rows: [row], by }] })).logits;
      const [first, second] = [await inRow(0), await inRow(1)];
      // Measured: 0; where a pattern is replaced in one row, that of the other is written out as well.
      assertClose(first, [...both.subarray(0, V), ...plain.subarray(V)], {
        tolerance: 1e-6,
        name: activation,
      });
      assertClose(second, [...plain.subarray(0, V), ...both.subarray(V)], {
        tolerance: 1e-6,
        name: activation,
      });
      // One value for two parts.
      const parts = [0, 1].map((row) => ({ activation, rows: [row], by }));
      assertEquals((await model.run(CLEAN, { replace: parts })).logits, both);
    }
    const [one, other] = ["blocks.0.hook_resid_mid", "blocks.1.attn.hook_z"];
    const shared = { prompts: CORRUPTED };
    const together = [one, other].map((activation) => ({ activation, by: shared }));
    const apart = [one, other].map((activation) => ({ activation, by: { prompts: CORRUPTED } }));
    assertEquals(
      (await model.run(CLEAN, { replace: together })).logits,
      (await model.run(CLEAN, { replace: apart })).logits,
    );
    const absent = () =>
      model.run(CLEAN, { replace: [{ activation: "blocks.0.hook_resid_mid", rows: [2], by: "zero" }] });
    await assertRejects(
      absent,
      RangeError,
      "Cannot replace a prompt of blocks.0.hook_resid_mid as there are 2: 2",
    );
  });
});

for (const [name, config] of [["dense", TINY], ["gated", GATED]] as const) {
  gpuTest(`${name}: the logits are those of float64, at any positions`, async (gpu) => {
    await withModel(gpu, config, async (model, sides) => {
      const expected = logitsInFloat64(sides, CLEAN);
      const { logits } = await model.run(CLEAN, { at: ALL });
      // Measured: 3e-7.
      assertClose(logits, expected, { tolerance: 2e-6, name: "logits" });
      const last = await model.run(CLEAN);
      const row = (n: number) => logits.subarray(n * V, (n + 1) * V);
      assertEquals(last.logits, Float32Array.from([...row(5), ...row(11)]));
    });
  });

  gpuTest(
    `${name}: every activation replaced by what it is changes nothing, pattern and gates too`,
    async (gpu) => {
      await withModel(gpu, config, async (model) => {
        const { logits, activations } = await model.run(CLEAN, { at: ALL, read: [...model.names.keys()] });
        assertEquals(activations.size, 2 * (config.gate ? 19 : 18) + 4);
        for (const [activation, shape] of replaceable(model)) {
          const values = activations.get(activation)!;
          assertEquals(values.length, elementsOf(shape));
          const again = await model.run(CLEAN, { at: ALL, replace: [{ activation, by: { values } }] });
          // Measured: 0.
          assertClose(again.logits, logits, { tolerance: 1e-6, name: activation });
        }
      });
    },
  );

  gpuTest(`${name}: every activation replaced by zeros or noise changes the logits`, async (gpu) => {
    await withModel(gpu, config, async (model) => {
      const { logits } = await model.run(CLEAN, { at: ALL });
      for (const [activation, shape] of replaceable(model)) {
        const values = normals(1, elementsOf(shape));
        for (const by of ["zero", { values }] as const) {
          const other = await model.run(CLEAN, {
            at: ALL,
            replace: [{ activation, by }],
            read: [activation],
          });
          assertNotEquals(other.logits, logits, activation);
          const put = by === "zero" ? new Float32Array(values.length) : values;
          const expected = isMasked(activation) ? masked(put) : put;
          assertEquals(other.activations.get(activation), expected, "what is read is what was put there");
        }
      }
    });
  });
}

gpuTest("a head, positions and keys bound what is replaced", async (gpu) => {
  await withModel(gpu, GATED, async (model) => {
    for (
      const activation of ["q", "k", "v", "z", "attn_scores", "pattern", "gate_logits", "gates"].map((x) =>
        `blocks.1.attn.hook_${x}`
      )
    ) {
      const shape = model.names.get(activation)!;
      const isMap = shape[3] === POSITIONS;
      const before = (await model.run(CLEAN, { read: [activation] })).activations.get(activation)!;
      const values = normals(2, before.length);
      const part = { head: 1, positions: [2, 4], ...(isMap ? { keys: [0, 2] } : {}) };
      const replace = [{ activation, by: { values }, ...part }];
      const after = (await model.run(CLEAN, { replace, read: [activation] })).activations.get(activation)!;
      const expected = before.map((value, n) => {
        const axes = shape.toReversed().map((extent, axis) => {
          const within = elementsOf(shape.slice(4 - axis));
          return Math.floor(n / within) % extent;
        }).toReversed();
        const [head, position] = isMap ? [axes[1], axes[2]] : [axes[2], axes[1]];
        const inside = head === 1 && part.positions.includes(position) &&
          (!isMap || [0, 2].includes(axes[3]));
        return inside ? values[n] : value;
      });
      assertEquals(after, isMasked(activation) ? masked(expected) : expected, activation);
    }
  });
});

gpuTest(
  "scores lead to the pattern, and with the bias to gates; a score of −∞ takes an edge away",
  async (gpu) => {
    await withModel(gpu, GATED, async (model) => {
      const names = ["attn_scores", "pattern", "gate_logits", "gates"].map((name) =>
        `blocks.1.attn.hook_${name}`
      );
      const read = async (replace: Replacement[]) => {
        const { activations, logits } = await model.run(CLEAN, { read: names, replace });
        return { squares: names.map((name) => activations.get(name)!), logits };
      };
      const softmax = (scores: Float32Array) =>
        scores.map((score, n) => {
          const row = scores.subarray(n - n % POSITIONS, n - n % POSITIONS + POSITIONS);
          return Math.exp(score) / row.reduce((sum, other) => sum + Math.exp(other), 0);
        });
      const assertLed = ([scores, pattern, logits, gates]: Float32Array[]) => {
        assertEquals(scores, masked(scores));
        // Measured: 1e-7.
        assertClose(pattern, softmax(scores), { tolerance: 1e-6, name: "pattern" });
        const expected = scores.map((score) => score + Math.fround(GATED.gate!.bias));
        assertEquals(logits, expected);
        assertEquals(gates, logits.map((logit) => logit > 0 ? 1 : 0));
      };
      const before = await read([]);
      assertLed(before.squares);
      const values = before.squares[0].map((score, n) => n % POSITIONS === 2 ? -Infinity : -score);
      const after = await read([{ activation: names[0], by: { values } }]);
      assertEquals(after.squares[0], masked(values));
      const isOne = (n: number) => Math.floor(n / POSITIONS) % POSITIONS === 3 && n % POSITIONS === 2;
      assert(after.squares[1].every((weight, n) => !isOne(n) || weight === 0), "an edge that was masked");
      assertLed(after.squares);
      const others = await read([{ activation: names[2], by: { values: before.squares[2].map((x) => -x) } }]);
      assertEquals(others.squares[0], before.squares[0]);
      assertEquals(others.squares[1], before.squares[1]);
      assertEquals(others.squares[3], masked(others.squares[2]).map((logit) => logit > 0 ? 1 : 0));
      for (const { logits } of [after, others]) assertNotEquals(logits, before.logits);
    });
  },
);

gpuTest("a position below 0 is counted from the end, of logits and of what is replaced", async (gpu) => {
  await withModel(gpu, GATED, async (model) => {
    const run = async (at: number[], part: { positions: number[]; keys?: number[] }) => {
      const activation = `blocks.0.attn.hook_${part.keys ? "gates" : "z"}`;
      const replace = [{ activation, by: "zero" as const, ...part }];
      return (await model.run(CLEAN, { at, replace })).logits;
    };
    assertEquals(await run([-6, 3, -1], { positions: [-1, 1] }), await run([0, 3, 5], { positions: [5, 1] }));
    assertEquals(
      await run([-1], { positions: [-1, -2], keys: [-3] }),
      await run([5], { positions: [4, 5], keys: [3] }),
    );
    assertNotEquals(await run([-1], { positions: [-1] }), await run([-1], { positions: [-2] }));
    await assertRejects(() => run([-7], { positions: [] }), RangeError, "have 6 tokens: position -7");
    await assertRejects(() => run([-1.5], { positions: [] }), RangeError, "position -1.5");
    await assertRejects(() => run([0], { positions: [-7] }), RangeError, "it has 6: -7");
    await assertRejects(() => run([0], { positions: [0], keys: [-7] }), RangeError, "it has 6: -7");
  });
});

gpuTest(
  "what tokens and positions add can be told apart, and sums to what the model begins with",
  async (gpu) => {
    // More positions than it is compiled for.
    await withModel(gpu, { ...TINY, contextLength: 20 }, async (model, { reference: { weights } }) => {
      const { width } = TINY;
      const names = ["hook_embed", "hook_pos_embed", "blocks.0.hook_resid_pre"];
      const read = async (replace: Replacement[]) => {
        const { activations, logits } = await model.run(CLEAN, { read: names, replace });
        return { ofNames: names.map((name) => activations.get(name)!), logits };
      };
      const { ofNames: [tokens, positions, both] } = await read([]);
      const [wte, wpe] = ["wte.weight", "wpe.weight"].map((name) => weights.get(name)!);
      const rowsOf = (table: ArrayLike<number>, rows: readonly number[]) =>
        Float32Array.from(
          { length: rows.length * width },
          (_, n) => table[rows[Math.floor(n / width)] * width + n % width],
        );
      assertEquals(tokens, rowsOf(wte, CLEAN.flat()));
      assertEquals(
        positions,
        rowsOf(wpe, CLEAN.flatMap(() => ALL)),
      );
      const sum = (a: Float32Array, b: Float32Array) => a.map((value, n) => value + b[n]);
      assertEquals(both, sum(tokens, positions));

      const by = { prompts: CORRUPTED };
      const ofOthers = await read([{ activation: "hook_embed", by }]);
      assertEquals(ofOthers.ofNames, [
        rowsOf(wte, CORRUPTED.flat()),
        positions,
        sum(rowsOf(wte, CORRUPTED.flat()), positions),
      ]);
      assertEquals(ofOthers.logits, (await model.run(CORRUPTED)).logits);
      const none = await read([{ activation: "hook_pos_embed", by: "zero" }]);
      assertEquals(none.ofNames, [tokens, positions.map(() => 0), tokens]);
    });
  },
);

gpuTest(
  "activations of other prompts and their mean stand in, and both agree with the engine",
  async (gpu) => {
    await withModel(gpu, TINY, async (model, sides) => {
      const set = { task: "random", metric: "logit_difference" as const, pairs: pairs.slice(0, BATCH) };
      const clean = await model.run(CLEAN, { at: ALL });
      const metricOf = (logits: Float32Array, pair: number): number => {
        const { places } = set.pairs[pair];
        const values = places.map(({ position, right, wrong }) => {
          const row = logits.subarray((pair * POSITIONS + position) * V);
          return row[right[0]] - wrong.reduce((sum, token) => sum + row[token] / wrong.length, 0);
        });
        return values.reduce((sum, value) => sum + value, 0) / values.length;
      };
      for (const ablation of ["resample", "mean"] as const) {
        const engine = await createCircuitEngine(gpu, sides, { set, ablation });
        const nodes = await engine.patchNodes("noising");
        const by = ablation === "resample" ? { prompts: CORRUPTED } : { meanOf: CORRUPTED };
        for (const [source, { kind, layer, head }] of engine.graph.sources.entries()) {
          if (kind === "embedding") continue;
          const replace = kind === "head"
            ? [{ activation: `blocks.${layer}.attn.hook_z`, head, by }]
            : [{ activation: `blocks.${layer}.hook_mlp_out`, by }];
          const { logits } = await model.run(CLEAN, { at: ALL, replace });
          const found = CLEAN.map((_, pair) => metricOf(clean.logits, pair) - metricOf(logits, pair));
          // Effects are differences of metrics, whose rounding they keep. Measured: 7.7e-6.
          assertClose(found, nodes.map((effects) => effects[source]), {
            tolerance: 1e-4,
            name: `source ${source}`,
          });
        }
        engine.destroy();
      }
    });
  },
);

gpuTest("a mean over more prompts than a batch holds is their mean", async (gpu) => {
  await withModel(gpu, TINY, async (model) => {
    const activation = "blocks.1.hook_resid_pre";
    const prompts = pairs.map(({ clean }) => clean);
    const mean = new Float64Array(POSITIONS * TINY.width);
    for (const prompt of prompts) {
      const { activations } = await model.run([prompt, prompt], { read: [activation] });
      mean.forEach((_, n) => mean[n] += activations.get(activation)![n] / prompts.length);
    }
    const { activations } = await model.run(CLEAN, {
      read: [activation],
      replace: [{ activation, by: { meanOf: prompts } }],
    });
    // Measured: 3e-8.
    assertClose(activations.get(activation)!, [...mean, ...mean], { tolerance: 1e-6, name: activation });
  });
});

gpuTest("a closed edge takes its weight away and leaves the others as they are", async (gpu) => {
  await withModel(gpu, TINY, async (model) => {
    const names = ["pattern", "gates", "z", "v"].map((name) => `blocks.0.attn.hook_${name}`);
    const edges = [{ layer: 0, head: 1, query: 4, key: 2 }];
    const before = await model.run(CLEAN, { read: names });
    const after = await model.run(CLEAN, { read: names, replace: closedEdges(edges) });
    const [pattern, gates, z, v] = names.map((name) => before.activations.get(name)!);
    assertEquals(after.activations.get(names[0]), pattern);
    const expectedGates = gates.slice();
    const expected = z.slice();
    const size = TINY.width / TINY.heads;
    for (let b = 0; b < BATCH; b++) {
      const edge = ((b * 2 + 1) * POSITIONS + 4) * POSITIONS + 2;
      expectedGates[edge] = 0;
      for (let d = 0; d < size; d++) {
        const value = v[((b * POSITIONS + 2) * 2 + 1) * size + d];
        expected[((b * POSITIONS + 4) * 2 + 1) * size + d] -= pattern[edge] * value;
      }
    }
    assertEquals(after.activations.get(names[1]), expectedGates);
    // Measured: 1e-8.
    assertClose(after.activations.get(names[2])!, expected, { tolerance: 1e-6, name: "z" });
  });
});

Deno.test("an unknown activation is told with the nearest, and with all there are in one line for all layers", () => {
  const names = activationAxes({ ...TINY, layers: 48 });
  const { message } = noActivation("blocks.7.atn.hook_z", names.keys());
  assertStringIncludes(message, "none is named blocks.7.atn.hook_z (did you mean blocks.7.attn.hook_z?)");
  const general = new Set([...names.keys()].map((name) => name.replace(/^blocks\.\d+/, "blocks.N")));
  for (const name of general) assertStringIncludes(message, name);
  assertStringIncludes(message, "for N from 0 to 47");
  assert(message.length < 900, `${message.length} characters`);
  // Of a layer that there is not, the layers that there are.
  for (const name of ["blocks.48.attn.hook_q", "blocks.100.hook_mlp_out"]) {
    assertEquals(
      noActivation(name, names.keys()).message,
      `Cannot find an activation as none is named ${name}: the model has layers 0 to 47`,
    );
  }
  // One that some layers have is not of all.
  const some = ["blocks.0.attn.hook_q", "blocks.0.hook_x", "blocks.1.hook_x"];
  assertStringIncludes(noActivation("blocks.1.attn.hook_q", some).message, "mean blocks.0.attn");
});

gpuTest("activations stand in the order in which they are computed", async (gpu) => {
  const network = await prepareNetwork(gpu, TINY, { batch: 1, context: 2, training: false });
  const sides = randomModel(gpu, TINY);
  const seen: string[] = [];
  network.upload(new Uint32Array(2), new Uint32Array(2));
  gpu.submit(
    "forward",
    (recorder) =>
      network.forward(recorder, sides.parameters, "dense", { hook: (name) => void seen.push(name) }),
  );
  network.destroy();
  const computed = [...activationAxes(TINY).keys()].filter((name) =>
    !/hook_([kv]|attn_scores|pattern|gate_logits|gates|scale|embed|pos_embed)$/.test(name)
  );
  const ofNetwork = computed.map((name) =>
    name.replace(/hook_q$/, "hook_qkv").replace("0.hook_resid_post", "1.hook_resid_pre")
  );
  assertEquals([...new Set(ofNetwork)], seen);
});

gpuTest("what an activation has not is refused", async (gpu) => {
  await withModel(gpu, TINY, async (model, sides) => {
    const refused = (replace: Parameters<Interventions["run"]>[1], message: string) =>
      assertRejects(() => model.run(CLEAN, replace), RangeError, message);
    const one = (activation: string, part = {}) => ({
      replace: [{ activation, by: "zero" as const, ...part }],
    });
    await refused(one("blocks.0.hook_nothing"), "none is named blocks.0.hook_nothing");
    await refused(one("blocks.0.hook_resid_pre", { head: 0 }), "it has none: 0");
    await refused(one("ln_final.hook_scale"), "Cannot replace ln_final.hook_scale as it can only be read");
    await refused(one("blocks.0.attn.hook_z", { head: 2 }), "it has 2: 2");
    await refused(one("blocks.0.attn.hook_z", { keys: [0] }), "keys");
    await refused(one("blocks.0.attn.hook_gates", { keys: [6] }), "it has 6: 6");
    const values = { by: { values: new Float32Array(3) } };
    await refused(one("blocks.0.attn.hook_z", values), "3 values");
    await refused(one("blocks.0.attn.hook_z", { by: { meanOf: [] } }), "no prompts");
    await refused({ at: [6] }, "position 6");
    await refused(
      { read: ["nothing"] },
      "none is named nothing: there are hook_embed, hook_pos_embed, blocks.N.",
    );
    await assertRejects(() => model.run([]), RangeError, "there must be 1 to 2: 0");
    await assertRejects(() => model.run([...CLEAN, CLEAN[0]]), RangeError, "there must be 1 to 2: 3");
    await assertRejects(() => model.run([CLEAN[0], []]), RangeError, "each has 1 to 6 tokens: 0");
    await assertRejects(() => model.run([[...CLEAN[0], 1]]), RangeError, "each has 1 to 6 tokens: 7");
    const others = (prompts: number[][]) => one("blocks.0.attn.hook_z", { by: { prompts } });
    await refused(others([CLEAN[0].slice()]), "by other prompts' as there must be 2: 1");
    await refused(others([CLEAN[0].slice(), [1]]), "by another prompt's as the prompt has 6 tokens: 1");
    const mean = one("blocks.0.attn.hook_z", { by: { meanOf: [[1, 2], [3]] } });
    await refused(mean, "at position 2 as its prompts have up to 2 tokens");
    await assertRejects(() => model.run([CLEAN[0], [0, 1, 2, 3, 4, V]]), RangeError, `below ${V}: ${V}`);
    const long = () => prepareInterventions(gpu, sides, { batch: 1, positions: 9 });
    await assertRejects(long, RangeError, "the model takes 1 to 8 tokens: 9");
    const bytes = gpu.allocatedBytes;
    await refused({ read: ["blocks.0.hook_resid_pre", "nothing"] }, "nothing");
    assertEquals(gpu.allocatedBytes, bytes, "what was refused leaves nothing on the device");
  });
});
