/// <reference lib="dom" />
// @ts-check
/** Where the token is entered. */
import { setToken } from "./api.js";
import { element } from "./dom.js";

/** A form for the token; what is entered is kept for this tab. @param {() => void} then what is done with it */
export function tokenForm(then) {
  const input = element("input", {
    name: "token",
    type: "password",
    autocomplete: "off",
    required: true,
    data: { key: "token" },
  });
  const onsubmit = (/** @type {Event} */ event) => {
    event.preventDefault();
    setToken(input.value.trim());
    then();
  };
  return element(
    "form",
    { className: "row", onsubmit },
    element("label", {}, "Token ", input),
    element("button", {}, "Go on"),
  );
}
