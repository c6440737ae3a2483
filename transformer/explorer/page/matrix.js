// The weights of one head as a table: rows are queries, columns are keys.

const MOST_NUMBERS = 12; // columns above which the cells have no visible number

function makeMatrix(root, explorer) {
  const place = root.querySelector(".matrix");
  const title = root.querySelector(".matrix-title");
  let made = null;

  roving(place, "td");
  const cellOf = (event) => event.target.closest("td");
  const look = (event) => {
    const cell = cellOf(event);
    explorer.point(cell ? { side: "q", i: +cell.dataset.row, key: +cell.dataset.column } : null);
  };
  place.addEventListener("pointerover", look);
  place.addEventListener("pointerleave", () => explorer.point(null));
  place.addEventListener("focusin", look);
  place.addEventListener("focusout", () => explorer.point(null));
  place.addEventListener("click", (event) => {
    const cell = cellOf(event);
    if (cell) explorer.hold({ side: "q", i: +cell.dataset.row });
  });

  function makeTable(keys, queries) {
    const heads = keys.tokens.map((token) => make("th", { scope: "col" }, make("div", {}, tokenText(token))));
    const body = queries.tokens.map((token, q) => {
      const cells = keys.tokens.map((_, k) => make("td", { "data-row": q, "data-column": k }));
      return make("tr", {}, make("th", { scope: "row" }, tokenText(token)), ...cells);
    });
    const corner = make("td", { class: "corner" });
    const table = make(
      "table",
      { role: "grid", "aria-label": "attention weights in percent; rows are queries, columns keys" },
      make("thead", {}, make("tr", {}, corner, ...heads)),
      make("tbody", {}, ...body),
    );
    corner.removeAttribute("data-row");
    table.classList.toggle("small", keys.tokens.length > MOST_NUMBERS);
    const longest = Math.max(...keys.tokens.map((token) => token.length));
    table.style.setProperty("--names", `${16 + 6 * longest}px`); // of slanted names
    place.replaceChildren(table);
    oneInTab(place, "tbody td");
  }

  function fill(cell, weight, q, k) {
    const masked = explorer.state.kind === "decoder" && k > q;
    const ahead = !explorer.isWritten(q);
    cell.className = masked ? "masked" : ahead ? "ahead" : "";
    cell.style.background = masked || ahead ? "" : ramp(weight);
    cell.style.color = masked || ahead ? "" : textOn(weight);
    cell.textContent = masked || ahead ? "" : String(Math.round(100 * weight));
    if (masked) cell.setAttribute("aria-label", "masked");
    else if (ahead) cell.setAttribute("aria-label", "not written yet");
    else cell.removeAttribute("aria-label");
  }

  // The ramp beside the table, drawn from the same function.
  function drawLegend() {
    const stops = [...Array(11).keys()].map((i) => ramp(i / 10));
    root.querySelector(".legend .ramp").style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
  }

  return {
    draw() {
      drawLegend();
      const { keys, queries, rows } = explorer.view();
      const names = JSON.stringify([keys, queries]);
      if (names !== made) {
        made = names;
        makeTable(keys, queries);
      }
      const { kind, layer, head } = explorer.state;
      const of = { encoder: "Encoder", decoder: "Decoder", cross: "Cross-attention" }[kind];
      title.textContent = `${of}, layer ${layer + 1}, ${headName(head)}`;
      const focus = explorer.focus();
      for (const cell of place.querySelectorAll("tbody td")) {
        const q = +cell.dataset.row;
        const k = +cell.dataset.column;
        fill(cell, rows[q][k], q, k);
        cell.classList.toggle("lit", Boolean(focus && (focus.side === "q" ? focus.i === q : focus.i === k)));
      }
    },
  };
}
