import { assertEquals, assertRejects } from "@std/assert";
import { unlessStopped } from "../../pipeline/unless_stopped.ts";

const STOP = new Error("stop");

Deno.test("what is stopped before it is prepared is not begun", async () => {
  const events: string[] = [];
  const prepare = () => Promise.resolve(events.push("prepare"));
  const takeBack = () => void events.push("take back");
  const error = await assertRejects(() => unlessStopped(AbortSignal.abort(STOP), prepare, takeBack));
  assertEquals([error, events], [STOP, []]);
});

for (const end of ["fails", "succeeds", "never ends"] as const) {
  Deno.test(`what ${end} behind a stop is taken back before the stop is told`, async () => {
    const events: string[] = [];
    const stop = new AbortController();
    const prepare = async () => {
      stop.abort(STOP);
      if (end === "fails") throw new Error("its folder is gone");
      if (end === "never ends") await new Promise(() => {});
    };
    const takeBack = async () => {
      await new Promise((resolve) => setTimeout(resolve));
      events.push("taken back");
    };
    const error = await assertRejects(() => unlessStopped(stop.signal, prepare, takeBack));
    assertEquals([error, events], [STOP, ["taken back"]]);
  });
}

Deno.test("what is not stopped comes to its end, and nothing is taken back afterwards", async () => {
  const stop = new AbortController();
  const events: string[] = [];
  const takeBack = () => void events.push("take back");
  assertEquals(await unlessStopped(stop.signal, () => Promise.resolve(7), takeBack), 7);
  const fails = () => Promise.reject(new Error("bad input"));
  await assertRejects(() => unlessStopped(stop.signal, fails, takeBack), Error, "bad input");
  stop.abort(STOP);
  assertEquals(events, []);
});
