import { assertEquals } from "@std/assert";
import { parseArgs } from "@std/cli/parse-args";

const OPTIONS = {
  boolean: ["control", "help"],
  string: ["steps", "data"],
  collect: ["data"],
  negatable: ["control"],
  alias: { h: "help" },
};
/** What std gives for flags that are absent. */
const ABSENT = { _: [], control: false, help: false, data: [] };

Deno.test("flags take every form that std's parseArgs takes", () => {
  assertEquals(parseArgs(["--steps", "3", "--data=a", "--data", "b", "--control", "x"], OPTIONS), {
    ...ABSENT,
    _: ["x"],
    steps: "3",
    data: ["a", "b"],
    control: true,
  });
  assertEquals(parseArgs(["-h", "--no-control", "--", "--steps"], OPTIONS), {
    ...ABSENT,
    _: ["--steps"],
    help: true,
  });
});

Deno.test("what is absent has its default, else false for a boolean and an empty list for a collected string", () => {
  assertEquals(parseArgs([], OPTIONS), ABSENT);
  const defaults = { default: { control: undefined, steps: "9", data: ["c"] } };
  assertEquals(parseArgs([], { ...OPTIONS, ...defaults }), {
    ...ABSENT,
    control: undefined,
    steps: "9",
    data: ["c"],
  });
  const given = parseArgs(["--no-control", "--steps=1", "--data=a"], { ...OPTIONS, ...defaults });
  assertEquals(given, { ...ABSENT, steps: "1", data: ["a"] });
});

Deno.test("a string flag does not take a flag for its value", () => {
  const nothing = { ...ABSENT, steps: "" };
  assertEquals(parseArgs(["--steps", "--help"], OPTIONS), { ...nothing, help: true });
  assertEquals(parseArgs(["--steps"], OPTIONS), nothing);
  assertEquals(parseArgs(["--steps", "--", "3"], OPTIONS), { ...nothing, _: ["3"] });
});

Deno.test("unknown gets the argument as it was written, and false leaves it out", () => {
  const seen: [string, string | undefined][] = [];
  const unknown = (arg: string, key?: string): boolean => {
    seen.push([arg, key]);
    return false;
  };
  const parsed = parseArgs(["--stepz=1", "--no-steps", "-q", "--constructor", "y"], { ...OPTIONS, unknown });
  assertEquals(parsed, ABSENT);
  assertEquals(seen, [
    ["--stepz=1", "stepz"],
    ["--no-steps", "no-steps"],
    ["-q", "q"],
    ["--constructor", "constructor"],
    ["y", undefined],
  ]);
});
