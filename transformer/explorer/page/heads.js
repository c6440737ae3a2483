// Heads side by side: a small picture of every head of every layer, and of each layer's mean.

function makeHeads(root, explorer) {
  const atlas = root.querySelector(".atlas");
  let made = null; // what the pictures show

  roving(atlas, "button");
  atlas.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) explorer.set({ layer: +button.dataset.row, head: headOf(button) });
  });

  const headOf = (button) => (button.dataset.head === MEAN ? MEAN : +button.dataset.head);

  function picture(rows) {
    const canvas = make("canvas", { width: rows[0].length, height: rows.length });
    const pen = canvas.getContext("2d");
    rows.forEach((row, q) =>
      row.forEach((weight, k) => {
        pen.fillStyle = ramp(weight);
        pen.fillRect(k, q, 1, 1);
      }),
    );
    return canvas;
  }

  function makeRow(weights, layer) {
    const heads = [MEAN, ...Array(weights.shape[1]).keys()];
    const buttons = heads.map((head, column) =>
      make(
        "button",
        {
          type: "button",
          "data-row": layer,
          "data-column": column,
          "data-head": head,
          "aria-label": `layer ${layer + 1}, ${headName(head)}`,
        },
        picture(matrixOf(weights, layer, head)),
        make("span", { "aria-hidden": "true" }, head === MEAN ? "mean" : String(head + 1)),
      ),
    );
    const name = make("span", { class: "layer-name", "aria-hidden": "true" }, `layer ${layer + 1}`);
    return make("div", { class: "atlas-row" }, name, ...buttons);
  }

  return {
    draw() {
      const { kind, layer, head } = explorer.state;
      const weights = explorer.weights(kind);
      if (made !== weights || atlas.dataset.dark !== String(isDark())) {
        made = weights;
        atlas.dataset.dark = String(isDark());
        const held = document.activeElement;
        const place = atlas.contains(held) ? { ...held.dataset } : null;
        atlas.replaceChildren(...[...Array(weights.shape[0]).keys()].map((l) => makeRow(weights, l)));
        if (place) {
          atlas.querySelector(`[data-row="${place.row}"][data-column="${place.column}"]`)?.focus();
        }
      }
      let chosen = null;
      for (const button of atlas.querySelectorAll("button")) {
        const isChosen = +button.dataset.row === layer && headOf(button) === head;
        button.setAttribute("aria-pressed", String(isChosen));
        if (isChosen) chosen = button;
      }
      if (!atlas.contains(document.activeElement)) oneInTab(atlas, "button", chosen);
    },
  };
}

const headName = (head) => (head === MEAN ? "mean of its heads" : `head ${head + 1}`);
