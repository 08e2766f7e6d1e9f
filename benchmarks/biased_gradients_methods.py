"""Ways to train a router, from the formulas of their papers, as losses whose gradient is each method's."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe.estimators import score_function_loss
from gumbel_moe.routing import (
    BaseRouter,
    ExpertChoiceRouter,
    GumbelMatchingRouter,
    IndependentRouter,
    LossFreeRouter,
    SkipRouter,
    SwitchRouter,
    combine,
    dispatch,
)

Loss = Callable[[Array], Array]
"""Of outputs `(n, classes)`, one number for every datapoint."""
Params = dict[str, Array]
"""`router`: logits `(n, k)`; `experts`: outputs `(n, k, classes)`."""
Surrogate = Callable[[Params, Array], Array]
"""From parameters and a key to a scalar."""


class Method(NamedTuple):
    """A row of the table."""

    kind: Literal["drawn", "chosen"]
    """Whether the method draws an expert, so that its loss is the objective's, or chooses, with a loss of its own."""
    make: Callable[[Array, Loss], Surrogate]
    """From the logits, for what a method settles beforehand, and the loss."""


def _computed(routing: Any, outputs: Array, places: int, *, gated: bool) -> Array:
    """`(n, classes)`: of the expert that every datapoint has, gated, 0 where it has none."""
    rows = jnp.einsum("jcjo->jco", dispatch(outputs, routing, places))  # of its k outputs, that of expert j at j
    return combine(rows, routing, gated=gated)


def _scored(make_router: Callable[[int], Any]) -> Callable[[Array, Loss], Surrogate]:
    """The score-function estimator of a draw under a capacity of n / k."""

    def make(logits: Array, loss: Loss) -> Surrogate:
        n, k = logits.shape
        router = make_router(n // k)

        def surrogate(params: Params, key: Array) -> Array:
            routing = router(key, params["router"])
            return score_function_loss(routing, loss(_computed(routing, params["experts"], n, gated=False)), 1.0)

        return surrogate

    return make


def _gated(make_router: Callable[[int, int], Any], *, gated: bool = True) -> Callable[[Array, Loss], Surrogate]:
    """The loss of the gated output of the chosen experts; a router's bias is what it comes to for these logits."""

    def make(logits: Array, loss: Loss) -> Surrogate:
        n, k = logits.shape
        router = make_router(n, k)
        state: tuple[Array, ...] = ()
        if hasattr(router, "update"):

            def balance(_: int, bias: Array) -> Array:
                return router.update(bias, router(jax.random.key(0), logits, bias))

            state = (jax.lax.fori_loop(0, 2000, balance, router.init(k)),)

        def surrogate(params: Params, key: Array) -> Array:
            routing = router(key, params["router"], *state)
            return jnp.mean(loss(_computed(routing, params["experts"], n, gated=gated)))

        return surrogate

    return make


def _mixed(share_of: Callable[[Array, Array], Array]) -> Callable[[Array, Loss], Surrogate]:
    """The loss of all outputs mixed by shares `(n, k)` that a method makes of a key and logits."""

    def make(logits: Array, loss: Loss) -> Surrogate:
        del logits

        def surrogate(params: Params, key: Array) -> Array:
            share = share_of(key, params["router"])
            return jnp.mean(loss(jnp.einsum("nk,nko->no", share, params["experts"])))

        return surrogate

    return make


def _hard(hard: Array, soft: Array) -> Array:
    """The value of the one, the gradient of the other."""
    return soft + jax.lax.stop_gradient(hard - soft)


def _straight_through(key: Array, logits: Array) -> Array:
    """Y. Bengio, N. Leonard, A. Courville, arXiv 1308.3432 (2013): one-hot draws with the gradient of p."""
    drawn = jax.random.categorical(key, logits)
    return _hard(jax.nn.one_hot(drawn, logits.shape[1]), jax.nn.softmax(logits))


def _relaxed(key: Array, logits: Array, temperature: float) -> Array:
    """E. Jang, S. Gu, B. Poole, arXiv 1611.01144; C. Maddison, A. Mnih, Y. W. Teh, arXiv 1611.00712 (2016)."""
    return jax.nn.softmax((logits + jax.random.gumbel(key, logits.shape)) / temperature)


def _relaxed_straight_through(key: Array, logits: Array) -> Array:
    """Jang et al., section 2.2, at temperature 1: the largest in the value, the relaxation in the gradient."""
    soft = _relaxed(key, logits, 1.0)
    return _hard(jax.nn.one_hot(jnp.argmax(soft, axis=1), logits.shape[1]), soft)


def _sparse_mixer(logits: Array, loss: Loss) -> Surrogate:
    r"""L. Liu, J. Gao, W. Chen, *Sparse Backpropagation for MoE Training*, arXiv 2310.00811 (2023).

    The router's gradient is $\sum_j \nabla p_j (f(h_j) - f(0))$, one term of which is drawn; the difference is taken by
    the mid-point rule, $f'(h_j / 2) \cdot h_j$, from a derivative that backpropagation has. The rule alone: the paper
    adds which experts may be drawn, and how half-outputs share a forward pass.
    """
    del logits

    def surrogate(params: Params, key: Array) -> Array:
        log_p = jax.nn.log_softmax(params["router"])
        rows = jnp.arange(log_p.shape[0])
        drawn = jax.random.categorical(key, params["router"])
        output = params["experts"][rows, drawn]
        fixed = jax.lax.stop_gradient(output)
        slope = jax.grad(lambda h: jnp.sum(loss(h)))(fixed / 2)
        difference = jnp.sum(slope * fixed, axis=-1)
        score = log_p[rows, drawn]
        return jnp.mean(loss(output) + difference * (score - jax.lax.stop_gradient(score)))

    return surrogate


METHODS: dict[str, Method] = {
    "independent draws, score": Method("drawn", _scored(lambda places: IndependentRouter())),
    "skip, weights and score": Method("drawn", _scored(SkipRouter)),
    "Gumbel-Matching, weights and score": Method("drawn", _scored(GumbelMatchingRouter)),
    "skip without weights": Method("drawn", _scored(lambda places: SkipRouter(places, corrected=False))),
    "Gumbel-Matching without weights": Method(
        "drawn", _scored(lambda places: GumbelMatchingRouter(places, corrected=False, floor=0.0))
    ),
    "SparseMixer's mid-point rule": Method("drawn", _sparse_mixer),
    "straight-through": Method("drawn", _mixed(_straight_through)),
    "Gumbel-softmax, temperature 1": Method("drawn", _mixed(lambda key, logits: _relaxed(key, logits, 1.0))),
    "Gumbel-softmax, temperature 0.2": Method("drawn", _mixed(lambda key, logits: _relaxed(key, logits, 0.2))),
    "Gumbel-softmax, straight-through": Method("drawn", _mixed(_relaxed_straight_through)),
    "Switch": Method("chosen", _gated(lambda n, k: SwitchRouter(n // k))),
    "Switch, room for all": Method("chosen", _gated(lambda n, k: SwitchRouter(n))),
    "top-1, normalised gate": Method("chosen", _gated(lambda n, k: SwitchRouter(n), gated=False)),
    "top-2, normalised gates": Method("chosen", _gated(lambda n, k: SwitchRouter(n, experts_per_datapoint=2))),
    "BASE": Method("chosen", _gated(lambda n, k: BaseRouter(n // k))),
    "expert choice": Method("chosen", _gated(lambda n, k: ExpertChoiceRouter(n // k))),
    "loss-free balancing": Method("chosen", _gated(lambda n, k: LossFreeRouter(n // k))),
}
