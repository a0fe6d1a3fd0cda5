/** The server on a real port, and its command line. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { readRunConfig, writeRunConfig } from "../../pipeline/runs/run_config.ts";
import { type RunningServer, startServer } from "../../serve/server.ts";
import { fakeRun } from "../support/fake_run.ts";
import { temporaryFolder } from "../support/temporary_folder.ts";
import { ADDITION, runMain, writeTinyModel } from "../support/tiny_model.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

async function withServer(
  host: string,
  body: (server: RunningServer, port: number) => Promise<void>,
): Promise<void> {
  await using folder = await temporaryFolder();
  await fakeRun(folder.path, "r", { live: false });
  const server = await startServer({ runs: folder.path, host, port: 0 });
  try {
    await body(server, Number(new URL(server.url).port));
  } finally {
    await server.close();
  }
}

/** Sends bytes as they are, and nothing more where they end, and returns what comes back first. */
async function raw(port: number, text: string, { ends = false } = {}): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode(text)).catch(() => {});
  if (ends) await connection.closeWrite().catch(() => {});
  const buffer = new Uint8Array(1 << 16);
  const count = await connection.read(buffer).catch(() => null);
  return count === null ? "" : new TextDecoder().decode(buffer.subarray(0, count));
}

Deno.test("on loopback reading is free, and the token in the address steers", async () => {
  await withServer("127.0.0.1", async ({ url, token, tokenToRead }) => {
    assertEquals(tokenToRead, false);
    assertMatch(url, /^http:\/\/127\.0\.0\.1:\d+\/#token=[A-Za-z0-9_-]{32}$/);
    assertStringIncludes(url, token);
    const [{ name }] = await (await fetch(new URL("/api/runs", url))).json();
    assertEquals(name, "r");
    const page = await fetch(new URL("/", url));
    assertMatch(await page.text(), /<title>Sparse attention runs<\/title>/);
  });
});

Deno.test("beyond loopback everything under /api needs the token", async () => {
  await withServer("0.0.0.0", async ({ url, token, tokenToRead }) => {
    assertEquals(tokenToRead, true);
    const get = async (headers: Record<string, string>) => {
      const response = await fetch(new URL("/api/runs", url), { headers });
      await response.body?.cancel();
      return response.status;
    };
    assertEquals(await get({}), 401);
    assertEquals(await get({ Authorization: `Bearer ${token}` }), 200);
  });
});

Deno.test("two servers have two tokens", async () => {
  await withServer("127.0.0.1", ({ token }) =>
    withServer("127.0.0.1", (other) => {
      assert(token !== other.token);
      return Promise.resolve();
    }));
});

Deno.test("a name of another site, garbage, and a header without end do no harm", async () => {
  await withServer("127.0.0.1", async ({ url }, port) => {
    assertMatch(await raw(port, "GET /api/runs HTTP/1.1\r\nHost: evil.example\r\n\r\n"), /^HTTP\/1\.1 421 /);
    assertMatch(await raw(port, "\x16\x03\x01 not http at all\r\n\r\n"), /^(HTTP\/1\.1 400 |$)/);
    assertMatch(
      await raw(port, `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(1 << 20)}`, { ends: true }),
      /^(HTTP\/1\.1 4\d\d |$)/,
    );
    assertMatch(
      await raw(port, "GET /api/../../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"),
      /^HTTP\/1\.1 404 /,
    );
    assertMatch(
      await raw(port, "POST /api/runs/r/control HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"),
      /^(HTTP\/1\.1 401 |$)/,
    );
    assertEquals((await (await fetch(new URL("/health", url))).json()).status, "ok");
  });
});

Deno.test("bodies that are damaged, too large or never end are answered", async () => {
  await using folder = await temporaryFolder();
  const run = await fakeRun(folder.path, "r", { live: false });
  const start = (bodyMilliseconds: number) =>
    startServer({ runs: folder.path, host: "127.0.0.1", port: 0, bodyMilliseconds });
  const [impatient, patient] = [await start(300), await start(300_000)];
  const portOf = ({ url }: RunningServer): number => Number(new URL(url).port);
  const head = "POST /api/runs/r/attention HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
  const chunked = `${head}Transfer-Encoding: chunked\r\n\r\n`;
  try {
    const bodies: [string, number | undefined][] = [
      [`${chunked}ffffffffffffffff\r\n{}`, 408],
      // Deno closes these connections without a word.
      [`${chunked}fffffffffffffffff\r\n{}`, undefined],
      [`${chunked}zz\r\n{}\r\n`, undefined],
      [`${chunked}-1\r\n{}\r\n`, undefined],
      [`${chunked}2\r\n{"`, 408],
      [chunked, 408],
      [`${head}Content-Length: 99\r\n\r\n{`, 408],
      [`${head}Content-Length: 99999999\r\n\r\n{`, 413],
      [`${chunked}4e20\r\n${"x".repeat(20_000)}\r\n0\r\n\r\n`, 413],
    ];
    for (const [text, status] of bodies) {
      // A body that is whole, or refused, is so however long it takes.
      const answer = await raw(portOf(status === 408 ? impatient : patient), text);
      const [, found] = /^HTTP\/1\.1 (\d+) /.exec(answer) ?? [];
      assertEquals(found, status?.toString(), text.slice(100, 250));
      if (status) assertMatch(answer, /^connection: close\r$/im);
    }
    const many = await Promise.all(
      Array.from({ length: 80 }, () => raw(portOf(impatient), `${chunked}5\r\n{"pro`)),
    );
    for (const answer of many) assertMatch(answer, /^HTTP\/1\.1 408 /);
  } finally {
    run.release();
    await impatient.close();
    await patient.close();
  }
});

/** Runs the command line to its end. */
async function serve(args: string[], env: Record<string, string> = {}) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-read",
      "--allow-write",
      "--allow-env",
      "--allow-net",
      "--allow-sys=setPriority",
      `${ROOT}serve/main.ts`,
      ...args,
    ],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
  }).output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, stdout: decode(stdout), stderr: decode(stderr) };
}

Deno.test("the command line: help, and one line and exit code 2 for what it cannot do", async () => {
  const { code, stdout } = await serve(["--help"]);
  assertEquals(code, 0);
  for (const flag of ["--runs", "--host", "--port", "--allow-host", "--models"]) {
    assertStringIncludes(stdout, flag);
  }
  const using = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const taken = String((using.addr as Deno.NetAddr).port);
  const cases: [string[], Record<string, string>, RegExp][] = [
    [["--prot", "1"], {}, /Unknown flag --prot \(did you mean --port\?\)/],
    [["--port", "99999"], {}, /--port as it must be at most 65535/],
    [["--port", taken], {}, new RegExp(`Cannot listen on 127\\.0\\.0\\.1, port ${taken}`)],
    [
      ["--port", "0", "--models", "/nowhere/at/all"],
      {},
      /models from \/nowhere\/at\/all as there is no such folder/,
    ],
    [
      ["--port", taken, "--runs", "LICENSE"],
      {},
      /the runs in .*LICENSE as it must be a folder: it is a file/,
    ],
    [
      ["--port", taken, "--runs", "LICENSE/x"],
      {},
      /the runs in .*LICENSE\/x as it must be a folder: Not a directory/,
    ],
    [["--port", "0"], { SPARSE_ATTENTION_TOKEN: "short" }, /at least 16 characters/],
    [["--port", "0"], { SPARSE_ATTENTION_TOKEN: "with a space in it and long" }, /must consist of/],
  ];
  try {
    for (const [args, env, message] of cases) {
      const { code, stderr } = await serve(args, env);
      assertEquals(code, 2, stderr);
      assertEquals(stderr.trim().split("\n").length, 1, stderr);
      assertMatch(stderr, message);
    }
  } finally {
    using.close();
  }
});

Deno.test("a folder of runs that does not exist yet is said to be none", async () => {
  await using folder = await temporaryFolder();
  for (const [name, said] of [["later", ", a folder that does not exist yet"], [".", ""]]) {
    const runs = join(folder.path, name);
    const { stderr } = await runMain(["--runs", runs, "--port", "0"], {
      script: "serve/main.ts",
      allow: ["--allow-net", "--allow-sys=setPriority"],
      hold: [{ when: "#token=", meanwhile: (send) => send("SIGTERM") }],
    });
    assertStringIncludes(stderr, `runs in ${runs}${said}: http://127.0.0.1:`);
  }
});

Deno.test({
  name: "a dense model elsewhere is looked at where --models names its folder, also beside training",
  // The device's own handles end with the process.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    await using folder = await temporaryFolder();
    const [runs, models] = [`${folder.path}/runs`, `${folder.path}/models`];
    await writeTinyModel(`${models}/tiny`);
    const run = await fakeRun(runs, "r", { live: false });
    const config = await readRunConfig(`${run.path}/config.json`);
    await writeRunConfig(`${run.path}/config.json`, {
      ...config,
      settings: { ...config.settings, model: `${models}/tiny` },
    });
    const ask = async (url: string) => {
      const response = await fetch(new URL("/api/runs/r/attention", url), {
        method: "POST",
        body: '{"prompt":"12+34=","model":"dense"}',
        headers: { "Content-Type": "application/json" },
      });
      return [response.status, (await response.json()).error?.includes("--models")];
    };
    for (const [given, expected] of [[undefined, [409, true]], [[models], [200, undefined]]] as const) {
      const server = await startServer({ runs, host: "127.0.0.1", port: 0, models: given });
      assertEquals(await ask(server.url), [...expected]);
      await server.close();
      const worker = new Worker(new URL("../../serve/worker.ts", import.meta.url), { type: "module" });
      const opened = new Promise<string>((resolve) => worker.onmessage = ({ data }) => resolve(data.url));
      worker.postMessage({ runs, port: 0, token: undefined, models: given });
      assertEquals(await ask(await opened), [...expected]);
      worker.terminate();
    }
  },
});

Deno.test("sparsify --serve shows the run while it trains", async () => {
  await using folder = await temporaryFolder();
  const model = `${folder.path}/tiny`;
  await writeTinyModel(model);
  // deno-fmt-ignore
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "--allow-read", "--allow-write", "--allow-env", "--allow-net=127.0.0.1",
      `${ROOT}pipeline/main.ts`, "sparsify", "--model", model, "--data", ADDITION.data, "--context", "8", "--batch", "16",
      "--steps", "100000", "--no-control", "--runs", `${folder.path}/runs`, "--name", "shown", "--serve", "--port", "0"],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const reader = child.stderr.pipeThrough(new TextDecoderStream()).getReader();
  try {
    let text = "";
    while (!/sparse \d+\/100000/.test(text)) {
      const { value, done } = await reader.read();
      assert(!done, text);
      text += value;
    }
    const url = /serving \S+ at (http:\S+)/.exec(text)![1];
    const [{ name, status }] = await (await fetch(new URL("/api/runs", url))).json();
    assertEquals([name, status], ["shown", "training"]);
  } finally {
    child.kill("SIGKILL");
    await reader.cancel();
    await child.status;
  }
});

Deno.test({
  name: "a tokenizer whose pattern never ends keeps nobody waiting but who asked, and not for ever",
  // The thread that is given up ends when it is next looked at.
  sanitizeOps: false,
  sanitizeResources: false,
  async fn() {
    await using folder = await temporaryFolder();
    const run = await fakeRun(folder.path, "r", { live: false });
    await writeTinyModel(`${run.path}/model`);
    const config = await readRunConfig(`${run.path}/config.json`);
    await writeRunConfig(`${run.path}/config.json`, {
      ...config,
      settings: { ...config.settings, gateBias: 0 },
    });
    const tokenizer = JSON.parse(await Deno.readTextFile(ADDITION.tokenizer));
    tokenizer.pre_tokenizer = {
      type: "Split",
      pattern: { Regex: "(1+)+$" },
      behavior: "Isolated",
      invert: false,
    };
    await Deno.writeTextFile(`${run.path}/tokenizer.json`, JSON.stringify(tokenizer));
    const server = await startServer({
      runs: folder.path,
      host: "127.0.0.1",
      port: 0,
      explorerMilliseconds: 2000,
    });
    try {
      const asked = fetch(new URL("/api/runs/r/attention", server.url), {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ prompt: "1".repeat(60) + "2", model: "sparse" }),
      });
      let answered = false;
      const answer = asked.finally(() => answered = true);
      const list = await fetch(new URL("/api/runs", server.url));
      assertEquals([(await list.json())[0].name, answered], ["r", false]);
      const response = await answer;
      assertEquals([response.status, (await response.json()).error], [
        503,
        "The model of r takes too long to look into",
      ]);
    } finally {
      await server.close();
    }
  },
});
