/** Colours of all pages: that what they tell can be told by everybody (WCAG 2.2, 1.4.3 and 1.4.11). */
import { assert, assertEquals } from "@std/assert";

const text = await Deno.readTextFile(new URL("../../../pipeline/report/palette.css", import.meta.url));

/** The colours by name, in each of light, dark and print. */
const schemes = text.split(":root").slice(1).map((block) =>
  new Map([...block.matchAll(/--([a-z0-9-]+): (#[0-9a-f]{6});/g)].map(([, name, colour]) => [name, colour]))
);

/** Relative luminance of #rrggbb. */
function luminance(colour: string): number {
  const [red, green, blue] = [1, 3, 5].map((n) => {
    const share = parseInt(colour.slice(n, n + 2), 16) / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one: string, other: string): number {
  const [light, dark] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (light + 0.05) / (dark + 0.05);
}

Deno.test("contrast is that of WCAG's examples", () => {
  assertEquals(contrast("#000000", "#ffffff"), 21);
  assert(Math.abs(contrast("#777777", "#ffffff") - 4.48) < 0.01);
});

Deno.test("light, dark and print have the same colours by name", () => {
  assertEquals(schemes.length, 3);
  for (const scheme of schemes) assertEquals([...scheme.keys()].sort(), [...schemes[0].keys()].sort());
});

const LINES = ["edge", "blue", "green", "vermillion", "purple", "ochre", "sky", "grey"];
const WORDS = ["ink", "soft", "good", "warn", "bad"];
const CLASSES = [["on-pale", "h1", "h2", "h3", "h4"], ["on-deep", "h5", "h6", "h7"]];

Deno.test("borders, empty cells and lines stand 3 : 1, and text 4.5 : 1, against what is behind them", () => {
  for (const [n, scheme] of schemes.entries()) {
    const stands = (name: string, ground: string, least: number): void => {
      const found = contrast(scheme.get(name)!, scheme.get(ground)!);
      assert(found >= least, `${name} on ${ground}, scheme ${n}: ${found.toFixed(2)} : 1`);
    };
    for (const ground of ["page", "panel"]) {
      for (const name of LINES) stands(name, ground, 3);
      for (const name of WORDS) stands(name, ground, 4.5);
    }
    for (const [name, ...grounds] of CLASSES) for (const ground of grounds) stands(name, ground, 4.5);
  }
});
