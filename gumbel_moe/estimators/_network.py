"""A small network in plain JAX, for baselines that learn: shared layers, and a head for every expert."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._checks import check_positive_int


class Network(NamedTuple):
    """Functions of one network, as [`shared_network`][gumbel_moe.estimators.shared_network] makes them."""

    init: Callable[..., Any]
    """From a key and `num_inputs` to parameters."""
    apply: Callable[[Any, Array], Array]
    """From parameters and `(n, num_inputs)` to `(n, k, num_outputs)`, or to codes `(n, k, rank)`."""
    decode: Callable[[Any, Array], Array]
    """From parameters and codes `(m, rank)` to outputs `(m, num_outputs)`; without a rank, the codes as they are."""


def shared_network(
    num_experts: int, num_outputs: int, *, hidden: Sequence[int] = (64, 64), rank: int | None = None
) -> Network:
    r"""A network that predicts `num_outputs` numbers for each of `k` experts from the same hidden layers.

    With $u$ the last hidden layer (sigmoid-weighted linear units), the prediction is $W_j u + b_j$; with a `rank` $r$
    below the number of outputs it is $B (W_j u + b_j) + c$, with one $B$ of `rank` columns for all experts. The cost of
    `n` datapoints is then about $n k r |u|$ for the codes of all experts and $n r$ times the outputs for each expert
    that is decoded, where a full head takes $n k |u|$ times the outputs.

    **Arguments:** all positive ints; `hidden` are the widths of the hidden layers, at least one.

    **Returns:** a [`Network`][gumbel_moe.estimators.Network]. Inputs and outputs of about unit size suit it best.

    **Raises:** `ValueError` for a number that is no positive int.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.estimators import shared_network
    >>> network = shared_network(num_experts=8, num_outputs=256, rank=4)
    >>> params = network.init(jax.random.key(0), num_inputs=16)
    >>> codes = network.apply(params, jnp.ones((5, 16)))
    >>> codes.shape, network.decode(params, codes[:, 0]).shape
    ((5, 8, 4), (5, 256))

    ```
    """
    k, out = check_positive_int("num_experts", num_experts), check_positive_int("num_outputs", num_outputs)
    widths = [check_positive_int("hidden", width) for width in hidden]
    if not widths:
        raise ValueError("hidden must have at least one width, got none")
    r = out if rank is None else check_positive_int("rank", rank)

    def init(key: Array, num_inputs: int) -> dict[str, Any]:
        sizes = [check_positive_int("num_inputs", num_inputs), *widths]
        keys = jax.random.split(key, len(sizes) + 1)
        layers = [_layer(key, a, (b,)) for key, a, b in zip(keys, sizes, sizes[1:], strict=False)]
        params = {"layers": layers, "head": _layer(keys[-2], sizes[-1], (k, r))}
        return params if rank is None else {**params, "decoder": _layer(keys[-1], r, (out,))}

    def apply(params: dict[str, Any], x: Array) -> Array:
        for layer in params["layers"]:
            x = jax.nn.silu(x @ layer["weight"] + layer["bias"])
        return jnp.tensordot(x, params["head"]["weight"], 1) + params["head"]["bias"]

    def decode(params: dict[str, Any], codes: Array) -> Array:
        return codes if rank is None else codes @ params["decoder"]["weight"] + params["decoder"]["bias"]

    return Network(init, apply, decode)


def _layer(key: Array, num_inputs: int, shape: tuple[int, ...]) -> dict[str, Array]:
    weight = jax.random.normal(key, (num_inputs, *shape)) / jnp.sqrt(jnp.float32(num_inputs))
    return {"weight": weight, "bias": jnp.zeros(shape)}
