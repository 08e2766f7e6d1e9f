"""A byte-level language model whose feed-forward layers are routed, small enough to read and to run anywhere."""

from models.transformer._block import Block, BlockRecord
from models.transformer._model import Forward, LanguageModel
from models.transformer._prices import ArgmaxRouter, Gate, PriceKeeper, gated
from models.transformer._sizes import Sizes

__all__ = ["ArgmaxRouter", "Block", "BlockRecord", "Forward", "Gate", "LanguageModel", "PriceKeeper", "Sizes", "gated"]
