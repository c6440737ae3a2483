// Ribbons: keys at the left, queries at the right, and between them bands as wide as the weights.
// The weights of a query sum to 1, so its bands together are as high as its token.

const ROOM = 430; // pixels that the rows of a short sentence fill
const ROWS = [36, 58]; // the least and the most pixels from one token to the next
const BAND_SHARE = 0.68; // of a row: the height of bands whose weights sum to 1
const MORPH = 260; // milliseconds from one head to another

function makeRibbons(root, explorer) {
  const sides = { k: root.querySelector(".keys"), q: root.querySelector(".queries") };
  const svg = root.querySelector(".bands");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  let shown = null; // the weights on the screen
  let made = null; // the tokens for which the lists were made
  let row = 0; // pixels from one token to the next
  let band = 0; // height of bands whose weights sum to 1
  let shift = { k: 0, q: 0 }; // the shorter side is in the middle
  let frame = 0;

  for (const [side, list] of Object.entries(sides)) {
    roving(list, "button");
    const index = (event) => {
      const button = event.target.closest("button");
      return button ? +button.dataset.row : null;
    };
    const look = (event) => explorer.point(index(event) === null ? null : { side, i: index(event) });
    list.addEventListener("pointerover", look);
    list.addEventListener("pointerleave", () => explorer.point(null));
    list.addEventListener("focusin", look);
    list.addEventListener("focusout", () => explorer.point(null));
    list.addEventListener("click", (event) => {
      if (index(event) !== null) explorer.hold({ side, i: index(event) });
    });
  }

  function makeList(side, tokens, ids) {
    const items = tokens.map((token, i) => {
      const button = make(
        "button",
        { type: "button", "data-row": i, "data-column": 0, "aria-pressed": "false" },
        tokenText(token),
        make("span", { class: "id" }, String(ids[i])),
      );
      return make("li", {}, button, make("span", { class: "share", "aria-hidden": "true" }));
    });
    sides[side].replaceChildren(...items);
    oneInTab(sides[side], "button");
  }

  // Give every token a row, and the two sides one height.
  function layOut(keys, queries) {
    const [least, largest] = ROWS;
    const most = Math.max(keys, queries);
    row = Math.max(least, Math.min(largest, ROOM / most));
    band = BAND_SHARE * row;
    // While the live page writes, tokens must not move when another is added.
    const growing = explorer.state.filming;
    shift = { k: ((most - keys) * row) / 2, q: growing ? 0 : ((most - queries) * row) / 2 };
    sides.q.style.alignContent = growing ? "start" : "";
    root.querySelector(".ribbons").style.setProperty("--row", `${row}px`);
    svg.setAttribute("viewBox", `0 0 100 ${most * row}`);
    svg.style.height = `${most * row}px`;
  }

  function drawBands(rows, focus) {
    const bands = [];
    const received = rows[0].map((_, k) => rows.reduce((sum, weights) => sum + weights[k], 0));
    const used = new Float32Array(received.length); // height of a key that has been given away
    rows.forEach((weights, q) => {
      if (!explorer.isWritten(q)) return;
      let top = shift.q + (q + 0.5) * row - band / 2;
      weights.forEach((weight, k) => {
        const height = band * weight;
        const scale = band / Math.max(1, received[k]);
        const middle = shift.k + (k + 0.5) * row;
        const start = middle - (received[k] * scale) / 2 + used[k] * scale;
        used[k] += weight;
        const y = top;
        top += height;
        if (weight < 0.004) return;
        const left = [start, start + weight * scale];
        bands.push({ k, q, weight, left, right: [y, y + height] });
      });
    });
    bands.sort((a, b) => a.weight - b.weight);
    svg.replaceChildren(...bands.map((band) => bandPath(band, focus)));
  }

  function bandPath({ k, q, weight, left, right }, focus) {
    const [a, b] = left.map((y) => y.toFixed(2));
    const [c, d] = right.map((y) => y.toFixed(2));
    const inFocus = !focus || (focus.side === "q" ? focus.i === q : focus.i === k);
    const now = explorer.state.filming && explorer.state.kind !== "encoder" && !focus;
    const faded = !inFocus || (now && q !== explorer.state.step - 1);
    return makeSvg("path", {
      d: `M0 ${a}C50 ${a} 50 ${c} 100 ${c}V${d}C50 ${d} 50 ${b} 0 ${b}Z`,
      fill: ramp(0.25 + 0.6 * weight),
      class: faded ? (inFocus ? "earlier" : "faded") : "",
    });
  }

  function drawShares(rows, focus) {
    for (const [side, list] of Object.entries(sides)) {
      [...list.children].forEach((item, i) => {
        const [button, share] = item.children;
        const ahead = side === "q" && !explorer.isWritten(i);
        const weight = focus && focus.side !== side ? weightTo(rows, focus, i) : null;
        const isFocus = Boolean(focus && focus.side === side && focus.i === i);
        const held = explorer.state.held;
        item.classList.toggle("ahead", ahead);
        item.classList.toggle("focus", isFocus);
        button.setAttribute("aria-pressed", String(Boolean(held && held.side === side && held.i === i)));
        share.textContent = weight === null || ahead ? "" : percent(weight);
        button.style.background = weight === null || ahead ? "" : ramp(weight);
        button.style.color = weight === null || ahead ? "" : textOn(weight);
      });
    }
  }

  const weightTo = (rows, focus, i) => (focus.side === "q" ? rows[focus.i][i] : rows[i][focus.i]);

  // Move from the weights on the screen to the new ones.
  function morph(rows, focus) {
    cancelAnimationFrame(frame);
    const sameSize = shown && shown.length === rows.length && shown[0].length === rows[0].length;
    if (!sameSize || calm.matches) {
      shown = rows;
      drawBands(rows, focus);
      return;
    }
    const from = shown;
    let start = null;
    const tick = (time) => {
      start ??= time;
      const part = Math.min(1, (time - start) / MORPH);
      const eased = part * part * (3 - 2 * part);
      shown = rows.map((weights, q) => weights.map((w, k) => from[q][k] + (w - from[q][k]) * eased));
      drawBands(shown, focus);
      if (part < 1) frame = requestAnimationFrame(tick);
    };
    frame = requestAnimationFrame(tick);
  }

  return {
    draw() {
      const { keys, queries, rows } = explorer.view();
      const names = JSON.stringify([keys, queries]);
      if (names !== made) {
        made = names;
        shown = null;
        makeList("k", keys.tokens, keys.ids);
        makeList("q", queries.tokens, queries.ids);
        layOut(keys.tokens.length, queries.tokens.length);
      }
      const focus = explorer.focus();
      morph(rows, focus);
      drawShares(rows, focus);
    },
  };
}
