// Keyboard: groups in which one element takes part in Tab, and arrows move among the others.

const ARROWS = {
  ArrowLeft: [0, -1],
  ArrowRight: [0, 1],
  ArrowUp: [-1, 0],
  ArrowDown: [1, 0],
};

// Let arrows, Home and End move the focus among the elements with data-row and data-column.
function roving(container, selector) {
  const all = () => [...container.querySelectorAll(selector)];
  const at = (row, column) =>
    container.querySelector(`${selector}[data-row="${row}"][data-column="${column}"]`);

  container.addEventListener("focusin", (event) => {
    const target = event.target.closest(selector);
    if (!target) return;
    for (const element of all()) element.tabIndex = element === target ? 0 : -1;
  });
  container.addEventListener("keydown", (event) => {
    const from = event.target.closest(selector);
    if (!from || event.altKey || event.ctrlKey || event.metaKey) return;
    let next = null;
    if (event.key in ARROWS) {
      const [down, right] = ARROWS[event.key];
      next = at(+from.dataset.row + down, +from.dataset.column + right);
      event.preventDefault();
      event.stopPropagation();
    } else if (event.key === "Home" || event.key === "End") {
      const row = all().filter((element) => element.dataset.row === from.dataset.row);
      next = event.key === "Home" ? row[0] : row[row.length - 1];
      event.preventDefault();
    }
    if (next) next.focus();
  });
}

// After the elements have been made anew, let one of them take part in Tab.
function oneInTab(container, selector, chosen = null) {
  const elements = [...container.querySelectorAll(selector)];
  const first = chosen ?? elements[0];
  for (const element of elements) element.tabIndex = element === first ? 0 : -1;
}
