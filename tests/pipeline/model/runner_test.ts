/** What becomes of steps that do not compile. */
import { assertEquals, assertRejects } from "@std/assert";
import type { CompiledOp, Step } from "../../../pipeline/model/op.ts";
import { prepareSteps } from "../../../pipeline/model/runner.ts";
import { gpuTest } from "../../support/gpu.ts";

const stepOf = (key: string, compile: () => Promise<CompiledOp>): Step => ({
  op: { key, kind: "add", keeps: [], checks: [], compile },
  reads: {},
  writes: { y: { name: key, shape: [1] } },
  parameters: {},
});

gpuTest("of steps that do not compile the first is told, and no other goes unheard", async (gpu) => {
  const unheard: unknown[] = [];
  const hear = (event: PromiseRejectionEvent): void => {
    event.preventDefault();
    unheard.push(event.reason.message);
  };
  const [first, second] = [Promise.withResolvers<CompiledOp>(), Promise.withResolvers<CompiledOp>()];
  addEventListener("unhandledrejection", hear);
  try {
    const preparing = prepareSteps(
      gpu,
      [[stepOf("first", () => first.promise)], [stepOf("second", () => second.promise)]],
      { training: false },
    );
    second.reject(new Error("the second is refused"));
    await new Promise((resolve) => setTimeout(resolve));
    first.reject(new Error("the first is refused"));
    await assertRejects(() => preparing, Error, "the first is refused");
  } finally {
    removeEventListener("unhandledrejection", hear);
  }
  assertEquals(unheard, []);
});
