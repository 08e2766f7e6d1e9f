"""A router at work: weights, load, what is skipped."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_logits
from gumbel_moe._keys import check_key
from gumbel_moe._optional import progress_bar
from gumbel_moe.diagnostics._checks import check_draws, check_rate
from gumbel_moe.diagnostics._marginals import marginals
from gumbel_moe.diagnostics._routing_draws import routing_draws
from gumbel_moe.diagnostics._routing_record import RoutingReport
from gumbel_moe.routing import Routing


def routing_report(
    router: Callable[..., Routing],
    logits: ArrayLike,
    key: Array,
    draws: int = 1000,
    *,
    mask: ArrayLike | None = None,
    false_fail_rate: float = 1e-6,
    progress: bool = False,
    attrs: Mapping[str, Any] | None = None,
) -> RoutingReport:
    r"""Draw many assignments and look at $E[w_i 1(z_i = j)]$ against $p_{ij}$, the weights' tail, load and skipping.

    The means are tested against a Student-t limit with Bonferroni's correction over all datapoints and experts. Routers
    that do not draw, or leave their weights out, are found biased; that is what they are.

    **Arguments:**

    - `router`: any router of `gumbel_moe.routing` that gives every datapoint one expert, or a function
      `(key, logits) -> Routing` that `jax.vmap` can map over keys. A router that carries a bias starts from 0; for
      another state pass `lambda key, logits: router(key, logits, bias)`.
    - `logits`: `(n, k)`; `-inf` forbids an expert for a datapoint.
    - `key`: a JAX key.
    - `draws`: at least 2.
    - `mask`: `(n,)` bool, false for datapoints that take no part; given to the router, and they count nowhere.
    - `false_fail_rate`: the probability that unbiased weights are called biased, between 0 and 1.
    - `progress`: show a progress bar (needs tqdm).
    - `attrs`: what else to note in `data`.

    **Returns:** a [`RoutingReport`][gumbel_moe.diagnostics.RoutingReport].

    **Raises:** `TypeError` when `router` is no function, or returns no `Routing`: expert choice gives a datapoint
    several experts or none, and has no weights; and when `key` is no key. `ValueError` for logits or numbers out of
    range, and whatever the router raises.

    ```python
    >>> import jax
    >>> from gumbel_moe.diagnostics import routing_report
    >>> from gumbel_moe.routing import SkipRouter
    >>> logits = jax.random.normal(jax.random.key(0), (12, 3))
    >>> report = routing_report(SkipRouter(4), logits, jax.random.key(1))
    >>> report.unbiased, report.max_violation < 0.4, 0 < report.skipped < 0.3
    (True, True, True)
    >>> routing_report(SkipRouter(4, corrected=False), logits, jax.random.key(1)).unbiased
    False

    ```

    Reference: for the maximal violation, L. Wang et al., *Auxiliary-Loss-Free Load Balancing Strategy for
    Mixture-of-Experts*, arXiv 2408.15664 (2024), section 3.
    """
    draws = check_draws(draws, 2)
    rate, key = check_rate(false_fail_rate), check_key(key)
    logits, present = check_logits(logits, mask, exact_rank=2)
    who = np.arange(logits.shape[0]) if present is None else np.flatnonzero(np.asarray(present))
    if len(who) == 0:
        raise ValueError(f"logits must have at least one datapoint that takes part, got shape {logits.shape}")
    if not callable(router):
        raise TypeError(f"router must be a function of a key and logits, got {type(router).__name__}")
    route = router if present is None else partial(router, mask=present)
    routing = jax.eval_shape(route, key, logits)
    if not isinstance(routing, Routing):
        raise TypeError(f"router must return a Routing with one expert per datapoint, got {type(routing).__name__}")

    with progress_bar(progress, draws, "draws") as advance:
        seen = routing_draws(route, logits, key, draws, advance)
    if np.isnan(seen.largest).any():
        route(key, logits)  # outside of any transformation it can say what is wrong with the logits
    p = _softmax(np.asarray(logits, np.float64)[who])
    found = marginals(seen.first[who], seen.second[who], p, draws, rate, float(np.finfo(logits.dtype).eps))
    max_z = float(np.max(np.abs(found.z)))
    return RoutingReport(
        unbiased=max_z <= found.limit,
        max_z=max_z,
        limit=found.limit,
        false_fail_rate=rate,
        draws=draws,
        skipped=float(np.mean(seen.skipped)),
        max_violation=_violation(seen.load),
        max_violation_sent=_violation(seen.demand),
        effective_fraction=float(np.mean(seen.effective)),
        max_weight=float(np.max(seen.largest)),
        largest_share=float(np.max(seen.share)),
        entropy=float(np.mean(_entropy(p))),
        entropy_of_mean=float(_entropy(p.mean(axis=0))),
        marginals=found,
        p=p,
        datapoint=who,
        seen=seen,
        attrs={"router": str(router), **(attrs or {})},
    )


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _entropy(p: np.ndarray) -> np.ndarray:
    return -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=-1)


def _violation(counts: np.ndarray) -> float:
    """Mean over draws of the busiest expert's count over the mean count, minus 1."""
    mean = counts.mean(axis=1)
    return float(np.mean(counts.max(axis=1) / np.where(mean > 0, mean, 1) - 1))
