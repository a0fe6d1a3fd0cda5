import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { MOST_FAILURES } from "../../../pipeline/hub/client.ts";
import { fetchModel, type FetchModelOptions } from "../../../pipeline/hub/model.ts";
import { environmentOf, layoutOf, MODEL_FILES, shardedModel, someBytes } from "../../support/hub_files.ts";
import { commitOf, etagOf, type HubServer, LARGE, startHub } from "../../support/hub_server.ts";
import { seeded } from "../../support/seeded.ts";
import { temporaryFolder } from "../../support/temporary_folder.ts";

const FILES = shardedModel().revisions.main;
const COMMIT = commitOf(FILES);
const FOLDER = "models--owner--model";
/** Of the files that hold the same bytes one comes. */
const COMING = MODEL_FILES.filter((path) => path !== "generation_config.json");
const bytesOfModel = COMING.reduce((sum, path) => sum + FILES[path].length, 0);

/** Fetches a model quickly: pauses between tries are a millisecond. */
function fetchQuickly(
  hub: Pick<HubServer, "endpoint">,
  cache: string,
  { model = "owner/model", token, offline, ...options }:
    & FetchModelOptions
    & { model?: string; token?: string; offline?: boolean; firstPause?: number; patience?: number } = {},
) {
  const environment = environmentOf(hub, cache, { ...(token ? { token } : {}), offline: offline ?? false });
  const quick = { firstPause: 1, ...options };
  return fetchModel(model, { environment, ...quick });
}

/** As {@link fetchQuickly}, and it must come to its end. */
async function fetched(...[hub, cache, options]: Parameters<typeof fetchQuickly>) {
  const outcome = await fetchQuickly(hub, cache, options).catch((error) => error as Error);
  assert(!(outcome instanceof Error), `${outcome}`);
  return outcome;
}

/** The message of the one sentence that a fetch ends with. */
async function refusal(
  hub: HubServer,
  cache: string,
  options: Parameters<typeof fetchQuickly>[2],
): Promise<string> {
  const { message } = await assertRejects(() => fetchQuickly(hub, cache, options), UserError);
  assert(!message.includes("\n"), message);
  return message;
}

async function assertWhole(cache: string, paths: readonly string[] = MODEL_FILES): Promise<void> {
  for (const path of paths) {
    const bytes = await Deno.readFile(`${cache}/${FOLDER}/snapshots/${COMMIT}/${path}`).catch(() =>
      undefined
    );
    assertEquals(bytes, FILES[path], path);
  }
}

Deno.test("a model's own files come and no others, into the cache that Python's package keeps", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  const seen: { done: number; of: number }[] = [];
  const { folder, name } = await fetchQuickly(hub, cache.path, { onBytes: (bytes) => seen.push(bytes) });
  assertEquals(folder, `${cache.path}/${FOLDER}/snapshots/${COMMIT}`);
  assertEquals(name, `owner/model@${COMMIT}`);
  await assertWhole(cache.path);
  const layout = await layoutOf(cache.path);
  const expected: Record<string, string | number> = {
    "CACHEDIR.TAG": 191,
    [`${FOLDER}/refs/main`]: 40,
  };
  for (const path of MODEL_FILES) {
    const etag = etagOf(FILES[path]);
    expected[`${FOLDER}/blobs/${etag}`] = FILES[path].length;
    expected[`.locks/${FOLDER}/${etag}.lock`] = 0;
    expected[`${FOLDER}/snapshots/${COMMIT}/${path}`] = `../../blobs/${etag}`;
  }
  assertEquals(layout, expected);
  assertEquals(await Deno.readTextFile(`${cache.path}/${FOLDER}/refs/main`), COMMIT);
  // Small files before the weights, each told to its end.
  const ends = seen.filter(({ done, of }) => done === of);
  assertEquals(ends.map(({ of }) => of).reduce((sum, of) => sum + of), bytesOfModel);
  assert(seen.every(({ done, of }) => done >= 0 && done <= of));
});

Deno.test("what is there is not fetched again: one question, and none for a commit or without the net", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  const { folder } = await fetchQuickly(hub, cache.path);
  const asked = hub.asked.length;
  assertEquals((await fetchQuickly(hub, cache.path)).folder, folder);
  assertEquals(hub.asked.slice(asked).map(({ path }) => path), ["/api/models/owner/model/revision/main"]);
  const before = hub.asked.length;
  assertEquals((await fetchQuickly(hub, cache.path, { model: `owner/model@${COMMIT}` })).folder, folder);
  assertEquals((await fetchQuickly(hub, cache.path, { offline: true })).folder, folder);
  assertEquals((await fetchQuickly(hub, cache.path, { cacheOnly: true })).folder, folder);
  assertEquals(hub.asked.length, before);
});

Deno.test("where the hub cannot be reached the cache serves, which is said", async () => {
  await using cache = await temporaryFolder();
  const hub = startHub([shardedModel()]);
  const { folder } = await fetchQuickly(hub, cache.path);
  await hub[Symbol.asyncDispose]();
  const said: string[] = [];
  const again = await fetchQuickly(hub, cache.path, { onMessage: (text) => said.push(text) });
  assertEquals(again.folder, folder);
  assertEquals(said.length, 1);
  assertStringIncludes(said[0], `it is taken as the cache has it, commit ${COMMIT}`);
  await using other = await temporaryFolder();
  assertStringIncludes(await refusal(hub, other.path, {}), "cannot be reached, 3 times in a row");
});

Deno.test("offline, what is not in the cache whole is refused and nobody is asked", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  assertStringIncludes(
    await refusal(hub, cache.path, { offline: true }),
    `as it is not in the cache, whole, at ${cache.path}/${FOLDER}, and HF_HUB_OFFLINE forbids to ask the hub`,
  );
  assertEquals(hub.asked, []);
  const { folder } = await fetchQuickly(hub, cache.path);
  await Deno.remove(`${folder}/model-2.safetensors`);
  assertStringIncludes(await refusal(hub, cache.path, { offline: true }), "not in the cache, whole");
});

Deno.test("cut off a hundred times at random bytes, every file is whole at the end and no byte came twice", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  const random = seeded(7);
  let cuts = 0;
  hub.fault = (path, { host }) => {
    if (host !== "storage" || cuts >= 100) return undefined;
    cuts++;
    return { cutAfter: 1 + Math.floor(600 * random.uniform() * (path === "model-3.safetensors" ? 0.05 : 1)) };
  };
  await fetched(hub, cache.path);
  assertEquals(cuts, 100);
  await assertWhole(cache.path);
  for (const path of COMING) {
    assertEquals(hub.sent.get(path)! - FILES[path].length, 0, path);
  }
  const ranges = hub.asked.filter(({ host, range }) => host === "storage" && range !== undefined);
  assert(ranges.length >= 90, `${ranges.length} requests for a part`);
});

Deno.test("stopped a hundred times by the user, a file goes on each time from where it was", async () => {
  const weights = someBytes(120_000, 9);
  const model = shardedModel({
    revisions: {
      main: {
        "config.json": FILES["config.json"],
        "tokenizer.json": FILES["tokenizer.json"],
        "model.safetensors": weights,
      },
    },
  });
  await using hub = startHub([model]);
  await using cache = await temporaryFolder();
  const random = seeded(8);
  let stops = 0;
  let lost = 0;
  while (stops < 100) {
    const stop = new AbortController();
    const limit = Math.floor(1 + 1000 * random.uniform());
    let come = 0;
    let there = 0;
    const result = await fetchQuickly(hub, cache.path, {
      signal: stop.signal,
      onBytes: ({ done, of }) => {
        if (of < 100_000) return;
        come = done - (there ||= done);
        if (come >= limit) stop.abort(new Error("stopped"));
      },
    }).catch((error) => {
      assertEquals(error.message, "stopped");
      return undefined;
    });
    if (result) break;
    stops++;
  }
  const { folder } = await fetchQuickly(hub, cache.path);
  assertEquals(await Deno.readFile(`${folder}/model.safetensors`), weights);
  const ranges = hub.asked.filter(({ host, path, range }) =>
    host === "storage" && path.includes("model") && range
  )
    .map(({ range }) => Number(/\d+/.exec(range!)![0]));
  // Each begins behind the one before: nothing that was kept is asked for again.
  ranges.forEach((from, n) => lost += n > 0 && from <= ranges[n - 1] ? 1 : 0);
  assertEquals(lost, 0);
  assert(ranges.length >= 50, `${ranges.length}`);
});

Deno.test("a corrupted byte is found and named, in small files and in large ones, and does not stay", async () => {
  for (const path of ["model-2.safetensors", "config.json"]) {
    await using hub = startHub([shardedModel()]);
    await using cache = await temporaryFolder();
    let damaged = false;
    hub.fault = (asked) => asked === path && !damaged ? (damaged = true, { flip: 17 }) : undefined;
    const message = await refusal(hub, cache.path, {});
    assertStringIncludes(
      message,
      `Cannot use ${path} of owner/model as it came damaged and has been thrown away`,
    );
    assertStringIncludes(message, etagOf(FILES[path]));
    assertEquals(
      Object.keys(await layoutOf(cache.path)).filter((name) => name.includes(etagOf(FILES[path]))),
      [
        `.locks/${FOLDER}/${etagOf(FILES[path])}.lock`,
      ],
    );
    await fetchQuickly(hub, cache.path);
    await assertWhole(cache.path);
  }
});

Deno.test("what was damaged on the disk while it was incomplete is found too", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  const etag = etagOf(FILES["model-1.safetensors"]);
  const blobs = `${cache.path}/${FOLDER}/blobs`;
  await Deno.mkdir(blobs, { recursive: true });
  const part = FILES["model-1.safetensors"].slice(0, 5000);
  part[100] ^= 4;
  await Deno.writeFile(`${blobs}/${etag}.incomplete`, part);
  assertStringIncludes(
    await refusal(hub, cache.path, {}),
    "model-1.safetensors of owner/model as it came damaged",
  );
});

Deno.test("a server that knows no parts gives all of it anew; one that gives another part is asked again", async () => {
  for (const fault of ["noRange", "wrongPart"] as const) {
    await using hub = startHub([shardedModel()]);
    await using cache = await temporaryFolder();
    let requests = 0;
    hub.fault = (path) => {
      if (path !== "model-1.safetensors") return undefined;
      requests++;
      return requests === 1 ? { cutAfter: 5000 } : requests === 2 ? fault : undefined;
    };
    const seen: { done: number; of: number }[] = [];
    await fetched(hub, cache.path, { onBytes: (bytes) => seen.push(bytes) });
    await assertWhole(cache.path);
    assertEquals(requests, fault === "noRange" ? 2 : 3);
    assert(seen.every(({ done, of }) => done >= 0 && done <= of));
  }
});

Deno.test("a part that is longer than the whole, as the hub lists it, is fetched anew", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  const etag = etagOf(FILES["model-1.safetensors"]);
  const blobs = `${cache.path}/${FOLDER}/blobs`;
  await Deno.mkdir(blobs, { recursive: true });
  // Longer than the whole: it cannot be a part of it, and is fetched anew.
  await Deno.writeFile(`${blobs}/${etag}.incomplete`, new Uint8Array(50_000));
  await fetchQuickly(hub, cache.path);
  await assertWhole(cache.path);
});

Deno.test("a hub that is busy is asked again when it says, and given up in the end", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  let refused = 0;
  hub.fault = (path) => {
    if (path !== "model-1.safetensors" || refused >= 3) return undefined;
    return { status: [429, 503, 500][refused++], retryAfter: 0 };
  };
  await fetchQuickly(hub, cache.path);
  assertEquals(refused, 3);
  await assertWhole(cache.path);
  await using other = await temporaryFolder();
  let tries = 0;
  hub.fault = (path) => path === "config.json" ? (tries++, { status: 503 }) : undefined;
  const message = await refusal(hub, other.path, {});
  assertEquals(tries, MOST_FAILURES);
  assertStringIncludes(message, "Cannot fetch config.json of owner/model as 127.0.0.1:");
  assertStringIncludes(message, "answered 503, 6 times in a row; what has come stays");
});

Deno.test("an API that is busy is asked again when it says, for the commit and for each page of the listing", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  const past = new Date(Date.now() - 60_000).toUTCString();
  const faults: Record<string, { status: number; retryAfter?: number | string }[]> = {
    "api revision": [{ status: 429, retryAfter: 0 }, { status: 503, retryAfter: past }],
    "api tree": [{ status: 503 }, { status: 429, retryAfter: 0 }, { status: 500 }],
  };
  hub.fault = (path) => faults[path]?.shift();
  await fetched(hub, cache.path);
  assertEquals(Object.values(faults), [[], []]);
  await assertWhole(cache.path);
});

Deno.test("an API that stays busy is given up in one sentence; who has the model waits for no other answer", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  let tries = 0;
  const busy = (status: number) => (path: string) =>
    path === "api revision" ? (tries++, { status, retryAfter: 0 }) : undefined;
  hub.fault = busy(429);
  assertStringIncludes(await refusal(hub, cache.path, {}), "answered 429, 3 times in a row");
  assertEquals([tries, hub.sent.size], [3, 0]);
  hub.fault = () => undefined;
  const { folder } = await fetched(hub, cache.path);
  for (const status of [429, 503]) {
    tries = 0;
    hub.fault = busy(status);
    const said: string[] = [];
    const again = await fetched(hub, cache.path, { onMessage: (text) => said.push(text) });
    assertEquals([again.folder, tries], [folder, 1]);
    assertStringIncludes(said.join(), `it is taken as the cache has it, commit ${COMMIT}`);
  }
});

Deno.test("more bytes than the hub lists are refused, and what came before them stays", async () => {
  for (const path of ["config.json", "model-2.safetensors"]) {
    await using hub = startHub([shardedModel()]);
    await using cache = await temporaryFolder();
    hub.fault = (asked) => asked === path ? "tooMuch" : undefined;
    assertStringIncludes(
      await refusal(hub, cache.path, {}),
      `Cannot use ${path} of owner/model as more comes than the ${
        FILES[path].length
      } bytes that the hub lists`,
    );
    hub.fault = () => undefined;
    await fetched(hub, cache.path);
    await assertWhole(cache.path);
  }
});

Deno.test("a wait that the hub asks for is said, one of hours is shortened, and Ctrl-C ends it", async () => {
  const inHours = new Date(Date.now() + 3 * 3600_000).toUTCString();
  const faults = [
    { path: "config.json", status: 429, retryAfter: 7, said: "answered 429: trying again in 7 s" },
    // A date, which is three hours from now.
    { path: "api revision", status: 503, retryAfter: inHours, said: "answered 503: trying again in 300 s" },
  ];
  for (const { path: at, said: expected, ...fault } of faults) {
    await using hub = startHub([shardedModel()]);
    await using cache = await temporaryFolder();
    hub.fault = (path) => path === at ? fault : undefined;
    const stop = new AbortController();
    const said: string[] = [];
    const fetching = fetchQuickly(hub, cache.path, {
      signal: stop.signal,
      onMessage(text) {
        said.push(text);
        stop.abort(new Error("stopped"));
      },
    });
    await assertRejects(() => fetching, Error, "stopped");
    assertStringIncludes(said[0], expected);
  }
});

Deno.test("a connection that falls silent is ended and taken up again", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  let stalls = 0;
  hub.fault = (path) => path === "model-1.safetensors" && stalls++ < 2 ? "stall" : undefined;
  await fetchQuickly(hub, cache.path, { patience: 1000 });
  // On a busy machine one that speaks may seem silent too.
  assert(stalls >= 3, `${stalls}`);
  await assertWhole(cache.path);
});

Deno.test("the token goes to the hub alone, never to where it redirects", async () => {
  await using hub = startHub([shardedModel({ private: "secret", gated: "secret" })]);
  await using cache = await temporaryFolder();
  await fetchQuickly(hub, cache.path, { token: "secret" });
  await assertWhole(cache.path);
  for (const { host, token, path } of hub.asked) {
    assertEquals(token, host === "hub" ? "secret" : undefined, path);
  }
  assert(hub.asked.some(({ host }) => host === "storage"));
});

Deno.test("each refusal is one sentence that says what to do", async () => {
  const bare = { "README.md": FILES["README.md"] };
  const config = { "config.json": FILES["config.json"] };
  await using hub = startHub([
    shardedModel({ name: "owner/gated", gated: "secret" }),
    shardedModel({ name: "owner/private", private: "secret" }),
    shardedModel(),
    shardedModel({ name: "owner/bare", revisions: { main: bare } }),
    shardedModel({ name: "owner/config", revisions: { main: config } }),
    shardedModel({
      name: "owner/bin",
      revisions: { main: { ...config, "pytorch_model.bin": someBytes(LARGE, 1) } },
    }),
    shardedModel({ name: "gpt2" }),
  ]);
  await using cache = await temporaryFolder();
  const sentences: [Parameters<typeof fetchQuickly>[2], string][] = [
    [
      { model: "owner/gated" },
      `as it is gated: ask for access at ${hub.endpoint}/owner/gated, and give that account's`,
    ],
    [{ model: "owner/gated", token: "other" }, "ask for access at"],
    [
      { model: "owner/private" },
      "has no such model, or shows it to some accounts only, whose token belongs in HF_TOKEN",
    ],
    [
      { model: "owner/private", token: "other" },
      "has no such model, or shows it to other accounts than the token's",
    ],
    [{ model: "owner/none" }, "Cannot fetch owner/none as 127.0.0.1:"],
    [{ model: "owner/model", token: "unknown" }, "as the hub does not know the token that HF_TOKEN"],
    [{ model: "owner/model@v2" }, "Cannot fetch owner/model@v2 as it has no revision v2"],
    [{ model: "owner/bare" }, "Cannot use owner/bare as it has no config.json"],
    [{ model: "owner/config" }, "Cannot use owner/config as it has no weights: model.safetensors"],
    [
      { model: "owner/bin" },
      "not in safetensors but in pytorch_model.bin: convert them at https://huggingface.co/spaces/",
    ],
    [{ model: "a/b/c" }, "Cannot fetch a/b/c as a model of the hub is named owner/name[@revision]"],
  ];
  for (const [options, sentence] of sentences) {
    assertStringIncludes(await refusal(hub, cache.path, options), sentence);
  }
  assertEquals((await fetchQuickly(hub, cache.path, { model: "gpt2" })).name, `gpt2@${COMMIT}`);
});

Deno.test("a renamed model is followed, and its new name told", async () => {
  await using hub = startHub([shardedModel({ name: "old/model", renamed: "owner/model" }), shardedModel()]);
  await using cache = await temporaryFolder();
  const said: string[] = [];
  const { folder } = await fetchQuickly(hub, cache.path, {
    model: "old/model",
    onMessage: (text) => said.push(text),
  });
  assertEquals(said, ["old/model has been renamed owner/model on the hub"]);
  assertEquals(await Deno.readFile(`${folder}/model-2.safetensors`), FILES["model-2.safetensors"]);
  // The cache keeps it under the name that was asked for, as huggingface_hub's: it serves that name offline, not the other.
  assertEquals(folder, `${cache.path}/models--old--model/snapshots/${COMMIT}`);
  const offline = { offline: true };
  assertEquals((await fetched(hub, cache.path, { model: "old/model", ...offline })).folder, folder);
  assertStringIncludes(
    await refusal(hub, cache.path, { model: "owner/model", ...offline }),
    "not in the cache, whole",
  );
});

Deno.test("a redirect that does not end, or leads to another protocol, is refused", async () => {
  await using cache = await temporaryFolder();
  const sentences: [location: (url: URL) => string, said: string][] = [
    [({ pathname }) => pathname, "redirects more than 8 times"],
    [() => "file:///etc/passwd", "sends on to file://, which is not safe"],
  ];
  for (const [location, said] of sentences) {
    let asked = 0;
    const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, ({ url }) => {
      asked++;
      return new Response(null, { status: 307, headers: { location: location(new URL(url)) } });
    });
    const endpoint = `http://127.0.0.1:${server.addr.port}`;
    const { message } = await assertRejects(() => fetchQuickly({ endpoint }, cache.path), UserError);
    await server.shutdown();
    assertStringIncludes(message, said);
    assert(asked <= 8, `${asked}`);
  }
});

Deno.test("what is wrong with a model is found before its weights are fetched", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  await assertRejects(
    () =>
      fetchQuickly(hub, cache.path, {
        async check(folder) {
          assertEquals(await Deno.readFile(`${folder}/tokenizer.json`), FILES["tokenizer.json"]);
          throw new Error("another kind of model");
        },
      }),
    Error,
    "another kind of model",
  );
  assertEquals([...hub.sent.keys()].filter((path) => path.endsWith(".safetensors")), []);
});

Deno.test("of a branch and a reference the commit of now is taken, and both stay in the cache", async () => {
  const other = { ...FILES, "config.json": new TextEncoder().encode(`{"model_type": "llama"}`) };
  const model = shardedModel({ revisions: { main: FILES, "refs/pr/7": other } });
  await using hub = startHub([model]);
  await using cache = await temporaryFolder();
  await fetchQuickly(hub, cache.path);
  const { folder, name } = await fetchQuickly(hub, cache.path, { model: "owner/model@refs/pr/7" });
  assertEquals(name, `owner/model@${commitOf(other)}`);
  assertEquals(await Deno.readFile(`${folder}/config.json`), other["config.json"]);
  assertEquals(await Deno.readTextFile(`${cache.path}/${FOLDER}/refs/refs/pr/7`), commitOf(other));
  // The weights are the same blobs.
  assertEquals(hub.sent.get("model-1.safetensors"), FILES["model-1.safetensors"].length);
  model.revisions.main = other;
  const moved = await fetchQuickly(hub, cache.path);
  assertEquals(moved.folder, folder);
  assertEquals(await Deno.readTextFile(`${cache.path}/${FOLDER}/refs/main`), commitOf(other));
});

Deno.test("files come several at a time, and two processes do not fetch one twice", async () => {
  await using hub = startHub([shardedModel()]);
  await using cache = await temporaryFolder();
  await Promise.all([fetchQuickly(hub, cache.path), fetchQuickly(hub, cache.path)]);
  await assertWhole(cache.path);
  for (const path of COMING) assertEquals(hub.sent.get(path), FILES[path].length, path);
  assert(hub.busy.most > 1 && hub.busy.most <= 8, `${hub.busy.most}`);
});

Deno.test("a disk without room for what is to come is told before anything is fetched", async () => {
  await using cache = await temporaryFolder();
  const sha = "a".repeat(40);
  const asked: string[] = [];
  const lfs = { oid: "b".repeat(64), size: 10 ** 15 };
  const listing = [
    { type: "file", path: "config.json", size: 1, oid: sha },
    { type: "file", path: "tokenizer.json", size: 2, oid: lfs.oid, lfs },
    { type: "file", path: "model.safetensors", size: 2, oid: sha },
  ];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, ({ url }) => {
    asked.push(url);
    return Response.json(url.includes("/tree/") ? listing : { sha, id: "owner/model" });
  });
  const endpoint = `http://127.0.0.1:${server.addr.port}`;
  const { message, exitCode } = await assertRejects(() => fetchQuickly({ endpoint }, cache.path), UserError);
  await server.shutdown();
  assertEquals(exitCode, 5);
  assert(
    /as 1000000 GB are still to come and the disk of .* has \d.* GB left: make room, or/.test(message),
    message,
  );
  assertEquals(asked.filter((url) => url.includes("/resolve/")), []);
});
