// @ts-check
/// <reference lib="dom" />
// The page's drawings, with a table under each: circuits as graphs, and one prompt's attention. Data stands in the page
// as JSON.
(() => {
  "use strict";
  /** Source, input, estimated effect, and the first of the sizes that holds it. @typedef {[source: string, input: string, score: number, size: number]} Edge */
  /** @typedef {{ counted: number, sizes: { chosen: number, edges: number, faithfulness: number | null }[], edges: Edge[] }} Circuit */
  /** @typedef {{ tokens: string[], least_weight: number, heads: { layer: number, head: number, open: number, edges: [query: number, key: number, weight: number][] }[] }} Attention */
  /** @typedef {{ name: string, called: string, circuit: Circuit | null, attention: Attention | null }} Model */
  /** @typedef {{ name: string, x: number, y: number, into: Edge[], out: Edge[] }} GraphNode */
  const data = /** @type {{ layers: number, heads: number, key_value_heads: number, models: Model[] }} */ (
    JSON.parse(/** @type {HTMLElement} */ (document.getElementById("data")).textContent ?? "")
  );
  const SVG = "http://www.w3.org/2000/svg";
  /** Edges that a description or a node's line names; the table has all. */
  const MOST_NAMED = 12;
  const INPUTS = /** @type {Record<string, string>} */ ({ q: "query", k: "key", v: "value" });

  /** @param {string} name @param {Record<string, string | number>} attributes @param {...(Node | string)} children */
  function svg(name, attributes = {}, ...children) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
    node.append(...children);
    return node;
  }
  /** @param {string} name @param {...(Node | string)} children */
  function element(name, ...children) {
    const node = document.createElement(name);
    node.append(...children);
    return node;
  }
  /** @template {HTMLElement} Found @param {HTMLElement} parent @param {string} selector */
  const within = (parent, selector) => /** @type {Found} */ (parent.querySelector(selector));
  /** @param {number} value */
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(3);
  /** @param {number} count @param {string} what */
  const counted = (count, what) => `${count.toLocaleString("en-US")} ${what}${count === 1 ? "" : "s"}`;
  /** @param {Edge[]} edges */
  const together = (edges) => signed(edges.reduce((sum, [, , score]) => sum + score, 0));

  /** A table under a drawing, made when it is unfolded. @param {HTMLElement} figure @param {string} label @param {string[]} heads */
  function tableUnder(figure, label, heads) {
    const details = /** @type {HTMLDetailsElement} */ (within(figure, "details"));
    const body = element("tbody");
    const head = element("tr", ...heads.map((text) => Object.assign(element("th", text), { scope: "col" })));
    const scroll = element("div", element("table", element("thead", head), body));
    scroll.className = "scroll";
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", label);
    details.append(scroll);
    /** @type {() => (string | number)[][]} */
    let rowsOf = () => [];
    const show = () => {
      const rows = details.open ? rowsOf() : [];
      body.replaceChildren(
        ...rows.map((cells) => element("tr", ...cells.map((cell) => element("td", String(cell))))),
      );
    };
    details.addEventListener("toggle", show);
    return (/** @type {typeof rowsOf} */ rows) => {
      rowsOf = rows;
      show();
    };
  }

  /** Draws now, and again when the place is given another width. @param {HTMLElement} place @param {() => void} draw */
  function drawn(place, draw) {
    let width = place.clientWidth;
    draw();
    new ResizeObserver(() => {
      if (place.clientWidth === width) return;
      width = place.clientWidth;
      draw();
    }).observe(place);
  }

  /** The node that an input belongs to. @param {string} input */
  const owner = (input) => input.replace(/\.[qkv]$/, "");
  /** @param {string} input */
  const kindOf = (input) => INPUTS[/\.([qkv])$/.exec(input)?.[1] ?? ""] ?? "";
  /** @param {string} input */
  const inputName = (input) => `${owner(input)} ${kindOf(input)}`.trim();

  const ROW = 92;
  const SIDE = 36;
  const NODE_WIDTH = 54;
  /** Pixels that a head has at least, and its name fits into. */
  const HEAD_WIDTH = 60;

  /** Where a node stands: attention below the MLP of its layer, the embedding at the foot. @param {string} name @param {number} width */
  function placeOf(name, width) {
    const rows = 2 * data.layers + 2;
    const y = (/** @type {number} */ row) => 24 + (rows - 1 - row) * ROW / 2;
    if (name === "embed") return { x: width / 2, y: y(0) };
    if (name === "logits") return { x: width / 2, y: y(rows - 1) };
    const layer = Number(/^[am](\d+)/.exec(name)?.[1]);
    if (name[0] === "m") return { x: width - SIDE, y: y(2 * layer + 2) };
    // A key head stands below the heads that read it.
    const ofGroup = Number(/g(\d+)/.exec(name)?.[1]);
    const head = Number(
      /h(\d+)/.exec(name)?.[1] ?? (ofGroup + 0.5) * data.heads / data.key_value_heads - 0.5,
    );
    const below = Number.isNaN(ofGroup) ? 0 : ROW / 4;
    return { x: (head + 0.5) * (width - 2.5 * SIDE) / data.heads, y: y(2 * layer + 1) + below };
  }

  /** The largest effect there is, to which all drawings are scaled. */
  const largest = Math.max(...data.models.map(({ circuit }) => Math.abs(circuit?.edges[0]?.[2] ?? 0))) || 1;

  /** @param {HTMLElement} figure @param {Model} model @param {Circuit} circuit */
  function graph(figure, { name, called }, circuit) {
    const slider = /** @type {HTMLInputElement} */ (within(figure, "input"));
    const place = within(figure, ".drawing");
    const told = within(figure, ".of-node");
    const showTable = tableUnder(figure, `Edges, ${name}`, ["from", "to", "as", "effect"]);
    /** Of the node that Enter or a click holds. */
    let held = "";
    /** The node that Tab comes to. */
    let current = "logits";

    function draw() {
      const at = Number(slider.value);
      const { chosen, edges: size, faithfulness } = circuit.sizes[at];
      const shown = circuit.edges.filter(([, , , first]) => first <= at);
      const width = Math.max(place.clientWidth, 2.5 * SIDE + HEAD_WIDTH * data.heads);
      /** @type {Map<string, GraphNode>} */
      const nodes = new Map();
      const nodeOf = (/** @type {string} */ name) => {
        const known = nodes.get(name);
        if (known) return known;
        const node = { name, ...placeOf(name, width), into: [], out: [] };
        nodes.set(name, node);
        return node;
      };
      for (const edge of shown) {
        nodeOf(edge[0]).out.push(edge);
        nodeOf(owner(edge[1])).into.push(edge);
      }
      const count = (/** @type {RegExp} */ pattern) =>
        [...nodes.keys()].filter((name) => pattern.test(name)).length;
      const over = `${counted(size, "edge")} over ${counted(count(/^a\d+\.h/), "head")} and ${
        counted(count(/^m/), "MLP")
      }`;
      const restored = faithfulness === null
        ? "an unknown share"
        : `${(100 * faithfulness).toFixed(1).replace("-", "−")} %`;
      const lost = chosen - size;
      const said = `${over} restore ${restored} of the effect${
        lost > 0
          ? ` (${chosen.toLocaleString("en-US")} chosen, of which ${
            lost.toLocaleString("en-US")
          } lead nowhere)`
          : ""
      }.${at === circuit.counted ? " This is the circuit that the headline counts." : ""}`;
      within(figure, ".shown").textContent = said;
      slider.setAttribute("aria-valuetext", said);
      showTable(() =>
        shown.map(([source, input, score]) => [source, owner(input), kindOf(input), signed(score)])
      );
      if (!nodes.has(held)) held = "";
      if (shown.length === 0) {
        told.textContent = "";
        place.replaceChildren(
          element("p", "Nothing is drawn, as no edge is on a way from the tokens to the logits."),
        );
        return;
      }
      const hasFocus = place.contains(document.activeElement) && document.activeElement !== place;
      if (!nodes.has(current)) current = "logits";

      const strongest = shown.slice(0, MOST_NAMED).map(([source, input, score]) =>
        `${source} to ${inputName(input)} ${signed(score)}`
      ).join(", ");
      const picture = svg("svg", {
        width,
        height: (2 * data.layers + 1) * ROW / 2 + 48,
        role: "group",
        "aria-label": `${called.replace(/^the /, "The ")}: ${over}. The strongest: ${strongest}.`,
      });
      const lines = shown.map((edge) => {
        const [source, input, score] = edge;
        const [from, to] = [nodeOf(source), nodeOf(owner(input))];
        const [top, foot] = [from.y - 11, to.y + 11];
        const bend = (top - foot) / 2;
        // Within a column an edge goes round the nodes between its ends.
        const aside = Math.abs(from.x - to.x) < NODE_WIDTH && top - foot > ROW / 2 ? NODE_WIDTH / 2 + 4 : 0;
        const side = from.x > width / 2 ? -aside : aside;
        const strength = Math.abs(score) / largest;
        return svg(
          "path",
          {
            d: `M${from.x} ${top}C${from.x + 2 * side} ${top - bend} ${to.x + 2 * side} ${
              foot + bend
            } ${to.x} ${foot}`,
            class: score < 0 ? "edge against" : "edge for",
            "stroke-width": (1 + 5 * strength).toFixed(2),
            "stroke-opacity": (0.35 + 0.6 * Math.sqrt(strength)).toFixed(2),
          },
          svg("title", {}, `${source} to ${inputName(input)}: ${signed(score)}`),
        );
      });
      // The strongest lie on top.
      picture.append(...lines.toReversed());
      // A key head is joined to those of its heads that are seen.
      const group = data.heads / data.key_value_heads;
      for (const { name, x, y } of nodes.values()) {
        const [, layer, keyHead] = /^a(\d+)\.g(\d+)$/.exec(name) ?? [];
        for (let n = 0; keyHead !== undefined && n < group; n++) {
          const head = nodes.get(`a${layer}.h${Number(keyHead) * group + n}`);
          if (head) picture.append(svg("path", { d: `M${x} ${y}L${head.x} ${head.y}`, class: "group" }));
        }
      }

      const inOrder = [...nodes.values()].sort((a, b) => a.y - b.y || a.x - b.x);
      const drawnNodes = inOrder.map((node) => {
        const { name, x, y } = node;
        const at = svg(
          "g",
          {
            class: "node",
            role: "button",
            tabindex: name === current ? 0 : -1,
            "data-name": name,
            "aria-pressed": String(name === held),
            "aria-label": `${name}: ${brief(node)}`,
          },
          svg("rect", { x: x - NODE_WIDTH / 2, y: y - 11, width: NODE_WIDTH, height: 22, rx: 5 }),
          svg("text", { x, y: y + 4, "text-anchor": "middle" }, name),
        );
        at.addEventListener("focus", () => {
          drawnNodes.forEach((other) => other.setAttribute("tabindex", "-1"));
          at.setAttribute("tabindex", "0");
          current = name;
          look(node);
        });
        at.addEventListener("blur", () => look(undefined));
        at.addEventListener("pointerenter", () => look(node));
        at.addEventListener("pointerleave", () => look(undefined));
        at.addEventListener("click", () => hold(held === name ? "" : name));
        at.addEventListener("keydown", (event) => {
          const { key } = /** @type {KeyboardEvent} */ (event);
          const next = key === "Enter" || key === " " || key === "Escape" ? node : beside(node, key);
          if (!next) return;
          event.preventDefault();
          if (key === "Escape") hold("");
          else if (next === node) hold(held === name ? "" : name);
          else focus(next.name);
        });
        return at;
      });
      picture.append(...drawnNodes);
      place.replaceChildren(picture);

      /** @param {string} name */
      function focus(name) {
        const found = inOrder.findIndex((node) => node.name === name);
        /** @type {SVGElement} */ (drawnNodes[found]).focus();
      }
      /** The next node in a direction. @param {GraphNode} node @param {string} key */
      function beside(node, key) {
        const at = inOrder.indexOf(node);
        if (key === "ArrowLeft") return inOrder[at - 1];
        if (key === "ArrowRight") return inOrder[at + 1];
        const isUp = key === "ArrowUp";
        if (!isUp && key !== "ArrowDown") return undefined;
        const there = inOrder.filter(({ y }) => isUp ? y < node.y : y > node.y);
        const row = isUp ? Math.max(...there.map(({ y }) => y)) : Math.min(...there.map(({ y }) => y));
        return there.filter(({ y }) => y === row)
          .sort((a, b) => Math.abs(a.x - node.x) - Math.abs(b.x - node.x))[0];
      }
      /** Lights up a node's edges and says what they are: of the one looked at, else of the one held. @param {GraphNode | undefined} node */
      function look(node) {
        const lit = node ?? nodes.get(held);
        picture.classList.toggle("lit", lit !== undefined);
        const near = new Set(lit && [lit.name]);
        shown.forEach((edge, n) => {
          const ends = [edge[0], owner(edge[1])];
          const on = lit !== undefined && ends.includes(lit.name);
          lines[n].classList.toggle("on", on);
          if (on) ends.forEach((end) => near.add(end));
        });
        inOrder.forEach(({ name }, n) => drawnNodes[n].classList.toggle("on", near.has(name)));
        told.textContent = lit ? `${lit.name}: ${lit.name === held ? named(lit) : brief(lit)}` : "";
      }
      /** @param {string} name the node that is held from now on, or "" */
      function hold(name) {
        held = name;
        inOrder.forEach(({ name }, n) => drawnNodes[n].setAttribute("aria-pressed", String(name === held)));
        look(inOrder[drawnNodes.findIndex((drawn) => drawn === document.activeElement)]);
      }
      look(undefined);
      if (hasFocus) focus(current);
    }

    slider.addEventListener("input", draw);
    drawn(place, draw);
  }

  /** @param {GraphNode} node */
  const brief = ({ into, out }) =>
    `${counted(into.length, "edge")} in${
      into.length > 0 ? `, ${together(into)} together` : ""
    }; ${out.length} out${out.length > 0 ? `, ${together(out)} together` : ""}.`;

  /** @param {GraphNode} node */
  function named({ into, out }) {
    const list = (/** @type {Edge[]} */ edges, /** @type {(edge: Edge) => string} */ text) =>
      edges.slice(0, MOST_NAMED).map((edge) => `${text(edge)} ${signed(edge[2])}`).join(", ") +
      (edges.length > MOST_NAMED ? ` and ${edges.length - MOST_NAMED} more` : "");
    return [
      into.length > 0 &&
      `reads ${list(into, ([source, input]) => `${source}${kindOf(input) && ` as ${kindOf(input)}`}`)}`,
      out.length > 0 && `is read by ${list(out, ([, input]) => inputName(input))}`,
    ].filter(Boolean).join("; ") + ".";
  }

  /** As `.token` in the style. */
  const TOKEN_FONT = "14px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace";
  const GAP = 10;
  const MOST_GAP = 60;
  /** Pixels from token to token where not all of them fit upright. */
  const LEAST_STEP = 24;
  const ruler = document.createElement("canvas").getContext("2d");

  /**
   * Where tokens stand in so much room: upright, in a row, where all of them fit; else close together, and those that are
   * too long for that are turned.
   *
   * @param {string[]} texts @param {number} room
   */
  function placeTokens(texts, room) {
    if (ruler) ruler.font = TOKEN_FONT;
    const widths = texts.map((text) => Math.max(12, ruler?.measureText(text).width ?? 8 * text.length));
    const taken = widths.reduce((sum, width) => sum + width, 0);
    const gap = (room - taken) / (texts.length + 1);
    if (gap >= GAP) {
      let end = 0;
      const xs = widths.map((width) => {
        end += Math.min(gap, MOST_GAP) + width;
        return end - width / 2;
      });
      return { xs, turned: widths.map(() => false), width: end + Math.min(gap, MOST_GAP), below: 26 };
    }
    // What is turned reaches to the right of the last token.
    const beyond = Math.max(...widths) / 2;
    const step = Math.max(LEAST_STEP, (room - 2 * GAP - beyond) / texts.length);
    const turned = widths.map((width) => width > step - 4);
    const long = Math.max(0, ...widths.filter((_, n) => turned[n]));
    return {
      xs: texts.map((_, n) => (n + 0.5) * step + GAP),
      turned,
      width: step * texts.length + 2 * GAP + beyond,
      below: 20 + Math.max(6, 0.87 * long),
    };
  }

  /** A token as it can be seen. @param {string} token */
  const visible = (token) => token.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");

  /** @param {HTMLElement} figure @param {Model} model @param {Attention} attention @param {HTMLSelectElement} select */
  function attentionOf(figure, { name, called }, attention, select) {
    const place = within(figure, ".drawing");
    const tokens = attention.tokens.map(visible);
    const showTable = tableUnder(figure, `Attention, ${name}`, ["token", "looks at", "weight"]);
    const where = (/** @type {number} */ position) => `${tokens[position]} (${position + 1})`;

    function draw() {
      const head = select.value;
      const found = attention.heads.find((one) => `${one.layer}.${one.head}` === head);
      const edges = [...found?.edges ?? []].sort((a, b) => b[2] - a[2]);
      within(figure, "figcaption span").textContent = `${
        counted(found?.open ?? 0, "open edge")
      } of this head; ${edges.length} of a weight of ${attention.least_weight} or more ${
        edges.length === 1 ? "is" : "are"
      } drawn`;
      showTable(() => edges.map(([query, key, weight]) => [where(query), where(key), weight]));
      const { xs, turned, width, below } = placeTokens(tokens, place.clientWidth);
      const far = Math.max(40, ...edges.map(([query, key]) => xs[query] - xs[key]));
      const height = Math.min(220, 30 + far / 3);
      const heaviest = edges.slice(0, MOST_NAMED).map(([query, key, weight]) =>
        `${tokens[query]} looks at ${tokens[key]} ${weight}`
      ).join(", ");
      const picture = svg("svg", {
        width,
        height: height + below,
        role: "img",
        "aria-label": `Attention of head ${head} in ${called}: ${counted(edges.length, "edge")} over ${
          counted(tokens.length, "token")
        }.${heaviest ? ` The heaviest: ${heaviest}.` : ""}`,
      });
      for (const [query, key, weight] of edges.toReversed()) {
        const [from, to] = [xs[key], xs[query]];
        const rise = 1.3 * Math.min(height - 8, 12 + (height - 12) * (to - from) / far);
        const d = query === key
          ? `M${from - 4} ${height}a4 8 0 1 1 8 0`
          : `M${from} ${height}C${from} ${height - rise} ${to} ${height - rise} ${to} ${height}`;
        picture.append(svg(
          "path",
          {
            d,
            class: "edge for",
            "stroke-width": (0.5 + 3 * weight).toFixed(2),
            "stroke-opacity": (0.15 + 0.85 * weight).toFixed(2),
          },
          svg("title", {}, `${where(query)} looks at ${where(key)}: ${weight}`),
        ));
      }
      tokens.forEach((token, n) => {
        const y = height + 16;
        /** @type {Record<string, string | number>} */
        const how = turned[n]
          ? { x: xs[n] - 4, y: y - 4, transform: `rotate(60 ${xs[n] - 4} ${y - 4})` }
          : { x: xs[n], y, "text-anchor": "middle" };
        picture.append(svg("text", { class: "token", ...how }, token));
      });
      place.replaceChildren(picture);
    }

    select.addEventListener("input", draw);
    drawn(place, draw);
  }

  // First what needs this script, so that the drawings know the room they have.
  for (const part of document.querySelectorAll(".needs-script")) part.removeAttribute("hidden");
  const select = /** @type {HTMLSelectElement} */ (document.getElementById("attention-head"));
  for (const model of data.models) {
    const { circuit, attention } = model;
    const figure = (
      /** @type {string} */ what,
    ) => /** @type {HTMLElement} */ (document.querySelector(
      `figure.${what}[data-kind=${CSS.escape(model.name)}]`,
    ));
    if (circuit) graph(figure("graph"), model, circuit);
    if (attention) attentionOf(figure("attention"), model, attention, select);
  }
})();
