// @ts-check
/// <reference lib="dom" />
// The page's two drawings: a circuit as a graph, and one prompt's attention. Data stands in the page as JSON; without
// this script the page still says all of its numbers.
(() => {
  "use strict";
  /** @typedef {{ source: string, input: string, score: number, kept: boolean }} Edge */
  /** @typedef {{ tokens: string[], heads: { layer: number, head: number, edges: [number, number, number][] }[], counts: { all: number, open: number, onPaths: number, mayMatter: number } }} Attention */
  /** @typedef {{ kind: string, label: string, edges: Edge[], circuit: number, attention: Attention | null }} Model */
  const element = document.getElementById("data");
  if (!element) return;
  /** @type {{ layers: number, heads: number, keyValueHeads: number, models: Model[] }} */
  const data = JSON.parse(element.textContent ?? "");
  const SVG = "http://www.w3.org/2000/svg";

  /** @param {string} name @param {Record<string, string | number>} attributes @param {...(Node | string)} children */
  function svg(name, attributes = {}, ...children) {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, String(value));
    node.append(...children);
    return node;
  }
  /** @param {string} id */
  const at = (id) => /** @type {HTMLElement} */ (document.getElementById(id));
  /** @param {number} value */
  const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toPrecision(3);

  /** The node that an input belongs to. @param {string} input */
  const owner = (input) => input.replace(/\.[qkv]$/, "");
  /** @param {string} name */
  const layerOf = (name) =>
    name === "embed" ? -1 : name === "logits" ? data.layers : Number(/^[am](\d+)/.exec(name)?.[1]);

  const WIDTH = 900;
  const ROW = 92;
  /** Where a node stands: attention below the MLP of its layer, the embedding at the foot. @param {string} name */
  function place(name) {
    const rows = 2 * data.layers + 2;
    const y = (/** @type {number} */ row) => 24 + (rows - 1 - row) * ROW / 2;
    if (name === "embed") return { x: WIDTH / 2, y: y(0) };
    if (name === "logits") return { x: WIDTH / 2, y: y(rows - 1) };
    const layer = layerOf(name);
    if (name[0] === "m") return { x: WIDTH - 60, y: y(2 * layer + 2) };
    // A key head stands below the heads that read it.
    const ofGroup = Number(/g(\d+)/.exec(name)?.[1]);
    const head = Number(/h(\d+)/.exec(name)?.[1] ?? (ofGroup + 0.5) * data.heads / data.keyValueHeads - 0.5);
    const below = Number.isNaN(ofGroup) ? 0 : ROW / 4;
    return { x: 60 + (head + 0.5) * (WIDTH - 180) / data.heads, y: y(2 * layer + 1) + below };
  }

  function drawGraph() {
    const model = data.models[Number(/** @type {HTMLSelectElement} */ (at("graph-model")).value)];
    const slider = /** @type {HTMLInputElement} */ (at("graph-edges"));
    const ranked = model.edges;
    const count = Math.min(
      ranked.length,
      Math.round(Math.exp(Number(slider.value) / 1000 * Math.log(ranked.length))),
    );
    at("graph-count").textContent = `${count} strongest of ${ranked.length} edges, down to an effect of ${
      signed(ranked[count - 1].score)
    }`;
    const shown = ranked.slice(0, count);
    const largest = Math.abs(ranked[0].score) || 1;
    const nodes = new Set(["embed", "logits"]);
    for (const { source, input } of shown) nodes.add(source).add(owner(input));
    const picture = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${(2 * data.layers + 2) * ROW / 2 + 24}`,
      role: "img",
      "aria-label": `Circuit of ${count} edges over ${nodes.size - 2} heads and MLPs`,
    });
    const lines = svg("g", { fill: "none" });
    for (const edge of shown.toReversed()) {
      const [from, to] = [place(edge.source), place(owner(edge.input))];
      const bend = (from.y - to.y) / 2;
      const strength = Math.abs(edge.score) / largest;
      const line = svg("path", {
        d: `M${from.x} ${from.y - 11}C${from.x} ${from.y - 11 - bend} ${to.x} ${to.y + 11 + bend} ${to.x} ${
          to.y + 11
        }`,
        class: edge.score < 0 ? "against" : "for",
        "stroke-width": (0.6 + 4 * strength).toFixed(2),
        "stroke-opacity": (0.2 + 0.7 * Math.sqrt(strength)).toFixed(2),
      });
      line.append(svg("title", {}, `${edge.source} → ${edge.input}: ${signed(edge.score)}`));
      lines.append(line);
    }
    // A key head is joined to those of its heads that are seen.
    const group = data.heads / data.keyValueHeads;
    for (const name of nodes) {
      const [, layer, keyHead] = /^a(\d+)\.g(\d+)$/.exec(name) ?? [];
      for (let n = 0; keyHead !== undefined && n < group; n++) {
        const head = `a${layer}.h${Number(keyHead) * group + n}`;
        const [from, to] = [place(name), place(head)];
        const d = `M${from.x} ${from.y}L${to.x} ${to.y}`;
        if (nodes.has(head)) lines.append(svg("path", { d, class: "group" }));
      }
    }
    picture.append(lines);
    for (const name of nodes) {
      const { x, y } = place(name);
      const node = svg("g", { class: "node", tabindex: 0 });
      const into = shown.filter((edge) => owner(edge.input) === name);
      const out = shown.filter((edge) => edge.source === name);
      const sum = (/** @type {Edge[]} */ edges) => edges.reduce((total, { score }) => total + score, 0);
      node.append(
        svg("rect", { x: x - 27, y: y - 11, width: 54, height: 22, rx: 5 }),
        svg("text", { x, y: y + 4, "text-anchor": "middle" }, name),
        svg(
          "title",
          {},
          `${name}: ${into.length} edges in (${signed(sum(into))}), ${out.length} out (${signed(sum(out))})`,
        ),
      );
      picture.append(node);
    }
    at("graph").replaceChildren(picture);
  }

  const TOKEN = 34;
  function drawAttention() {
    const head = /** @type {HTMLSelectElement} */ (at("attention-head")).value;
    const figures = data.models.filter(({ attention }) => attention).map((model) => {
      const attention = /** @type {Attention} */ (model.attention);
      const { tokens } = attention;
      const found = attention.heads.find((one) => `${one.layer}.${one.head}` === head);
      const height = Math.max(90, tokens.length * TOKEN / 4);
      const below = 40 + 8 * Math.max(...tokens.map((token) => token.length));
      const picture = svg("svg", {
        viewBox: `0 0 ${tokens.length * TOKEN + 20} ${height + below}`,
        role: "img",
        "aria-label": `Attention of head ${head} in the ${model.kind} model`,
      });
      for (const [query, key, weight] of found?.edges ?? []) {
        const [x1, x2] = [key, query].map((position) => 10 + (position + 0.5) * TOKEN);
        const rise = query === key ? 16 : Math.min(height - 6, 10 + Math.abs(x2 - x1) / 2.2);
        const d = query === key
          ? `M${x1 - 5} ${height}C${x1 - 12} ${height - rise} ${x1 + 12} ${height - rise} ${x1 + 5} ${height}`
          : `M${x1} ${height}C${x1} ${height - rise * 1.3} ${x2} ${height - rise * 1.3} ${x2} ${height}`;
        const line = svg("path", {
          d,
          class: "for",
          fill: "none",
          "stroke-width": (0.5 + 3 * weight).toFixed(2),
          "stroke-opacity": (0.12 + 0.85 * weight).toFixed(2),
        });
        line.append(svg("title", {}, `${tokens[query]} looks at ${tokens[key]}: ${weight}`));
        picture.append(line);
      }
      tokens.forEach((token, position) => {
        const x = 10 + (position + 0.5) * TOKEN;
        picture.append(
          svg(
            "text",
            { x, y: height + 14, transform: `rotate(60 ${x} ${height + 14})`, class: "token" },
            token,
          ),
        );
      });
      const caption = document.createElement("figcaption");
      caption.textContent = `${model.kind}: ${found?.edges.length ?? 0} edges of this head carry something`;
      const figure = document.createElement("figure");
      const scroll = document.createElement("div");
      scroll.className = "scroll";
      scroll.append(picture);
      figure.append(caption, scroll);
      return figure;
    });
    at("attention").replaceChildren(...figures);
  }

  for (
    const [id, draw] of /** @type {const} */ ([
      ["graph-model", drawGraph],
      ["graph-edges", drawGraph],
      ["attention-head", drawAttention],
    ])
  ) {
    document.getElementById(id)?.addEventListener("input", draw);
  }
  if (document.getElementById("graph")) drawGraph();
  if (document.getElementById("attention")) drawAttention();
  for (const part of document.querySelectorAll(".needs-script")) part.removeAttribute("hidden");
})();
