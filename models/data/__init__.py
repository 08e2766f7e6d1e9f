"""What the models are fitted to: a bent line, regions, handwritten digits, their halves, wines, text. No download."""

from models.data._bent_line import bent_line, bent_line_grid, sample_bent_line
from models.data._digits import NUM_CLASSES, NUM_PIXELS, DigitsSplit, load_digits_split
from models.data._halves import Halves, load_halves
from models.data._regions import Regions, make_regions
from models.data._text import NUM_BYTES, Corpus, draw_windows, even_windows, load_corpus
from models.data._wines import RESPONSES, Wines, load_wines

__all__ = [
    "NUM_BYTES",
    "NUM_CLASSES",
    "NUM_PIXELS",
    "RESPONSES",
    "Corpus",
    "DigitsSplit",
    "Halves",
    "Regions",
    "Wines",
    "bent_line",
    "bent_line_grid",
    "draw_windows",
    "even_windows",
    "load_corpus",
    "load_digits_split",
    "load_halves",
    "load_wines",
    "make_regions",
    "sample_bent_line",
]
