"""Wrong implementations that people really write, one a file; each must be caught by a check that names it."""
