/// <reference lib="dom" />
// @ts-check
/** The words of the glossary, told where they stand: a mark beside a word opens what it means. */
import { element } from "./dom.js";

/** @typedef {{ id: string, term: string, text: string }} Word */

/** Puts every word's explanation on the page, hidden until its mark is pressed. */
export async function loadWords() {
  /** @type {Word[]} */
  const words = await (await fetch("page/glossary.json")).json();
  document.body.append(element(
    "aside",
    { label: "Words" },
    words.map(({ id, term, text }) =>
      element(
        "div",
        { id: `word-${id}`, className: "word", popover: "auto" },
        element("strong", {}, term),
        element("p", {}, text),
      )
    ),
  ));
}

/**
 * A word with a mark that tells what it means.
 *
 * @param {string} text @param {string} id of the glossary @param {string} [about] what the mark is said to tell of
 */
export function word(text, id, about = text.split(",")[0]) {
  const mark = element(
    "button",
    { className: "about", type: "button", label: `What is ${about}?`, data: { key: `word-${id}` } },
    "?",
  );
  mark.setAttribute("popovertarget", `word-${id}`);
  return element("span", { className: "worded" }, text, mark);
}
