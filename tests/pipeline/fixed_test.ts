import { assertEquals } from "@std/assert";
import { fixed } from "../../pipeline/fixed.ts";
import { fixed as fixedOnPage, signed } from "../../serve/page/format.js";

Deno.test("a number has its decimals, a large one its power of ten, and none is a dash, in tables and on the page", () => {
  const cases: [number | null, number, string][] = [
    [4.46561, 4, "4.4656"],
    [-0.5, 2, "-0.50"],
    [999_999.4, 1, "999999.4"],
    [155254546535284736, 3, "1.55e17"],
    [-2e9, 3, "-2.00e9"],
    [null, 2, "–"],
  ];
  for (const [value, digits, text] of cases) {
    assertEquals(fixed(value, digits), text);
    assertEquals(fixedOnPage(value, digits), text);
  }
  assertEquals([fixed(Infinity, 2), fixed(undefined, 2)], ["–", "–"]);
  assertEquals([signed(-3e17), signed(0.25)], ["−3.00e17", "+0.250"]);
});
