"""All sizes of a language model, in one place."""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

from models.data import NUM_BYTES


@dataclass(frozen=True)
class Sizes:
    """How large a language model is; the default has about a million parameters active for each token.

    **Raises:** `ValueError` for a number that is not positive, heads that do not share the width evenly in even parts,
    a floor or sharpness out of range, or activations of another type.

    ```python
    >>> from models.transformer import Sizes
    >>> sizes = Sizes()
    >>> sizes.active_parameters, sizes.dense_twin().active_parameters
    (1064960, 1064960)
    >>> sizes.parameters > 4 * sizes.active_parameters
    True

    ```
    """

    layers: int = 4
    width: int = 160
    """`d`, of the residual path."""
    heads: int = 5
    experts: int = 8
    """`k` of every layer; 1 for a dense model, without a router."""
    expert_width: int = 480
    """Hidden units of an expert."""
    vocabulary: int = NUM_BYTES
    floor: float = 0.0
    r"""$\epsilon$ of the probabilities $(1 - \epsilon) p + \epsilon / k$ that a layer's logits have."""
    sharpness: float = 1.0
    """By which the routers' logits are multiplied: 1 at the beginning gives nearly uniform draws."""
    activations: Literal["float32", "bfloat16"] = "float32"
    """The type of all products but the router's and the last, and of what they multiply; parameters are float32."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{field.name} must be a whole number of at least 1, got {value!r}")
        if self.width % (2 * self.heads):
            raise ValueError(f"heads must divide the width into even parts, got {self.heads} of width {self.width}")
        if not 0 <= self.floor < 1:
            raise ValueError(f"floor must be at least 0 and below 1, got {self.floor!r}")
        if not 0 < self.sharpness < math.inf:
            raise ValueError(f"sharpness must be positive and finite, got {self.sharpness!r}")
        if self.activations not in ("float32", "bfloat16"):
            raise ValueError(f"activations must be 'float32' or 'bfloat16', got {self.activations!r}")

    def dense_twin(self) -> "Sizes":
        """One expert of the same size, which every token has: as many parameters active, and no router."""
        return replace(self, experts=1, floor=0.0, sharpness=1.0)

    @property
    def active_parameters(self) -> int:
        """Of a token's way through the network, its router, which is small, and normalisation apart."""
        return self.vocabulary * self.width + self.layers * (4 * self.width**2 + self._expert)

    @property
    def parameters(self) -> int:
        """Of all experts, routers and normalisation apart."""
        return self.active_parameters + self.layers * (self.experts - 1) * self._expert

    @property
    def _expert(self) -> int:
        return 2 * self.width * self.expert_width
