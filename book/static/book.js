// What differs when the book is opened from a folder and not from a web server.

"use strict";

const fromFolder = location.protocol === "file:";

// There, a browser lets no page read another one: the search finds pages, without excerpts.
if (fromFolder && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

document.addEventListener("DOMContentLoaded", () => {
  for (const element of document.querySelectorAll(".from-folder")) element.hidden = !fromFolder;
});
