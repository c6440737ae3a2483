// Numbers: what the page was given, as matrices, and numbers as text.

const MEAN = "mean";

// Unpack the bytes of one kind of attention: layers × heads × queries × keys. The live page has
// numbers already.
function unpack({ shape, levels, bytes, values: given }) {
  if (given) return { shape, values: given };
  const text = atob(bytes);
  const values = new Float32Array(text.length);
  for (let i = 0; i < text.length; i += 1) values[i] = text.charCodeAt(i) / levels;
  return { shape, values };
}

// The weights of one head as rows of queries, or the mean of a layer's heads.
function matrixOf({ shape, values }, layer, head) {
  const [, heads, queries, keys] = shape;
  const chosen = head === MEAN ? [...Array(heads).keys()] : [head];
  const rows = [];
  for (let q = 0; q < queries; q += 1) {
    const row = new Float32Array(keys);
    for (const h of chosen) {
      const start = ((layer * heads + h) * queries + q) * keys;
      for (let k = 0; k < keys; k += 1) row[k] += values[start + k] / chosen.length;
    }
    rows.push(row);
  }
  return rows;
}

const percent = (share) => `${Math.round(100 * share)} %`;
const probability = (p) => {
  if (p < 0.0001) return "< 0.01 %";
  return p >= 0.0995 && p < 0.995 ? `${(100 * p).toFixed(0)} %` : `${(100 * p).toFixed(2)} %`;
};
const grouped = (number) => number.toLocaleString("en-US");
const logarithm = (score) => (score > -0.005 ? "0.00" : score.toFixed(2)).replace("-", "−");
const precise = (score) => score.toFixed(3).replace("-", "−");
const shapeText = (shape) => `(${shape.join(", ")})`;
const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
