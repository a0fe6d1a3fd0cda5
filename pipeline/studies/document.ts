/**
 * A study's results as Markdown, for docs/studies, and as a page that needs nothing else.
 *
 * @module
 */
import reportStyle from "../report/report.css" with { type: "text" };
import style from "../sweep/sweep.css" with { type: "text" };
import { type Markup, markup } from "../report/markup.ts";
import { pageHtml } from "../report/page.ts";
import { forestChart } from "./forest.ts";
import type { PartResult, Study, StudyTable } from "./study.ts";

/** What a document is made of. */
export interface StudyData {
  study: Pick<Study, "name" | "title" | "question" | "protocol">;
  quick: boolean;
  parts: readonly PartResult[];
  /** The command that makes it again. */
  command: string;
  /** Day on which it was written, YYYY-MM-DD. */
  day: string;
}

/** How much of it has been run. */
function extent({ parts, quick }: StudyData): string {
  const told = (counts: readonly { done: number; of: number }[], what: string): string => {
    const [done, of] = [counts.map(({ done }) => done), counts.map(({ of }) => of)]
      .map((counts) => counts.reduce((sum, count) => sum + count, 0));
    return `${done === of ? "All" : `${done} of`} ${of} ${what}.`;
  };
  const circuits = parts.flatMap(({ circuits }) => circuits && circuits.of > 0 ? [circuits] : []);
  const ran = [
    told(parts, "runs have ended"),
    ...(circuits.length > 0 ? [told(circuits, "circuits of theirs have been looked for")] : []),
  ].join(" ");
  return quick
    ? `${ran} A quick run of tiny sizes: it shows that the study works, and its figures say nothing of the method.`
    : ran;
}

function made({ command, day, parts }: StudyData): string {
  const adapters = [...new Set(parts.flatMap(({ adapters }) => adapters))];
  return `Written on ${day} by \`${command}\`${
    adapters.length > 0 ? `, run on ${adapters.join(" and ")}` : ""
  }.`;
}

/** The document as Markdown. */
export function studyMarkdown(data: StudyData): string {
  const { study, parts } = data;
  const blocks = [
    `# ${study.title}`,
    study.question,
    "## How it is answered",
    study.protocol.map((sentence) => `- ${sentence}`).join("\n"),
    "## What has been run",
    `${extent(data)} ${made(data)}`,
    ...parts.flatMap(({ title, findings, tables }) => [
      `## ${title}`,
      ...(findings.length > 0 ? [findings.map((finding) => `- ${finding}`).join("\n")] : []),
      ...tables.flatMap((table) => [table.caption, markdownTable(table)]),
    ]),
  ];
  return blocks.join("\n\n") + "\n";
}

const cell = (text: string): string => text.replaceAll("|", "\\|");

function markdownTable({ head, rows }: StudyTable): string {
  const lines = [head, head.map(() => "---"), ...rows];
  return lines.map((line) => `| ${line.map(cell).join(" | ")} |`).join("\n");
}

/** The document as HTML. */
export function studyHtml(data: StudyData): string {
  const { study, parts } = data;
  return pageHtml({
    title: `${study.title}: a study`,
    styles: [reportStyle, style],
    main: markup`<p class="of">A study of sparse attention post-training</p>
<h1>${study.title}</h1>
<p class="result">${study.question}</p>
<p class="note">${extent(data)} ${made(data).replaceAll("`", "")}</p>
${parts.map(partMarkup)}
<h2>How it is answered</h2>
<ul>${study.protocol.map((sentence) => markup`<li>${sentence}</li>`)}</ul>`,
  });
}

function partMarkup({ title, findings, tables, forests, pages }: PartResult): Markup {
  return markup`<h2>${title}</h2>
${
    findings.length > 0
      ? markup`<ul>${findings.map((finding) => markup`<li>${finding}</li>`)}</ul>`
      : undefined
  }
${
    forests.map((forest) =>
      markup`<figure>${forestChart(forest)}<figcaption><span>${forest.caption}</span></figcaption></figure>\n`
    )
  }
${tables.map(tableMarkup)}
${
    pages.length > 0
      ? markup`<p>${
        pages.map(({ text, path }, n) => markup`${n > 0 ? ", " : undefined}<a href="${path}">${text}</a>`)
      }</p>`
      : undefined
  }`;
}

function tableMarkup({ caption, head, rows }: StudyTable): Markup {
  return markup`<div class="scroll" tabindex="0" role="region" aria-label="${caption}"><table>
<caption>${caption}</caption>
<thead><tr>${head.map((text) => markup`<th scope="col">${text}</th>`)}</tr></thead>
<tbody>${
    rows.map(([first, ...rest]) =>
      markup`<tr><th scope="row">${first}</th>${rest.map((text) => markup`<td>${text}</td>`)}</tr>`
    )
  }</tbody>
</table></div>
`;
}
