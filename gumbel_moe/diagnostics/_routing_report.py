"""A router at work: weights, load, what is skipped."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_draws, check_logits, check_rate
from gumbel_moe._keys import check_key
from gumbel_moe._optional import need, progress_bar
from gumbel_moe.diagnostics._marginals import Marginals, marginals
from gumbel_moe.diagnostics._routing_draws import WEIGHT_EDGES, Seen, routing_draws
from gumbel_moe.diagnostics._save import Saved
from gumbel_moe.diagnostics._tree import data_tree
from gumbel_moe.routing import Routing


@dataclass(frozen=True, eq=False, repr=False)
class RoutingReport(Saved):
    """A router at work, from [`routing_report`][gumbel_moe.diagnostics.routing_report]; `print` shows it in words.

    Means are over draws.
    """

    unbiased: bool
    r"""Whether the weights are compatible with $E[w_i 1(z_i = j)] = p_{ij}$ for all datapoints and experts."""
    max_z: float
    """The largest absolute z-score of these means."""
    limit: float
    """What it may not exceed."""
    false_fail_rate: float
    """The probability that a weighted draw is called biased."""
    draws: int
    skipped: float
    """Mean fraction of the datapoints that nobody handles; of several experts per datapoint, of the pairs of a
    datapoint and an expert that was chosen for it.
    """
    max_violation: float
    """Mean of (most datapoints handled by an expert) / (mean over experts) - 1; 0 is perfect balance."""
    max_violation_sent: float
    """The same of the datapoints sent, before any is skipped."""
    effective_fraction: float
    r"""Mean of $(\\sum_i w_i)^2 / (n \\sum_i w_i^2)$: the part of the datapoints that the weights leave. Of several
    experts per datapoint, with $w_i$ the sum of its weights.
    """
    max_weight: float
    """The largest weight of all draws."""
    largest_share: float
    """The largest part that one datapoint ever had of the sum of its draw's weights."""
    entropy: float
    """Of the router, mean over datapoints, in nats; the logarithm of the number of experts if it has no opinion."""
    entropy_of_mean: float
    """Of the mean of p over datapoints, in nats; the logarithm of the number of experts if it asks for balance."""
    marginals: Marginals
    p: np.ndarray
    """`(n, k)` softmax of the logits, of the datapoints that take part."""
    datapoint: np.ndarray
    """`(n,)` their places in the batch."""
    seen: Seen
    attrs: dict[str, Any]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per expert: mean `p`, `sent` and `load` (mean numbers of datapoints), quantiles of the load, the mean
        weighted share (which is the mean `p` without bias), and the largest z-score among its datapoints.
        """
        load = self.seen.load
        low, middle, high = np.quantile(load, [0.05, 0.5, 0.95], axis=0)
        columns = {
            "p": self.p.mean(axis=0),
            "weighted": self.marginals.mean.mean(axis=0),
            "sent": self.seen.demand.mean(axis=0),
            "load": load.mean(axis=0),
            "load_5%": low,
            "load_50%": middle,
            "load_95%": high,
            "max_z": np.abs(self.marginals.z).max(axis=0),
        }
        return pd.DataFrame(columns, index=pd.RangeIndex(load.shape[1], name="expert"))

    @cached_property
    def weight_histogram(self) -> pd.DataFrame:
        """Counts of positive weights between `low` and `high`; skipped datapoints, of weight 0, are not in it."""
        return pd.DataFrame({"low": WEIGHT_EDGES[:-1], "high": WEIGHT_EDGES[1:], "count": self.seen.histogram[1:]})

    @cached_property
    def data(self) -> Any:
        """An ArviZ DataTree: `posterior` with numbers of every draw (one chain), `constant_data` with the marginals."""
        by_draw = {
            "sent": self.seen.demand,
            "load": self.seen.load,
            "skipped": self.seen.skipped,
            "effective_fraction": self.seen.effective,
            "max_weight": self.seen.largest,
            "largest_share": self.seen.share,
        }
        n, k = self.p.shape
        pairs = ["datapoint", "expert"]
        return data_tree(
            {name: values[None] for name, values in by_draw.items()},
            {"p": self.p, "marginal": self.marginals.mean, "marginal_se": self.marginals.error, "z": self.marginals.z},
            {"datapoint": self.datapoint, "expert": np.arange(k)},
            {"sent": ["expert"], "load": ["expert"]},
            {"p": pairs, "marginal": pairs, "marginal_se": pairs, "z": pairs},
            {
                **self.attrs,
                "n": n,
                "k": k,
                "draws": self.draws,
                "false_fail_rate": self.false_fail_rate,
                "unbiased": self.unbiased,
                "max_z": self.max_z,
            },
        )

    def plot(self, path: str | Path | None = None) -> Any:
        """The histogram of the weights and the load of every expert; `path` is where to write a PNG, if anywhere.

        **Returns:** the matplotlib figure.
        """
        return need("gumbel_moe.diagnostics.pictures", "a picture").draw_routing(self, path)

    def page(self) -> str:
        """One HTML page with the verdict on the weights, their histogram and the load of every expert.

        **Raises:** `ModuleNotFoundError` without matplotlib.
        """
        pages = need("gumbel_moe.diagnostics.pages", "a page")
        heading = "A router at work"
        told = "\n".join(self._words())
        return pages.document(heading, heading, pages.verdict(told, self.unbiased), pages.routing(self))

    def _words(self) -> list[str]:
        n, k = self.p.shape
        verdict = "weights unbiased" if self.unbiased else "weights BIASED: E[w 1(z=j)] is not p"
        violation = f"max violation {self.max_violation:.3f}, as sent {self.max_violation_sent:.3f}"
        tail = f"largest {self.max_weight:.3g}, largest share {self.largest_share:.3g}"
        return [
            f"{self.draws:,} draws of {n:,} datapoints and {k:,} experts: {verdict}",
            f"largest |z| {self.max_z:.2f}, limit {self.limit:.2f}, false-fail rate {self.false_fail_rate:g}",
            f"skipped {self.skipped:.1%}; {violation}",
            f"weights: effective fraction {self.effective_fraction:.3f}, {tail}",
            f"entropy {self.entropy:.3f} nats, of the mean {self.entropy_of_mean:.3f}, at most {np.log(k):.3f}",
        ]

    def __str__(self) -> str:
        return "\n".join([*self._words(), self.summary.round(3).to_string()])

    __repr__ = __str__


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

    Of routers of several experts per datapoint, at $E[w_{ij} 1(j \in S_i)]$.

    The means are tested against a Student-t limit with Bonferroni's correction over all datapoints and experts. Routers
    that do not draw, or leave their weights out, are found biased; that is what they are.

    **Arguments:**

    - `router`: any router of `gumbel_moe.routing` that gives every datapoint one expert or a number of them, or a
      function `(key, logits) -> Routing` that `jax.vmap` can map over keys. A router that carries a bias starts from 0;
      for another state pass `lambda key, logits: router(key, logits, bias)`.
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
    # Of m experts rare ones have weights of 1 / m in the mean.
    least = 1 / (routing.experts_per_datapoint or 1)
    found = marginals(seen.first[who], seen.second[who], p, draws, rate, float(np.finfo(logits.dtype).eps), least)
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
