/**
 * What others get: a documented public face, and a package that holds the program and nothing else.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";
import { temporaryFolder } from "./support/temporary_folder.ts";
import { ADDITION } from "./support/tiny_model.ts";

const ROOT = join(import.meta.dirname!, "..");

async function deno(
  args: string[],
  folder = ROOT,
): Promise<{ code: number; output: string; errors: string }> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: folder,
    env: { NO_COLOR: "1" },
  }).output();
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { code, output: text(stdout), errors: text(stderr) };
}

let asked: Promise<string[]> | undefined;

/** Paths from the root of the files that would be published; asked once. */
const published = (): Promise<string[]> => asked ??= askPublished();

async function askPublished(): Promise<string[]> {
  const { code, errors } = await deno(["publish", "--dry-run", "--allow-dirty"]);
  assertEquals(code, 0, errors);
  const root = pathToFileURL(ROOT + "/").href;
  const lines = errors.split("\n").map((line) => line.trim()).filter((line) => line.startsWith(root));
  return lines.map((line) => decodeURI(line.slice(root.length).replace(/ \([^)]*\)$/, "")));
}

Deno.test("everything that the library exports is documented, and so is every type that it speaks of", async () => {
  const { code, errors } = await deno(["doc", "--quiet", "--lint", "mod.ts"]);
  assertEquals(code, 0, errors);
});

Deno.test("the package can be published, holds the program, and neither tests nor models nor text for training", async () => {
  const files = await published();
  assertEquals(
    new Set(files.map((path) => path.replace(/\/.*/, "/"))),
    new Set(["LICENSE", "README.md", "deno.json", "mod.ts", "docs/", "kernels/", "pipeline/", "serve/"]),
  );
  for (
    const needed of ["kernels/gated_attention/forward.wgsl", "pipeline/std/parse_args.ts", "serve/worker.ts"]
  ) {
    assert(files.includes(needed), needed);
  }
  assertEquals(files.filter((path) => /_test\.ts$|\.(safetensors|gz|jsonl|parquet)$/.test(path)), []);
});

Deno.test("the package works in another project, from its files alone", async () => {
  await using folder = await temporaryFolder();
  for (const path of await published()) {
    const to = join(folder.path, "package", path);
    await Deno.mkdir(dirname(to), { recursive: true });
    await Deno.copyFile(join(ROOT, path), to);
  }
  const user = join(folder.path, "user");
  await Deno.mkdir(user);
  const { name, version } = JSON.parse(await Deno.readTextFile(join(ROOT, "deno.json")));
  const imports = { sparse: `jsr:${name}@${version}` };
  await Deno.writeTextFile(join(user, "deno.json"), JSON.stringify({ links: ["../package"], imports }));
  await Deno.writeTextFile(
    join(user, "main.ts"),
    `import { loadTokenizer, type PromptPair, rankEdges, sparsify, TASKS } from "sparse";
     const tokenizer = await loadTokenizer(${JSON.stringify(ADDITION.tokenizer)});
     const pair: Pick<PromptPair, "clean"> = { clean: tokenizer.encode("12+34=") };
     const wrong = await sparsify("nowhere").catch((error) => error.message);
     console.log(pair.clean.length, rankEdges([1, -3, 2]).join(), Object.keys(TASKS).length, wrong);`,
  );
  const { code, output, errors } = await deno(
    ["run", "--check", "--allow-read", "--allow-env", "main.ts"],
    user,
  );
  assertEquals(code, 0, errors);
  assertStringIncludes(output, "6 1,2,0 5 Cannot read");
});
