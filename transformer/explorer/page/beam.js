// The beam as a tree: a column for each step, the best continuation at the top.

const COLUMNS = [162, 212]; // the least and the most pixels from one step to the next
const NODE = [130, 26]; // width and height of a continuation
const LINE = 33; // pixels from one continuation to the next
const TOP = 26; // pixels above the first one

const TOKEN = 0; // the places in a node
const PARENT = 2;
const SCORE = 3;
const STATE = 4;

function makeBeam(root, explorer) {
  const place = root.querySelector(".tree");
  const reading = root.querySelector(".beam-reading");
  let made = null;
  let column = 0; // pixels from one step to the next

  roving(place, "button");
  const look = (event) => {
    const button = event.target.closest("button");
    light(button ? [+button.dataset.column, +button.dataset.row] : null);
  };
  place.addEventListener("pointerover", look);
  place.addEventListener("pointerleave", () => light(null));
  place.addEventListener("focusin", look);
  place.addEventListener("focusout", () => light(null));
  place.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const step = Math.min(+button.dataset.column + 1, explorer.steps());
    explorer.set({ step, filming: true });
  });

  // The places of a node and of all that it continues, the first step first.
  function lineage([t, i]) {
    const { tree } = explorer.data.beam;
    const line = [];
    for (let node = i, step = t; step >= 0 && node >= 0; step -= 1) {
      line.unshift([step, node]);
      node = tree[step][node][PARENT];
    }
    return line;
  }

  function describe([t, i]) {
    const { tree, penalty } = explorer.data.beam;
    const node = tree[t][i];
    const tokens = lineage([t, i]).map(([step, j]) => tree[step][j][TOKEN]);
    const words = tokens.join("").replaceAll("▁", " ").replace("</s>", " </s>").trim();
    const length = t + 1;
    const rank = node[SCORE] / length ** penalty;
    return (
      `“${words}” · log-probability ${precise(node[SCORE])} · by length ${precise(rank)} · ` +
      `${STATES[node[STATE]]}`
    );
  }

  function light(spot) {
    const line = new Set(spot ? lineage(spot).map(String) : []);
    for (const element of place.querySelectorAll("[data-spot]")) {
      element.classList.toggle("lit", line.has(element.dataset.spot));
    }
    place.classList.toggle("lighting", Boolean(spot));
    reading.textContent = describe(spot ?? bestEnd());
  }

  const bestEnd = () => {
    const { path } = explorer.data.beam;
    return [path.length - 1, path[path.length - 1]];
  };

  function makeTree() {
    const { tree, path } = explorer.data.beam;
    const most = Math.max(...tree.map((nodes) => nodes.length));
    const room = (place.clientWidth - NODE[0] - 16) / Math.max(1, tree.length - 1);
    column = Math.max(COLUMNS[0], Math.min(COLUMNS[1], room));
    const width = column * (tree.length - 1) + NODE[0] + 8;
    const height = TOP + LINE * most + 4;
    const links = makeSvg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    const inner = make("div", { class: "tree-inner", style: `width:${width}px;height:${height}px` }, links);
    tree.forEach((nodes, t) => {
      const name = make("span", { class: "tree-step", "data-step": t + 1 }, `step ${t + 1}`);
      name.style.left = `${column * t}px`;
      inner.append(name);
      nodes.forEach((node, i) => {
        const best = path[t] === i;
        if (node[PARENT] >= 0) links.append(link(t, i, node, best));
        inner.append(makeNode(t, i, node, best));
      });
    });
    place.replaceChildren(inner);
    oneInTab(place, "button");
  }

  function link(t, i, node, best) {
    const x0 = column * (t - 1) + NODE[0] + 2;
    const x1 = column * t + 2;
    const y0 = TOP + LINE * node[PARENT] + NODE[1] / 2;
    const y1 = TOP + LINE * i + NODE[1] / 2;
    const middle = (x0 + x1) / 2;
    return makeSvg("path", {
      d: `M${x0} ${y0}C${middle} ${y0} ${middle} ${y1} ${x1} ${y1}`,
      class: `link ${node[STATE]}${best ? " best" : ""}`,
      "data-spot": `${t},${i}`,
      "data-step": t + 1,
    });
  }

  function makeNode(t, i, node, best) {
    const button = make(
      "button",
      {
        type: "button",
        class: `node ${node[STATE]}${best ? " best" : ""}`,
        "data-row": i,
        "data-column": t,
        "data-spot": `${t},${i}`,
        "data-step": t + 1,
        "aria-label": `${plain(node[TOKEN])}, ${logarithm(node[SCORE])}, ${STATES[node[STATE]]}`,
      },
      tokenText(node[TOKEN]),
      make("span", { class: "score" }, logarithm(node[SCORE])),
    );
    button.style.left = `${column * t + 2}px`;
    button.style.top = `${TOP + LINE * i}px`;
    return button;
  }

  // Bring the column of the current step into sight, without moving the page.
  function scrollToStep(step) {
    const left = column * (step - 1);
    if (left < place.scrollLeft || left + NODE[0] > place.scrollLeft + place.clientWidth) {
      place.scrollTo({ left: left - column / 2 });
    }
  }

  return {
    draw() {
      const { beam } = explorer.data;
      if (made !== beam) {
        made = beam;
        makeTree();
        const how = beam.size === 1 ? "greedy search" : `the best ${beam.size} are kept at each step`;
        root.querySelector(".beam-which").textContent = how;
        light(null);
      }
      const { step, filming } = explorer.state;
      for (const element of place.querySelectorAll("[data-step]")) {
        element.classList.toggle("ahead", filming && +element.dataset.step > step);
        element.classList.toggle("now", filming && +element.dataset.step === step);
      }
      if (filming) scrollToStep(step);
    },
  };
}

const STATES = {
  kept: "kept",
  finished: "finished",
  pruned: "pruned",
  open: "not finished when the search ended",
};
