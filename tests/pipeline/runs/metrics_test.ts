import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { join } from "node:path";
import { RecordBatchReader } from "apache-arrow";
import { UserError } from "../../../pipeline/errors.ts";
import { createMetricsReader, openMetrics, readMetrics } from "../../../pipeline/runs/metrics.ts";
import { metricRow } from "../../support/metric_row.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

Deno.test("metrics are appended and read back, nulls and lists too, also by a plain Arrow reader", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const rows = [
    metricRow(1),
    metricRow(2, { open_by_head: [0.5, 0.25], validation_ce: 2.5 }),
    metricRow(3, { lambda: null, lambda_acting: null }),
  ];
  const file = await openMetrics(path);
  await file.append(rows.slice(0, 2));
  await file.append([]);
  await file.append(rows.slice(2));
  file.close();
  assertEquals(await readMetrics(path), rows);
  const batches = [...RecordBatchReader.from(await Deno.readFile(path))];
  assertEquals(batches.map(({ numRows }) => numRows), [2, 1]);
});

Deno.test("a metrics file cut at any byte reads up to its last whole batch and is appended to from there", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const file = await openMetrics(path);
  for (let step = 1; step <= 3; step++) await file.append([metricRow(step)]);
  file.close();
  const bytes = await Deno.readFile(path);
  const torn = join(folder.path, "torn.arrows");
  let seen = 0;
  for (let length = 0; length < bytes.length; length += 97) {
    await Deno.writeFile(torn, bytes.subarray(0, length));
    const before = await readMetrics(torn);
    assert(before.length >= seen && before.length < 3);
    seen = before.length;
    const again = await openMetrics(torn);
    await again.append([metricRow(9)]);
    again.close();
    assertEquals((await readMetrics(torn)).map(({ step }) => step), [...before.map(({ step }) => step), 9]);
  }
  assertEquals(seen, 2);
});

Deno.test("resuming drops the rows of later steps and phases", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const file = await openMetrics(path);
  for (const step of [1, 2, 3]) await file.append([metricRow(step)]);
  await file.append([metricRow(1, { phase: "control" })]);
  file.close();
  const steps = async () => (await readMetrics(path)).map(({ phase, step }) => `${phase} ${step}`);
  (await openMetrics(path, { phase: "control", step: 5 })).close();
  assertEquals((await steps()).length, 4);
  (await openMetrics(path, { phase: "sparse", step: 2 })).close();
  assertEquals(await steps(), ["sparse 1", "sparse 2"]);
  (await openMetrics(path, { phase: "pretrain", step: 0 })).close();
  assertEquals(await steps(), []);
});

Deno.test("a file that is no metrics file is refused", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  await Deno.writeFile(path, new Uint8Array(10_000));
  await assertRejects(() => openMetrics(path), UserError, "no metrics file");
});

Deno.test("a metrics file with any bit flipped is cut to the last batch before it, which is said", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const file = await openMetrics(path);
  const ends: number[] = [];
  for (let step = 1; step <= 3; step++) {
    await file.append([metricRow(step)]);
    ends.push((await Deno.stat(path)).size);
  }
  file.close();
  const bytes = await Deno.readFile(path);
  const flipped = join(folder.path, "flipped.arrows");
  // Every seventh byte of the second batch.
  for (let at = ends[0]; at < ends[1]; at += 7) {
    const damaged = bytes.slice();
    damaged[at] ^= 1 << at % 8;
    await Deno.writeFile(flipped, damaged);
    const reader = createMetricsReader(flipped);
    assertEquals((await reader.read()).map(({ step }) => step), [1], `byte ${at}`);
    const opened = await openMetrics(flipped, { phase: "sparse", step: 3 });
    opened.close();
    assertMatch(
      opened.problem!,
      /cut to the sparse phase's step 1, and the rows from there to .* step 3 are lost/,
    );
    assertEquals((await Deno.stat(flipped)).size, ends[0]);
  }
});

Deno.test("a batch that is missing, moved or another run's ends the file", async () => {
  await using folder = await temporaryFolder();
  const write = async (name: string, run: string) => {
    const path = join(folder.path, name);
    const file = await openMetrics(path, undefined, run);
    const ends: number[] = [(await Deno.stat(path)).size];
    for (let step = 1; step <= 3; step++) {
      await file.append([metricRow(step)]);
      ends.push((await Deno.stat(path)).size);
    }
    file.close();
    return { bytes: await Deno.readFile(path), ends };
  };
  const [mine, other] = [await write("mine", "a"), await write("other", "b")];
  const part = ({ bytes, ends }: typeof mine, n: number) => bytes.slice(n === 0 ? 0 : ends[n - 1], ends[n]);
  const path = join(folder.path, "metrics.arrows");
  for (
    const [parts, kept] of [
      [[part(mine, 0), part(mine, 1), part(mine, 3)], 1],
      [[part(mine, 0), part(mine, 2), part(mine, 1), part(mine, 3)], 0],
      [[part(mine, 0), part(mine, 1), part(other, 2)], 1],
      [[part(other, 0), part(other, 1)], 0],
    ] as [Uint8Array<ArrayBuffer>[], number][]
  ) {
    await Deno.writeFile(path, new Uint8Array(await new Blob(parts).arrayBuffer()));
    const opened = await openMetrics(path, { phase: "sparse", step: 3 }, "a");
    opened.close();
    assertMatch(opened.problem!, /are lost/);
    assertEquals((await readMetrics(path)).length, kept);
  }
});

Deno.test("a metrics file that has another name too is not changed under that, and one of another's not at all", async () => {
  await using folder = await temporaryFolder();
  const [path, backup] = [join(folder.path, "metrics.arrows"), join(folder.path, "backup")];
  const file = await openMetrics(path);
  await file.append([metricRow(1)]);
  file.close();
  await Deno.link(path, backup);
  const before = await Deno.readFile(backup);
  const again = await openMetrics(path);
  await again.append([metricRow(2)]);
  again.close();
  assertEquals(await Deno.readFile(backup), before);
  assertEquals((await readMetrics(path)).map(({ step }) => step), [1, 2]);
  await Deno.writeTextFile(path, "my diary");
  await assertRejects(() => openMetrics(path), UserError, "no metrics file");
  assertEquals(await Deno.readTextFile(path), "my diary");
});

Deno.test("a row of no phase ends the file", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const file = await openMetrics(path);
  await file.append([metricRow(1)]);
  await file.append([metricRow(2, { phase: null as never })]);
  file.close();
  const reader = createMetricsReader(path);
  assertEquals([(await reader.read()).length, reader.damaged], [1, true]);
});

Deno.test("a run resumed within a batch of rows has the rows of one that was never killed", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const rows = [1, 2, 3, 4, 5, 6].map((step) => metricRow(step));
  const killed = await openMetrics(path);
  await killed.append(rows.slice(0, 1));
  await killed.append(rows.slice(1, 4));
  await killed.append(rows.slice(4, 5));
  killed.close();
  const resumed = await openMetrics(path, { phase: "sparse", step: 3 });
  assertEquals(await readMetrics(path), rows.slice(0, 3));
  await resumed.append(rows.slice(3));
  resumed.close();
  assertEquals(await readMetrics(path), rows);
  assertEquals((await Array.fromAsync(Deno.readDir(folder.path))).length, 1, "nothing temporary is left");
});

Deno.test("a batch whose length leads back to its own start ends the file", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "metrics.arrows");
  const file = await openMetrics(path);
  await file.append([metricRow(1)]);
  file.close();
  const torn = new Uint8Array(64);
  new DataView(torn.buffer).setUint32(0, 0xffffffff);
  new DataView(torn.buffer).setInt32(4, -8, true);
  await Deno.writeFile(path, torn, { append: true });
  assertEquals(await readMetrics(path), [metricRow(1)]);
});
