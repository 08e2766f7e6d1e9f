"""How each router of the library learns inside the network, and how it may be evaluated."""

from dataclasses import dataclass
from typing import Any, Literal

from gumbel_moe.routing import ROUTERS, Routing, make_router
from models.transformer import ArgmaxRouter, Gate, PriceKeeper, gated

Learns = Literal["score", "gate", "dense"]


@dataclass(frozen=True)
class GatedDraws:
    """Draws whose outputs are multiplied by the probability of their expert, through which the router learns."""

    router: Any

    @property
    def capacity(self) -> Any:
        """As the router's."""
        return self.router.capacity

    @property
    def weighted(self) -> bool:
        """No: the gate makes up for no weight."""
        return False

    def __call__(self, key: Any, logits: Any, *, mask: Any = None) -> Routing:
        """The draw with gate p."""
        return gated(self.router(key, logits, mask=mask), logits, "softmax")


@dataclass(frozen=True)
class Method:
    """A router, or none, and its way of learning.

    Routers that draw learn by the score of what they drew (`score`), with no importance weights, which mean nothing for
    coupled losses. The uncorrected ones make the same draws and learn by gate times output, as the biased ones do.
    """

    name: str
    learns: Learns
    gate: Gate = "softmax"
    balance: float = 0.0
    """Factor of the load-balancing loss."""
    z_loss: float = 0.0
    keeps_prices: bool = False
    """Whether its batches are matched, so that their prices are kept for routing without a batch."""

    @property
    def random(self) -> bool:
        """Whether another key gives another assignment."""
        return self.learns != "dense" and ROUTERS[self.name].kind != "biased"

    @property
    def sharpness(self) -> float:
        """A factor of its logits: draws from nearly equal probabilities would teach all experts the same."""
        return 4.0 if self.random else 1.0

    @property
    def has_bias(self) -> bool:
        """Whether the router carries a bias of its own."""
        return self.learns != "dense" and ROUTERS[self.name].stateful

    @property
    def by_token(self) -> bool:
        """Whether each token has an expert of its own, rather than each expert some tokens of a batch."""
        return self.learns == "dense" or ROUTERS[self.name].one_expert

    def router(self, capacity: int) -> Any:
        """Of training; None for a dense model."""
        if self.learns == "dense":
            return None
        # A floor is the model's here: weights, which would undo a router's, are not used.
        floor = {"floor": 0.0} if self.learns == "score" and self.name == "gumbel_matching" else {}
        router = make_router(self.name, capacity, **floor)
        if ROUTERS[self.name].kind == "uncorrected" or (self.learns == "score" and self.gate == "softmax"):
            router = GatedDraws(router)
        return PriceKeeper(router) if self.keeps_prices else router

    def ways(self) -> tuple[str, ...]:
        """Of routing held-out text: `process` as in training, under its capacity; `argmax` of the logits; `prices`, the
        largest logit at the frozen prices; `bias`, at the frozen bias; each but the first with room for all.
        """
        if self.learns == "dense":
            return ("dense",)
        if not self.by_token:
            return ("process",)  # experts choose from a batch
        return ("process", "argmax", *(("prices",) if self.keeps_prices else ()), *(("bias",) if self.has_bias else ()))

    def best_way(self) -> str:
        """To write text with, token by token where there is such a way."""
        return self.ways()[-1]

    def router_for(self, way: str, tokens: int, capacity: int) -> Any:
        """The router of a way, for a batch of so many tokens."""
        if way in ("dense", "process"):
            return self.router(capacity)
        if way == "bias":
            return make_router(self.name, tokens)
        return ArgmaxRouter(tokens, self.gate)

    def states_for(self, way: str, states: Any) -> Any:
        """The routers' states of a way, from those of training: of all layers."""
        if way == "prices":
            return PriceKeeper.prices(states)
        return states


def _method(name: str) -> Method:
    kind = ROUTERS[name].kind
    learns, gate = ("score", "one") if kind == "weighted" else ("gate", "softmax")
    # Fedus et al. (2021) for the balance loss, Zoph et al., arXiv 2202.08906 (2022), for the z-loss.
    losses = {"balance": 0.01, "z_loss": 0.001} if name == "switch" else {}
    keeps = name in ("gumbel_matching", "gumbel_matching_uncorrected", "base")
    if name in ("base", "loss_free"):
        gate = "sigmoid"
    return Method(name, learns, gate, keeps_prices=keeps, **losses)  # pyright: ignore[reportArgumentType]


METHODS = {"dense": Method("dense", "dense"), **{name: _method(name) for name in ROUTERS}}
"""Every router of the library, and the dense twin."""
