"""Wrong implementations that people really write; a check must catch each of them and name it."""
