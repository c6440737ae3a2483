"""`python -m book` builds the web book."""

import sys

from book.build import main

if __name__ == "__main__":
    sys.exit(main())
