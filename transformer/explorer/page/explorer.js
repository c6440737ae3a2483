// The explorer: what is chosen, what that means, and the views that show it.

const KINDS = {
  encoder: ["source, attended to", "source, attending"],
  decoder: ["read so far, attended to", "being written"],
  cross: ["source, attended to", "being written"],
};

// Make an explorer in `root`, which has the elements of views.html.
function createExplorer(root, data) {
  const state = {
    kind: "cross",
    layer: data.model.layers - 1,
    head: MEAN,
    step: data.steps.length,
    filming: false, // whether one step is looked at, instead of the whole translation
    held: null, // the token that was clicked: {side: "q" or "k", i}
    pointed: null, // the token under the pointer or with the focus
  };
  let unpacked = {};
  let views = [];

  const explorer = {
    data,
    state,
    steps: () => explorer.data.steps.length,
    weights(kind) {
      unpacked[kind] ??= unpack(explorer.data.attention[kind]);
      return unpacked[kind];
    },
    // The tokens of both sides, and the weights between them.
    view() {
      const { source, target, read } = explorer.data;
      const keys = state.kind === "decoder" ? read : source;
      const queries = state.kind === "encoder" ? source : target;
      const rows = matrixOf(explorer.weights(state.kind), state.layer, state.head);
      return { keys, queries, rows };
    },
    focus: () => state.pointed ?? state.held,
    isWritten: (q) => state.kind === "encoder" || q < state.step,
    set(changes) {
      if (changes.kind && changes.kind !== state.kind) Object.assign(state, { held: null, pointed: null });
      Object.assign(state, changes);
      state.step = Math.max(1, Math.min(explorer.steps(), state.step));
      draw();
    },
    point(spot) {
      if (JSON.stringify(spot) === JSON.stringify(state.pointed)) return;
      state.pointed = spot;
      draw();
    },
    hold(spot) {
      const same = state.held && state.held.side === spot.side && state.held.i === spot.i;
      state.held = same ? null : spot;
      draw();
    },
    release() {
      Object.assign(state, { held: null, pointed: null });
      draw();
    },
    // Show another translation, or more of the same one.
    show(newData, changes = {}) {
      explorer.data = newData;
      unpacked = {};
      Object.assign(state, { held: null, pointed: null, step: newData.steps.length }, changes);
      state.layer = Math.min(state.layer, newData.model.layers - 1);
      drawHead(root, newData);
      draw();
    },
  };

  function draw() {
    for (const button of root.querySelectorAll(".kinds button")) {
      button.setAttribute("aria-pressed", String(button.dataset.kind === state.kind));
    }
    const [keys, queries] = KINDS[state.kind];
    root.querySelector(".keys-name").textContent = keys;
    root.querySelector(".queries-name").textContent = queries;
    root.querySelector(".reading").textContent = sentence(explorer);
    for (const view of views) view.draw();
  }

  root.querySelector(".kinds").addEventListener("click", (event) => {
    const kind = event.target.closest("button")?.dataset.kind;
    if (kind) explorer.set({ kind });
  });
  views = [makeRibbons, makeHeads, makeMatrix, makeFilm, makeBeam].map((view) => view(root, explorer));
  drawHead(root, data);
  root.hidden = false;
  followTheme(root.querySelector(".theme"), draw);
  return explorer;
}

function drawHead(root, { source, target, model }) {
  root.querySelector(".source").textContent = source.text;
  root.querySelector(".target").textContent = target.text;
  root.querySelector(".facts").textContent = [
    plural(model.layers, "layer"),
    plural(model.heads, "head"),
    `width ${model.width}`,
    `${grouped(model.parameters)} parameters`,
  ].join(" · ");
  root.querySelector(".vocabulary").textContent = plural(model.vocabulary, "token");
  root.querySelector(".layers").textContent = plural(model.layers, "layer");
}

// What the pointed token attends to, in words.
function sentence(explorer) {
  const focus = explorer.focus();
  const { keys, queries, rows } = explorer.view();
  if (!focus) return "Point at a token, or click it to hold it.";
  const name = (side, i) => plain(side.tokens[i]);
  if (focus.side === "k") {
    const shares = rows.map((row, q) => [name(queries, q), row[focus.i], q]);
    const seen = shares.filter(([, , q]) => explorer.isWritten(q));
    return `${name(keys, focus.i)} is attended to by ${listed(seen)}`;
  }
  if (!explorer.isWritten(focus.i)) return `${name(queries, focus.i)} is not written yet`;
  if (focus.key !== undefined) {
    const weight = percent(rows[focus.i][focus.key]);
    return `${name(queries, focus.i)} attends to ${name(keys, focus.key)}: ${weight}`;
  }
  const shares = [...rows[focus.i]].map((weight, k) => [name(keys, k), weight]);
  return `${name(queries, focus.i)} attends to ${listed(shares)}`;
}

// The three largest shares, with names.
function listed(shares) {
  const largest = [...shares].sort((a, b) => b[1] - a[1]).slice(0, 3);
  return largest.map(([name, weight]) => `${name} (${percent(weight)})`).join(", ");
}
