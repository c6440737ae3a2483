"""Known mistakes of chapter 5: residual connections and layer norm."""
