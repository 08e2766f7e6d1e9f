"""What `routing_report` found."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gumbel_moe._optional import need
from gumbel_moe.diagnostics._marginals import Marginals
from gumbel_moe.diagnostics._routing_draws import WEIGHT_EDGES, Seen
from gumbel_moe.diagnostics._save import Saved
from gumbel_moe.diagnostics._tree import data_tree


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
    """Mean fraction of the datapoints that nobody handles."""
    max_violation: float
    """Mean of (most datapoints handled by an expert) / (mean over experts) - 1; 0 is perfect balance."""
    max_violation_sent: float
    """The same of the datapoints sent, before any is skipped."""
    effective_fraction: float
    r"""Mean of $(\\sum_i w_i)^2 / (n \\sum_i w_i^2)$: the part of the datapoints that the weights leave."""
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

    def __str__(self) -> str:
        n, k = self.p.shape
        verdict = "weights unbiased" if self.unbiased else "weights BIASED: E[w 1(z=j)] is not p"
        violation = f"max violation {self.max_violation:.3f}, as sent {self.max_violation_sent:.3f}"
        tail = f"largest {self.max_weight:.3g}, largest share {self.largest_share:.3g}"
        lines = [
            f"{self.draws:,} draws of {n:,} datapoints and {k:,} experts: {verdict}",
            f"largest |z| {self.max_z:.2f}, limit {self.limit:.2f}, false-fail rate {self.false_fail_rate:g}",
            f"skipped {self.skipped:.1%}; {violation}",
            f"weights: effective fraction {self.effective_fraction:.3f}, {tail}",
            f"entropy {self.entropy:.3f} nats, of the mean {self.entropy_of_mean:.3f}, at most {np.log(k):.3f}",
            self.summary.round(3).to_string(),
        ]
        return "\n".join(lines)

    __repr__ = __str__
