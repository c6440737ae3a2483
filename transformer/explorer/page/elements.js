// Elements: short ways to make them.

// Make an element with attributes and children; an attribute that is null is left out.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function makeSvg(tag, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// A token as text; the mark that begins a word is dimmed, because it stands for a space.
function tokenText(token) {
  const span = make("span", { class: "token" });
  if (token.startsWith("▁") && token.length > 1) {
    span.append(make("span", { class: "space", "aria-hidden": "true" }, "▁"), token.slice(1));
  } else {
    span.append(token);
  }
  return span;
}

// How a token is read aloud, and written within a sentence.
const plain = (token) => (token.length > 1 ? token.replace(/^▁/, "") : token);
