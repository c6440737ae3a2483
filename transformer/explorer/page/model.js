// The model: two graphs that ONNX Runtime runs in WebAssembly, for one sentence at a time.

class LiveModel {
  static async load() {
    ort.env.wasm.wasmPaths = "./";
    ort.env.wasm.numThreads = 1; // more need headers that a plain web server does not send
    const json = async (name) => (await fetch(name)).json();
    const options = { executionProviders: ["wasm"] };
    const [config, tokenizer] = await Promise.all([json("config.json"), json("tokenizer.json")]);
    const model = new LiveModel();
    model.config = config;
    model.tokenizer = new BpeTokenizer(tokenizer);
    model.encoder = await ort.InferenceSession.create("encoder.onnx", options);
    model.stepper = await ort.InferenceSession.create("step.onnx", options);
    return model;
  }

  get sizes() {
    const { n_layers: layers, n_heads: heads, d_model: width } = this.config;
    return { layers, heads, width, part: width / heads };
  }

  // Read the source: its keys and values for cross-attention, and the encoder's weights.
  async encode(ids) {
    const src = new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);
    return this.encoder.run({ src });
  }

  emptyCache() {
    const { layers, heads, part } = this.sizes;
    return new ort.Tensor("float32", new Float32Array(0), [layers, 2, 1, heads, 0, part]);
  }

  // Read one more token in each row.
  async step(ids, position, source, past) {
    return this.stepper.run({
      ids: new ort.Tensor("int64", BigInt64Array.from(ids, BigInt), [ids.length]),
      position: new ort.Tensor("int64", BigInt64Array.of(BigInt(position)), [1]),
      source,
      past,
    });
  }

  // The cache with these rows, in this order.
  reorder(cache, rows) {
    const [layers, two, count, ...rest] = cache.dims;
    const size = rest.reduce((a, b) => a * b, 1);
    const data = new Float32Array(layers * two * rows.length * size);
    let end = 0;
    for (let outer = 0; outer < layers * two; outer += 1) {
      for (const row of rows) {
        const start = (outer * count + row) * size;
        data.set(cache.data.subarray(start, start + size), end);
        end += size;
      }
    }
    return new ort.Tensor("float32", data, [layers, two, rows.length, ...rest]);
  }
}

// The logarithms of the probabilities of each row; a token that must not be written has -∞.
function logProbabilities(logits, forbidden) {
  const [rows, vocabulary] = logits.dims;
  return [...Array(rows).keys()].map((row) => {
    const values = Float64Array.from(logits.data.subarray(row * vocabulary, (row + 1) * vocabulary));
    const largest = values.reduce((a, b) => Math.max(a, b), -Infinity);
    const sum = values.reduce((total, x) => total + Math.exp(x - largest), 0);
    const result = values.map((x) => x - largest - Math.log(sum));
    for (const id of forbidden) result[id] = -Infinity;
    return result;
  });
}
