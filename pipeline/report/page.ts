/**
 * What every page that is written as one file begins and ends with.
 *
 * @module
 */
import { type Filling, type Markup, markup } from "./markup.ts";
import palette from "./palette.css" with { type: "text" };

/** A self-contained page, in the project's colours. */
export interface Page {
  title: string;
  /** Style sheets, in their order, behind that of the colours. */
  styles: readonly string[];
  main: Markup;
  /** What stands behind it, as scripts do. */
  scripts?: Filling;
}

/** The page as HTML. */
export function pageHtml({ title, styles, main, scripts }: Page): string {
  return markup`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<meta name="color-scheme" content="light dark"/>
<title>${title}</title>
<style>${{ markup: [palette, ...styles].join("") }}</style>
</head>
<body>
<main>
${main}
</main>
${scripts}</body>
</html>
`.markup;
}
