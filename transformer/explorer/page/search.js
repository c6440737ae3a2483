// The beam search of chapter 12, for one sentence; it keeps what the page shows.

const SHOWN_CANDIDATES = 8;

// Search, and yield after every step what is known by then, in the form of the recorded pages.
async function* searchLive(model, text, beamSize, penalty = 1) {
  const { config, tokenizer } = model;
  const src = [...tokenizer.encode(text), config.eos_id];
  const maxLen = Math.min(2 * 16 * Math.ceil(src.length / 16), config.max_len);
  const encoded = await model.encode(src);
  const found = { text, src, encoded, steps: [], tree: [], finished: [], beamSize, penalty };
  let past = model.emptyCache();
  let rows = [{ node: -1, token: config.bos_id, score: 0 }];

  for (let t = 1; t <= maxLen; t += 1) {
    const ids = rows.map((row) => row.token);
    const result = await model.step(ids, t - 1, encoded.source, past);
    const logs = logProbabilities(result.logits, [config.pad_id, config.bos_id]);
    found.steps.push(recordStep(model, result, logs, rows));
    const nodes = bestExtensions(logs, rows, 2 * beamSize);
    nodes.forEach((node, i) => {
      const ended = node.token === config.eos_id || t === maxLen;
      if (ended && i < beamSize) {
        node.state = "finished";
        found.finished.push({ rank: node.score / t ** penalty, t: t - 1, i });
      }
    });
    found.tree.push(nodes);
    const done = found.finished.length >= beamSize;
    const alive = nodes
      .map((node, i) => ({ ...node, node: i }))
      .filter((node) => node.token !== config.eos_id && t < maxLen);
    rows = alive.slice(0, beamSize);
    for (const { node } of done ? alive : rows) nodes[node].state = done ? "open" : "kept";
    yield { done, data: pageData(model, found) };
    if (done || !rows.length) return;
    past = model.reorder(result.longer, rows.map((row) => row.row));
  }
}

// The best continuations of all rows, best first; of equals, the first.
function bestExtensions(logs, rows, count) {
  const all = [];
  logs.forEach((row, r) => {
    row.forEach((log, token) => {
      const score = rows[r].score + log;
      if (score > -Infinity) all.push({ row: r, parent: rows[r].node, token, score, state: "pruned" });
    });
  });
  return all.sort((a, b) => b.score - a.score).slice(0, count);
}

// What the page shows of a step, for each row: the weights, and the most probable tokens.
function recordStep(model, result, logs, rows) {
  const candidates = logs.map((row) => {
    const order = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, SHOWN_CANDIDATES);
    return order.map((id) => [model.tokenizer.token(id), id, Math.exp(row[id])]);
  });
  return {
    candidates,
    read: rows.map((row) => row.token),
    self: result.self_weights,
    cross: result.cross_weights,
    logits: [1, result.logits.dims[1]],
  };
}

// The best hypothesis so far as the index of its node in each step.
function bestPath({ tree, finished }) {
  const last = tree.length - 1;
  const best = finished.reduce((a, b) => (a && a.rank >= b.rank ? a : b), null);
  let { t, i } = best ?? { t: last, i: 0 };
  const path = [];
  for (; t >= 0; t -= 1) {
    path.unshift(i);
    i = tree[t][i].parent;
  }
  return path;
}

// All that the views show, in the form of the page's JSON.
function pageData(model, found) {
  const { tokenizer, config } = model;
  const path = bestPath(found);
  const nodes = path.map((i, t) => found.tree[t][i]);
  const ids = nodes.map((node) => node.token);
  const read = [config.bos_id, ...ids.slice(0, -1)];
  const named = (text, list) => ({ text, ids: list, tokens: list.map((id) => tokenizer.token(id)) });
  const { layers, heads } = model.sizes;
  return {
    model: { layers, heads, width: config.d_model, vocabulary: config.vocab_size, parameters: config.parameters },
    source: named(found.text, found.src),
    target: named(tokenizer.decode(ids, config.eos_id), ids),
    read: named("", read),
    attention: {
      encoder: { shape: [layers, heads, found.src.length, found.src.length], values: found.encoded.weights.data },
      decoder: rowsTogether(found, nodes, "self", layers, heads, ids.length),
      cross: rowsTogether(found, nodes, "cross", layers, heads, found.src.length),
    },
    steps: nodes.map((node, t) => stepData(model, found, node, t)),
    beam: {
      size: found.beamSize,
      penalty: found.penalty,
      path,
      tree: found.tree.map((step) =>
        step.map(({ token, parent, score, state }) => [tokenizer.token(token), token, parent, score, state]),
      ),
    },
  };
}

// The weights of the best hypothesis: a row of queries for each step.
function rowsTogether(found, nodes, kind, layers, heads, width) {
  const values = new Float32Array(layers * heads * nodes.length * width);
  nodes.forEach((node, t) => {
    const { data, dims } = found.steps[t][kind];
    const length = dims[3];
    for (let l = 0; l < layers; l += 1) {
      for (let h = 0; h < heads; h += 1) {
        // Self-attention: layers, rows, heads, keys. Cross-attention: layers, heads, rows, keys.
        const place = kind === "self" ? (l * dims[1] + node.row) * heads + h : (l * heads + h) * dims[2] + node.row;
        const row = data.subarray(place * length, (place + 1) * length);
        values.set(row, ((l * heads + h) * nodes.length + t) * width);
      }
    }
  });
  return { shape: [layers, heads, nodes.length, width], values };
}

function stepData(model, found, node, t) {
  const { layers, heads, width, part } = model.sizes;
  const k = found.src.length;
  const q = [1, heads, 1, part];
  return {
    candidates: found.steps[t].candidates[node.row],
    shapes: {
      x: [1, 1, width],
      hidden: [1, 1, model.config.d_ff],
      self: [q, [1, heads, t + 1, part], [1, heads, 1, t + 1]],
      cross: [q, [1, heads, k, part], [1, heads, 1, k]],
      logits: found.steps[t].logits,
    },
    cache: { source: 2 * layers * k * width, target: 2 * layers * t * width, added: 2 * layers * width },
  };
}
