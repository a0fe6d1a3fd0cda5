import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { type HubShards, openHubData } from "../../../pipeline/hub/data.ts";
import { fetchModel } from "../../../pipeline/hub/model.ts";
import layout from "../../fixtures/hub/layout.json" with { type: "json" };
import { dataSet, environmentOf, layoutOf, shardedModel } from "../../support/hub_files.ts";
import { commitOf, type HubServer, startHub } from "../../support/hub_server.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const SET = await dataSet();
const FILES = SET.revisions["refs/convert/parquet"];
const COMMIT = commitOf(FILES);

function open(
  hub: Pick<HubServer, "endpoint">,
  cache: string,
  source: string,
  { offline = false, token }: { offline?: boolean; token?: string } = {},
): Promise<HubShards> {
  const environment = environmentOf(hub, cache, { offline, ...(token ? { token } : {}) });
  const quick = { environment, firstPause: 1 };
  return openHubData(source, quick);
}

/** Brings all files of a split. */
async function all(shards: HubShards): Promise<string[]> {
  const paths: string[] = [];
  for (let n = 0;; n++) {
    const path = await shards.file(n);
    if (path === undefined) return paths;
    paths.push(path);
  }
}

Deno.test("a split's files come one by one when they are asked for, and no others", async () => {
  await using hub = startHub([SET]);
  await using cache = await temporaryFolder();
  const shards = await open(hub, cache.path, "hf:owner/data");
  assertEquals(shards.name, `hf:owner/data@${COMMIT}:default/train`);
  assertEquals(hub.sent.size, 0);
  for (const n of [0, 1, 2, 3]) {
    const path = await shards.file(n);
    assertEquals(await Deno.readFile(path!), FILES[`default/train/000${n}.parquet`]);
    assertEquals(hub.sent.size, n + 1);
  }
  assertEquals(await shards.file(4), undefined);
  assertEquals(hub.sent.size, 4);
});

Deno.test("the cache is the one that huggingface_hub leaves, to the last file", async () => {
  await using hub = startHub([SET, shardedModel()]);
  await using cache = await temporaryFolder();
  await fetchModel("owner/model", { environment: environmentOf(hub, cache.path) });
  const shards = await open(hub, cache.path, "hf:owner/data");
  await shards.file(0);
  await shards.file(1);
  // Its listings of whole repositories are its own.
  const theirs = Object.entries(layout.layout).filter(([path]) => !path.includes("/trees/"));
  assertEquals(Object.entries(await layoutOf(cache.path)).sort(), theirs.sort());
});

Deno.test("parts and splits are found by name, also of a data set too large to be converted whole", async () => {
  await using hub = startHub([SET]);
  await using cache = await temporaryFolder();
  const names: Record<string, [name: string, files: string[]]> = {
    "hf:owner/data/test": ["default/test", ["default/test/0000.parquet"]],
    "hf:owner/data:default/test": ["default/test", ["default/test/0000.parquet"]],
    "hf:owner/data:sums": ["sums/train", [
      "sums/partial-train/0000.parquet",
      "sums/partial-train/0001.parquet",
    ]],
  };
  for (const [source, [name, files]] of Object.entries(names)) {
    const shards = await open(hub, cache.path, source);
    assertEquals(shards.name, `hf:owner/data@${COMMIT}:${name}`);
    const root = `${cache.path}/datasets--owner--data/snapshots/${COMMIT}/`;
    assertEquals(await all(shards), files.map((path) => root + path));
  }
});

Deno.test("what has come is used without the net, to the end of the split and no further", async () => {
  await using hub = startHub([SET]);
  await using cache = await temporaryFolder();
  const source = "hf:owner/data:sums";
  const shards = await open(hub, cache.path, source);
  await shards.file(0);
  const offline = await open(hub, cache.path, source, { offline: true });
  assertEquals(offline.name, shards.name);
  await offline.file(0);
  await assertRejects(() => offline.file(1), UserError, "HF_HUB_OFFLINE forbids to ask the hub");
  await shards.file(1);
  const asked = hub.asked.length;
  const paths = await all(offline).catch(() => []);
  assertEquals(paths.length, 2);
  // By its whole name nobody is asked either, until something is missing.
  assertEquals(await all(await open(hub, cache.path, shards.name)), paths);
  assertEquals(hub.asked.length, asked);
  await Deno.remove(paths[1]);
  // A hub that could not be asked once is asked again.
  const again = await open(hub, cache.path, shards.name);
  hub.fault = () => ({ status: 503, retryAfter: 0 });
  await assertRejects(() => again.file(1), UserError);
  hub.fault = () => undefined;
  assertEquals(await again.file(1).catch(({ message }) => message), paths[1]);
  await Deno.remove(paths[1]);
  assertEquals(await all(await open(hub, cache.path, shards.name)), paths);
});

Deno.test("a data set that the hub has made nothing of gives its own Parquet", async () => {
  const [one, two] = ["default/train/0000.parquet", "default/train/0001.parquet"].map((path) => FILES[path]);
  const own = {
    "README.md": new Uint8Array(4),
    "data/train-00000-of-00002.parquet": one,
    "data/train-00001-of-00002.parquet": two,
    "data/test-00000-of-00001-0123abcd.parquet": two,
    "other/train-00000-of-00001.parquet": two,
  };
  await using hub = startHub([await dataSet({ revisions: { main: own }, private: "secret" })]);
  await using cache = await temporaryFolder();
  const options = { token: "secret" };
  const shards = await open(hub, cache.path, "hf:owner/data", options);
  assertEquals(shards.name, `hf:owner/data@${commitOf(own)}:default/train`);
  const paths = await all(shards);
  assertEquals(await Promise.all(paths.map((path) => Deno.readFile(path))), [one, two]);
  assertEquals(await all(await open(hub, cache.path, shards.name, options)), paths);
  assertEquals((await all(await open(hub, cache.path, "hf:owner/data/test", options))).length, 1);
  assertEquals((await all(await open(hub, cache.path, "hf:owner/data:other", options))).length, 1);
});

Deno.test("a data set that was renamed, at a hub that is busy now and then, is found and its files come whole", async () => {
  await using hub = startHub([await dataSet({ name: "old/data", renamed: "owner/data" }), SET]);
  await using cache = await temporaryFolder();
  const left = new Map<string, number>();
  // Every request is refused once, the second time the next is made.
  hub.fault = (path, { host, path: asked }) => {
    const key = `${host} ${path} ${asked}`;
    const times = left.get(key) ?? 0;
    left.set(key, times + 1);
    return times === 0 ? { status: left.size % 2 ? 429 : 503, retryAfter: 0 } : undefined;
  };
  const shards = await open(hub, cache.path, "hf:old/data/test");
  const [path, ...others] = await all(shards);
  assertEquals(await Deno.readFile(path), FILES["default/test/0000.parquet"]);
  assertEquals(others, []);
  assert([...left.values()].some((times) => times > 1));
});

Deno.test("each refusal of data is one sentence that says what there is", async () => {
  const bare = { "README.md": new Uint8Array(4) };
  await using hub = startHub([
    SET,
    await dataSet({ name: "owner/gated", gated: "secret" }),
    await dataSet({ name: "owner/bare", revisions: { main: bare } }),
  ]);
  await using cache = await temporaryFolder();
  const sentences: Record<string, string> = {
    "hf:owner/none": "has no such data set, or shows it to some accounts only",
    "hf:owner/gated": `as it is gated: ask for access at ${hub.endpoint}/datasets/owner/gated`,
    "hf:owner/bare": "as the hub has no Parquet of it",
    "hf:owner/data:en": "Cannot find the part of hf:owner/data called en: there are :default, :sums",
    "hf:owner/data/dev": "Cannot find the split of hf:owner/data:default called dev: there are /train, /test",
    "hf:owner/data@v9": "it has no revision v9",
    "hf:": "must be of the form hf:owner/name[@revision][:config][/split]",
    "hf:owner/../x": "must be of the form",
  };
  for (const [source, sentence] of Object.entries(sentences)) {
    const { message } = await assertRejects(
      async () => await (await open(hub, cache.path, source)).file(0),
      UserError,
    );
    assertStringIncludes(message, sentence);
  }
});

Deno.test("a listing that leads out of the cache, or names no digest, is refused", async () => {
  await using cache = await temporaryFolder();
  const sha = "a".repeat(40);
  const entries = [
    { type: "file", path: "../x/config.json", size: 1, oid: sha },
    { type: "file", path: "config.json", size: 1, oid: "../../blob" },
    { type: "file", path: "config.json", size: -1, oid: sha },
    { type: "file", path: "config.json", size: 1, oid: sha, lfs: { oid: sha, size: 1 } },
    { type: "file", path: "a\\b", size: 1, oid: sha },
    "config.json",
  ];
  for (const entry of entries) {
    const server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      ({ url }) => Response.json(url.includes("/tree/") ? [entry] : { sha, id: "owner/model" }),
    );
    const endpoint = `http://127.0.0.1:${server.addr.port}`;
    await assertRejects(
      () => fetchModel("owner/model", { environment: environmentOf({ endpoint }, cache.path) }),
      UserError,
      "as the hub lists what is no file",
    );
    await server.shutdown();
  }
});
