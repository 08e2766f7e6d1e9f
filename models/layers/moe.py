"""A mixture-of-experts layer in Equinox: logits, routing, buffers, experts and back, with any router of the library."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from gumbel_moe.routing import ExpertChoiceRouting, Routing, combine, dispatch


class Routed(NamedTuple):
    """What a routed layer returns."""

    outputs: Array
    """`(n, out)` gate times output of the expert of every datapoint, summed where it has several, 0 where it has none;
    the gates of drawn experts are 1. Of several drawn experts it is the sum by importance weight instead, an unbiased
    estimate of the mixture of all experts. `(n, m, out)` outputs of the `m` experts where they were asked for one by
    one."""
    routing: Routing | ExpertChoiceRouting
    """Who went where: what `gumbel_moe.routing.load` and the losses of the library take."""
    router_state: Any
    """The state for the next batch; None of a router without one."""


class MoELayer(eqx.Module):
    r"""`k` experts, of which a router gives each datapoint one, or several, under a capacity.

    With logits $a_i$ of datapoint $x_i$, and the expert $z_i$ and the gate $g_i$ that a router made of them, the output
    is $g_i\, h_{z_i}(x_i)$. Only experts that were chosen compute, each on a buffer of as many rows as its capacity.

    **Arguments:**

    - `experts`: one module with the parameters of all: array leaves have a first axis of size `k`. Each of the `k`
      modules inside takes one datapoint `(d,)` to its output `(out,)`. `equinox.filter_vmap` makes it, as below.
    - `router_network`: a module from one datapoint `(d,)` to its `k` logits.

    A call takes a JAX `key` (for routers that draw), datapoints `x` `(n, d)`, a `router` of `gumbel_moe.routing`, which
    `make_router` makes from a name and a capacity, the `router_state` of one that carries a state from batch to batch
    (first what `init_state` gives, then that of the batch before), and optionally a `mask` `(n,)` bool, false for
    datapoints that take no part, such as padding. Flatten sequences before: `x.reshape(-1, d)`. With `each=True` the
    outputs of several experts of a datapoint stay apart, for a loss under each of them.

    **Returns:** a `Routed`, the tuple of `outputs` `(n, out)`, the `routing` and the new `router_state`. At test, leave
    the new state and keep the old.

    **Raises:** `ValueError` when the array leaves of `experts` do not share a first axis, `router_network` does not
    give `k` logits, a stateful router gets no state or another router gets one, and whatever the router raises;
    `TypeError` for a router that cannot be called, such as its name, or that returns no routing.

    How `router_network` learns depends on the kind of router (`gumbel_moe.routing.ROUTERS`). Through the gates of a
    biased one the gradient of any loss reaches the logits; Switch wants `gumbel_moe.routing.load_balancing_loss` added.
    Those that draw need the score function: `gumbel_moe.estimators.score_function_loss(routing, losses, baseline)`, for
    several experts with `each=True` and losses `(n, m)`. The sum of several drawn experts' outputs by weight is
    differentiable in the logits without it, as the output of all experts mixed would be
    (`gumbel_moe.routing.mixture_output`).

    ```python
    >>> import equinox as eqx, jax
    >>> from gumbel_moe.routing import load, make_router
    >>> from models.layers import MoELayer
    >>> for_experts, for_router, for_data, for_routing = jax.random.split(jax.random.key(0), 4)
    >>> one_expert = lambda key: eqx.nn.MLP(in_size=4, out_size=3, width_size=16, depth=1, key=key)
    >>> experts = eqx.filter_vmap(one_expert)(jax.random.split(for_experts, 8))
    >>> layer = MoELayer(experts, eqx.nn.Linear(4, 8, use_bias=False, key=for_router))
    >>> x = jax.random.normal(for_data, (64, 4))
    >>> outputs, routing, _ = layer(for_routing, x, make_router("gumbel_matching", capacity=8))
    >>> outputs.shape, load(routing).tolist()
    ((64, 3), [8, 8, 8, 8, 8, 8, 8, 8])

    ```

    With a state, which the training loop carries as it carries that of the optimiser:

    ```python
    >>> router = make_router("loss_free", capacity=16)
    >>> state = layer.init_state(router)
    >>> outputs, routing, state = layer(for_routing, x, router, state)
    >>> state.shape
    (8,)

    ```
    """

    experts: Callable[..., Any]
    router_network: Callable[..., Any]

    def __check_init__(self) -> None:
        """Raise where the experts are not as many in one leaf as in the next."""
        shapes = [leaf.shape for leaf in _arrays(self.experts)]
        if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"experts must have array leaves with a first axis of one size in common, got {shapes}")

    @property
    def num_experts(self) -> int:
        """`k`."""
        return _arrays(self.experts)[0].shape[0]

    def init_state(self, router: Any) -> Any:
        """The state of `router` before the first batch; None where it carries none."""
        return router.init(self.num_experts) if hasattr(router, "update") else None

    def logits(self, x: Float[Array, "n d"]) -> Float[Array, "n k"]:
        """The router's unnormalised log-probabilities."""
        logits = jax.vmap(self.router_network)(x)
        if logits.shape != (x.shape[0], self.num_experts):
            got = logits.shape[1:]
            raise ValueError(f"router_network must give {self.num_experts} logits, one per expert, got shape {got}")
        return logits

    def expert_outputs(
        self, buffers: Float[Array, "{self.num_experts} places d"]
    ) -> Float[Array, "{self.num_experts} places out"]:
        """Every expert on its own buffer: what runs in a capacity-limited step."""
        return eqx.filter_vmap(lambda expert, rows: jax.vmap(expert)(rows))(self.experts, buffers)

    def __call__(
        self,
        key: PRNGKeyArray,
        x: Float[Array, "n d"],
        router: Any,
        router_state: Any = None,
        *,
        mask: Bool[Array, " n"] | None = None,
        each: bool = False,
    ) -> Routed:
        """Outputs, routing, and the router's state after it."""
        _check_router(router, router_state)
        state = () if router_state is None else (router_state,)
        routing = router(key, self.logits(x), *state, mask=mask)
        # No expert can be given more than everybody, and a buffer has at least a row.
        places = max(1, min(x.shape[0], int(np.max(getattr(router, "capacity", x.shape[0])))))
        buffers = self.expert_outputs(dispatch(x, routing, places))
        number = routing.experts_per_datapoint if isinstance(routing, Routing) else None
        several = number is not None
        # The output of one expert that was drawn is a mixture's only in the mean: its loss is what is meant.
        mixed = several and number > 1 and not each and getattr(router, "weighted", False)
        outputs = combine(buffers, routing, gated=not mixed, weighted=mixed, each=each and several)
        return Routed(outputs, routing, router.update(router_state, routing) if state else None)


def _check_router(router: Any, router_state: Any) -> None:
    if not callable(router):
        raise TypeError(f"router must be callable, such as make_router('skip', capacity=8), got {router!r}")
    if hasattr(router, "update") and router_state is None:
        raise ValueError(f"router_state must be given for {router!r}: that of the batch before, or init_state's")
    if not hasattr(router, "update") and router_state is not None:
        raise ValueError(f"router_state must be None for {router!r}, which carries none, got {router_state!r}")


def _arrays(experts: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(experts) if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct)]
