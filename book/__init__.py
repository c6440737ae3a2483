"""The web book: `make book`, or `python -m book` from the root of the repository.

| module | what it does |
|---|---|
| `sources` | collects the pages in one folder: chapters, pages, figures |
| `glossary` | makes a page of chapter 0's glossary, with an anchor for each term |
| `reference` | makes the reference from signatures and docstrings |
| `definitions` | finds what a module defines, without importing it |
| `build` | fetches MathJax, runs Sphinx, adds the explorer and the live page |
| `links` | checks what was built: links, images, anchors, sizes, nothing from elsewhere |
"""
