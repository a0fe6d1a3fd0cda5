/** The course of a loss between its evaluations. */
import { assertEquals } from "@std/assert";
import { courseOf } from "../../../pipeline/training/course.ts";

Deno.test("a loss runs straight from evaluation to evaluation, and stays as it is before and behind them", () => {
  const course = courseOf([{ step: 10, ce: 4 }, { step: 14, ce: 2 }, { step: 20, ce: 3.5 }]);
  assertEquals([0, 10, 11, 13, 14, 16, 20, 30].map(course), [4, 4, 3.5, 2.5, 2, 2.5, 3.5, 3.5]);
  const [one] = [courseOf([{ step: 5, ce: 1 }])];
  assertEquals([0, 5, 9].map(one), [1, 1, 1]);
});
