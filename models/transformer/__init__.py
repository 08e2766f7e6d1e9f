"""A byte-level language model whose feed-forward layers are routed, small enough to read and to run anywhere."""

from models.transformer._block import Block, BlockRecord
from models.transformer._model import Forward, LanguageModel
from models.transformer._prices import ArgmaxRouter, Gate, PriceKeeper, gated
from models.transformer._sharding import (
    AXES,
    EVERYWHERE,
    SEQUENCES,
    Groups,
    make_mesh,
    model_specs,
    on_mesh,
    place,
)
from models.transformer._sizes import Sizes

__all__ = [
    "AXES",
    "EVERYWHERE",
    "SEQUENCES",
    "ArgmaxRouter",
    "Block",
    "BlockRecord",
    "Forward",
    "Gate",
    "Groups",
    "LanguageModel",
    "PriceKeeper",
    "Sizes",
    "gated",
    "make_mesh",
    "model_specs",
    "on_mesh",
    "place",
]
