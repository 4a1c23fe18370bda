"""What all figures share: colours for light and dark pages, and PNG output without global state."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

TRUTH_COLOUR = "#ffc83d"
PREDICTION_COLOUR = "#35b6ff"


@dataclass(frozen=True)
class Theme:
    """The colours of a chart."""

    background: str
    text: str
    grid: str
    line: str
    faint: str
    accent: str


LIGHT = Theme("#ffffff", "#3a424b", "#e3e6ea", "#1f6fb5", "#a9c8e4", "#c2570c")
DARK = Theme("#171b20", "#c3cad2", "#2c333b", "#5cb0f2", "#2f5675", "#f0944d")


def png(figure: Figure, dpi: int = 110) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def style(axes: Axes, theme: Theme, ylabel: str) -> None:
    """Give a chart's axes the theme's colours, horizontal grid lines only and no frame."""
    axes.set_facecolor(theme.background)
    axes.set_ylabel(ylabel, color=theme.text)
    axes.tick_params(which="both", colors=theme.text, length=0, labelsize=9)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)
