// Start with the translation that the page holds.

createExplorer(
  document.querySelector(".explorer"),
  JSON.parse(document.getElementById("translation").textContent),
);
