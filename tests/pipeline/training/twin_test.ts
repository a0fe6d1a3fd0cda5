/** Whole steps against their twin in PyTorch (tests/peers/twin.py): batches, noise, probes, optimiser and controller. */
import { assertEquals } from "@std/assert";
import { readMetrics } from "../../../pipeline/runs/metrics.ts";
import { EXPECTED, runOfTwin } from "../../peers/twin_fixture.ts";
import { assertClose } from "../../support/compare.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

Deno.test("five steps of a Llama by the command are those of their twin in PyTorch", async () => {
  const expected: Record<string, number>[] = JSON.parse(await Deno.readTextFile(EXPECTED));
  await using folder = await temporaryFolder();
  const rows = await readMetrics(`${await runOfTwin(folder.path)}/metrics.arrows`);
  assertEquals(rows.length, 5);
  for (const name of new Set(expected.flatMap((row) => Object.keys(row)))) {
    const [ours, theirs] = [rows, expected].map((of) =>
      (of as unknown as Record<string, number | null>[]).map((row) => row[name] ?? NaN)
    );
    assertEquals(ours.map(Number.isNaN), theirs.map(Number.isNaN), name);
    const measured = (values: number[]): number[] => values.filter((value) => !Number.isNaN(value));
    // Measured: 3e-7 at most; 7e-6 of the divergence and 5e-5 of a violation, which are differences of near equals.
    assertClose(measured(ours), measured(theirs), { tolerance: 1e-5, name });
  }
});
