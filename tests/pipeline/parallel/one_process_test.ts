/** What does not spread over ranks says so. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { UserError } from "../../../pipeline/errors.ts";
import { requireOneProcess } from "../../../pipeline/parallel/one_process.ts";

const ROOT = new URL("../../../", import.meta.url).pathname;

Deno.test("a command that does not spread over ranks refuses to be one of several, and alone does not", async () => {
  const by = (variables: Record<string, string>) => (name: string) => variables[name];
  await requireOneProcess("plan", by({}));
  await requireOneProcess("plan", by({ OMPI_COMM_WORLD_RANK: "0", OMPI_COMM_WORLD_SIZE: "1" }));
  const error = await assertRejects(
    () => requireOneProcess("plan", by({ PMI_RANK: "0", PMI_SIZE: "4" })),
    UserError,
  );
  const later = by({ PMI_RANK: "1", PMI_SIZE: "4" });
  await assertRejects(() => requireOneProcess("plan", later, 0), UserError, "Cannot spread plan");
  assertEquals(error.exitCode, 2);
  assertStringIncludes(error.message, "Cannot spread plan over ranks");
  assertStringIncludes(error.message, "MPICH has started 4");
});

Deno.test("every command of deno.json spreads over ranks or refuses to", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  const commands: Record<string, string[]> = {};
  for (const [name, { command }] of Object.entries<{ command: string }>(tasks)) {
    const [, module, args = ""] = /((?:pipeline|serve)\/\S*main\.ts)((?: \S+)*)$/.exec(command) ?? [];
    if (module) commands[name] = [module, ...args.trim().split(" ").filter((word) => word !== "")];
  }
  const refusing: string[] = [];
  await Promise.all(
    Object.entries(commands).map(async ([name, [module, ...args]]) => {
      const { code, stderr } = await new Deno.Command(Deno.execPath(), {
        // Without the permission to call MPI: what needs it says so.
        args: [
          ...["run", "--no-check", "--quiet", "--allow-read", "--allow-env", "--allow-sys=statfs"],
          module,
          ...args,
        ],
        cwd: ROOT,
        env: { OMPI_COMM_WORLD_RANK: "0", OMPI_COMM_WORLD_SIZE: "2", NO_COLOR: "1" },
        stdin: "null",
      }).output();
      const said = new TextDecoder().decode(stderr);
      assertEquals(code, 2, `${name}: ${said}`);
      assertEquals(said.match(/^error: /gm)?.length, 1, `${name}: ${said}`);
      if (said.includes(`Cannot spread ${name} over ranks`)) refusing.push(name);
      else {assertStringIncludes(
          said,
          "Cannot use MPI as its library is called by Deno's foreign function interface",
        );}
    }),
  );
  const spreading = Object.keys(commands).filter((name) => !refusing.includes(name));
  assertEquals(spreading.toSorted(), ["benchmark", "circuits", "evaluate", "pretrain", "sparsify", "sweep"]);
});
