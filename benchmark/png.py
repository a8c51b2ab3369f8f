"""A figure of matplotlib as a small PNG."""

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from PIL import Image


def png(figure: plt.Figure, dpi: int = 110) -> bytes:
    """The figure as a file, closed. 256 colours are enough for a chart, at a third of the size."""
    file = io.BytesIO()
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")  # else savefig draws all twice to lay it out once more
    figure.savefig(file, dpi=dpi)
    plt.close(figure)
    colours = Image.open(file).convert("RGB").quantize(dither=Image.Dither.NONE)
    file = io.BytesIO()
    colours.save(file, "png", optimize=True)
    return file.getvalue()
