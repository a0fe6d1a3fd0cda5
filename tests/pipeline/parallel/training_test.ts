/**
 * Whole runs of several ranks in one process, beside one of a single rank: what they learn from, what they measure and
 * write, and that they go on where they were stopped.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { checkpointPath, readCheckpoint } from "../../../pipeline/runs/checkpoint.ts";
import { gpuTest } from "../../support/gpu.ts";
import { bitsOf, farthest, type Left, play, STEPS } from "../../support/played_ranks.ts";
import { RUN_CONFIG } from "../../support/prepared_run.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";
import { parametersOf } from "../../../pipeline/model/trace.ts";

gpuTest("fifty steps of two and of four ranks have the losses of one", async (gpu) => {
  await using folder = await temporaryFolder();
  const played = new Map<number, Left>();
  for (const size of [1, 2, 4]) {
    played.set(size, await play(gpu, size, { runs: `${folder.path}/${size}` }));
  }
  const one = played.get(1)!;
  assertEquals(one.rows.length, STEPS);
  assert(
    one.rows.some(({ open_fraction: open }) => open !== null && open > 0.1 && open < 0.9),
    "gates decide",
  );
  assert(new Set(one.rows.map(({ lambda }) => lambda)).size > 10, "λ moves");
  for (const size of [2, 4]) {
    const left = played.get(size)!;
    assertEquals(left.finished, Array.from({ length: size }, () => true));
    assertEquals(
      left.rows.map(({ step, tokens }) => [step, tokens]),
      one.rows.map(({ step, tokens }) => [step, tokens]),
    );
    // Largest seen: 5e-7 of CE and λ, 2e-7 of the validation loss.
    for (const name of ["ce", "lambda", "expected_open", "validation_ce"] as const) {
      const off = farthest(one, left, name);
      assert(off < 1e-5, `${name} of ${size} ranks is ${off} from that of one`);
    }
    for (const name of ["dense_validation_ce", "target_loss", "test_tokens", "tokens"] as const) {
      const off = Math.abs(left.summary![name] - one.summary![name]);
      assert(off < 1e-6, `${name} of ${size} ranks is ${off} from that of one`);
    }
  }
});

gpuTest(
  "the same ranks have the same bits every time, also where they were stopped and went on",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const whole = await play(gpu, 2, { runs: `${folder.path}/whole` });
    const again = await play(gpu, 2, { runs: `${folder.path}/again` });
    assertEquals(bitsOf(again), bitsOf(whole));
    assertEquals(again.weights, whole.weights);
    // Rank 1 is asked, and both stop at the same step.
    const runs = `${folder.path}/stopped`;
    const stopped = await play(gpu, 2, { runs, step: 14, stopAfter: { rank: 1, step: 14 } });
    assertEquals(stopped.finished, [false, false]);
    assertEquals(stopped.rows.length, 14);
    const gone = await play(gpu, 2, { runs, goesOnIn: stopped.folder });
    assertEquals(bitsOf(gone), bitsOf(whole));
    assertEquals(gone.weights, whole.weights);
  },
);

gpuTest("a run of two ranks goes on as one rank, or four, to the same losses", async (gpu) => {
  await using folder = await temporaryFolder();
  const whole = await play(gpu, 2, { runs: `${folder.path}/whole` });
  for (const size of [1, 4]) {
    const runs = `${folder.path}/${size}`;
    const stopped = await play(gpu, 2, { runs, step: 20, stopAfter: { rank: 0, step: 20 } });
    const gone = await play(gpu, size, { runs, goesOnIn: stopped.folder });
    assertEquals(gone.rows.length, STEPS);
    const off = farthest(whole, gone, "ce");
    assert(off < 1e-5, `losses are ${off} from those of two ranks`);
    assertNotEquals(bitsOf(gone), bitsOf(whole));
  }
});

/** Every tensor in the checkpoint of a step. */
async function checkpointed({ folder }: Left, step: number): Promise<Map<string, Float32Array>> {
  const checkpoint = await readCheckpoint(checkpointPath(folder.checkpoints, { phase: "sparse", step }));
  const found = new Map<string, Float32Array>();
  for (const { name, shape } of parametersOf(RUN_CONFIG)) {
    for (const kind of ["weight", "first", "second"]) {
      found.set(`${kind}.${name}`, await checkpoint.read(`${kind}.${name}`, shape));
    }
  }
  return found;
}

gpuTest(
  "ranks that keep the moments of their share alone have the bits of those that keep all, in rows and checkpoints",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const settings = { steps: 20 };
    for (const size of [2, 4]) {
      const runs = `${folder.path}/${size}`;
      const whole = await play(gpu, size, { runs: `${runs}-whole`, settings });
      const divided = { ...settings, shardOptimizer: true };
      const shared = await play(gpu, size, { runs: `${runs}-divided`, settings: divided });
      assertEquals(shared.finished, Array.from({ length: size }, () => true));
      assertEquals(bitsOf(shared), bitsOf(whole));
      const saved = await checkpointed(shared, 20);
      assertEquals(saved, await checkpointed(whole, 20));
      assert([...saved.values()].every((values) => values.some((value) => value !== 0)), "all have moved");
      assertEquals(shared.summary!.sparse, whole.summary!.sparse);
    }
  },
);

gpuTest(
  "a run whose ranks keep their share alone goes on with as many that keep all to the same bits, and with others to the same losses",
  async (gpu) => {
    await using folder = await temporaryFolder();
    const settings = { steps: 20 };
    const whole = await play(gpu, 2, { runs: `${folder.path}/whole`, settings });
    const divided = { ...settings, shardOptimizer: true };
    for (
      const { first, size, then } of [
        { first: divided, size: 2, then: settings },
        { first: settings, size: 2, then: divided },
        { first: divided, size: 4, then: divided },
        { first: divided, size: 1, then: divided },
      ]
    ) {
      const runs = await Deno.makeTempDir({ dir: folder.path });
      const stopAfter = { rank: 1, step: 9 };
      const stopped = await play(gpu, 2, { runs, settings: first, step: 9, stopAfter });
      const gone = await play(gpu, size, { runs, settings: then, goesOnIn: stopped.folder });
      if (size === 2) {
        assertEquals(bitsOf(gone), bitsOf(whole));
        assertEquals(gone.weights, whole.weights);
      } else {
        const off = farthest(whole, gone, "ce");
        assert(off < 1e-5, `losses are ${off} from those of two ranks`);
      }
    }
  },
);
