// The film: one step for each token that is written, with its candidates, shapes and cache.

const PAUSE = 1100; // milliseconds a step is shown

function makeFilm(root, explorer) {
  const slider = root.querySelector(".slider");
  const caption = root.querySelector(".caption");
  const play = root.querySelector(".play");
  let timer = 0;
  let shown = null; // the step on the screen

  const stepTo = (step) => explorer.set({ step, filming: true });
  const go = {
    first: () => stepTo(1),
    back: () => stepTo(explorer.state.step - 1),
    on: () => stepTo(explorer.state.step + 1),
    last: () => explorer.set({ step: explorer.steps(), filming: false }),
    play: () => (timer ? stop() : start()),
  };

  function start() {
    if (explorer.state.step >= explorer.steps()) stepTo(1);
    timer = setInterval(() => {
      if (explorer.state.step < explorer.steps()) go.on();
      else {
        stop();
        explorer.set({ filming: false });
      }
    }, PAUSE);
    show();
  }

  function stop() {
    clearInterval(timer);
    timer = 0;
    show();
  }

  function show() {
    play.classList.toggle("playing", Boolean(timer));
    play.setAttribute("aria-label", timer ? "pause" : "play");
  }

  root.querySelector(".buttons").addEventListener("click", (event) => {
    const name = event.target.closest("button")?.dataset.go;
    if (!name) return;
    if (name !== "play" && timer) stop();
    go[name]();
  });
  slider.addEventListener("input", () => {
    if (timer) stop();
    stepTo(+slider.value);
  });
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.target.closest("input, textarea, select")) return;
    const name = { ArrowLeft: "back", ArrowRight: "on" }[event.key];
    const onButton = event.target.closest("button, td, [tabindex]");
    if (name && !event.target.closest(".tree, .matrix")) {
      if (timer) stop();
      go[name]();
    } else if (event.key === " " && !onButton) {
      event.preventDefault();
      go.play();
    } else if (event.key === "Escape") {
      explorer.release();
    }
  });

  return {
    draw() {
      const { data, state } = explorer;
      const number = state.step - 1;
      if (shown === data.steps[number]) return;
      shown = data.steps[number];
      slider.max = explorer.steps();
      slider.value = state.step;
      const read = plain(data.read.tokens[number]);
      const written = plain(data.target.tokens[number]);
      slider.setAttribute("aria-valuetext", `step ${state.step}, writes ${written}`);
      const text = `Step ${state.step} of ${explorer.steps()}: reads `;
      caption.replaceChildren(text, make("b", {}, read), ", writes ", make("b", {}, written));
      drawCandidates(root, data, number);
      drawShapes(root, data.steps[number].shapes);
      drawCache(root, data, number);
    },
  };
}

function drawCandidates(root, data, number) {
  const items = data.steps[number].candidates.map(([token, id, p]) => {
    const bar = make("i", { style: `width:${Math.max(0.4, 100 * p).toFixed(2)}%` });
    const chosen = id === data.target.ids[number];
    return make(
      "li",
      { class: chosen ? "chosen" : null },
      tokenText(token),
      make("span", { class: "bar-track", "aria-hidden": "true" }, bar),
      make("span", { class: "p" }, probability(p)),
    );
  });
  root.querySelector(".candidates").replaceChildren(...items);
}

function drawShapes(root, shapes) {
  const [selfQ, selfK, selfW] = shapes.self;
  const [crossQ, crossK, crossW] = shapes.cross;
  const rows = [
    ["token + position", [["x", shapes.x]]],
    ["self-attention", [["q", selfQ], ["k, v", selfK], ["weights", selfW]]],
    ["cross-attention", [["q", crossQ], ["k, v", crossK], ["weights", crossW]]],
    ["feed-forward", [["hidden", shapes.hidden]]],
    ["output", [["logits", shapes.logits]]],
  ];
  const parts = rows.flatMap(([name, tensors]) => [
    make("dt", {}, name),
    make("dd", {}, ...tensors.map(([letter, size]) => shapeLine(letter, size))),
  ]);
  root.querySelector(".shapes").replaceChildren(...parts);
}

const shapeLine = (letter, size) =>
  make("span", { class: "shape" }, make("i", {}, letter), " ", shapeText(size));

function drawCache(root, data, number) {
  const { source, target, added } = data.steps[number].cache;
  const sum = `reads ${grouped(source + target)} numbers, adds ${grouped(added)}`;
  root.querySelector(".cache-sum").textContent = sum;
  const state = (i) => (i < number ? "stored" : i === number ? "added" : "empty");
  root.querySelector(".cache").replaceChildren(
    cacheRow(
      "keys and values of the source",
      `${grouped(source)} numbers, computed once`,
      data.source.tokens.map((token) => [token, "stored"]),
    ),
    cacheRow(
      "keys and values of the target",
      `${grouped(target)} numbers from earlier steps`,
      data.read.tokens.map((token, i) => [token, state(i)]),
    ),
  );
}

function cacheRow(name, note, cells) {
  const list = cells.map(([token, state]) => {
    const word = state === "empty" ? "not there yet" : state === "added" ? "added now" : "read";
    return make(
      "li",
      { class: state, title: `${plain(token)}: ${word}` },
      state === "empty" ? make("span", { class: "vh" }, word) : tokenText(token),
    );
  });
  return make(
    "div",
    { class: "cache-row" },
    make("p", {}, make("b", {}, name), make("br"), note),
    make("ol", { "aria-label": name }, ...list),
  );
}
