import { assertEquals } from "@std/assert";
import { learningRate } from "../../../pipeline/training/learning_rate.ts";

Deno.test("the learning rate rises, stays and falls", () => {
  const schedule = { peak: 1, warmup: 10, decay: 0.5, steps: 100 };
  const rates = [0, 4, 9, 30, 50, 74, 99].map((step) => learningRate(schedule, step));
  assertEquals(rates, [0.1, 0.5, 1, 1, 1, 0.52, 0.02]);
  assertEquals(learningRate({ ...schedule, warmup: 0, decay: 0 }, 99), 1);
});
