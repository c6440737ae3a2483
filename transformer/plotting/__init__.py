"""Plots for the notebooks, in the colours of the course's diagrams.

Each function draws a figure, shows it and returns None, so that it can end a notebook cell without
printing. In plots of attention and of masks, rows are queries and columns are keys.
"""

from transformer.plotting.heat_maps import plot_attention, plot_mask, plot_matrix
from transformer.plotting.lines import plot_bars, plot_curves, plot_lines

__all__ = ["plot_attention", "plot_bars", "plot_curves", "plot_lines", "plot_mask", "plot_matrix"]
