"""Draws of assignments, seen as memberships and as pairs that share an expert."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jax.typing import ArrayLike

from gumbel_moe._checks import check_positive_int
from gumbel_moe._optional import need
from gumbel_moe.diagnostics._save import Saved
from gumbel_moe.diagnostics._tree import data_tree


@dataclass(frozen=True, eq=False, repr=False)
class AssignmentReport(Saved):
    """Draws of an assignment, from [`assignment_report`][gumbel_moe.diagnostics.assignment_report]."""

    site: str
    samples: dict[str, np.ndarray]
    datapoints: np.ndarray
    experts: np.ndarray
    attrs: dict[str, Any]

    @cached_property
    def membership(self) -> np.ndarray:
        """`(n, k)`: the share of the draws in which expert `j` has datapoint `i`, kept or skipped."""
        return np.stack([drawn.mean(axis=0) for drawn in self._one_hot], axis=1)

    @cached_property
    def co_assignment(self) -> np.ndarray:
        """`(n, n)`: the share of the draws in which two datapoints have the same expert, whatever its number."""
        pairs = np.zeros((len(self.datapoints),) * 2)
        for drawn in self._one_hot:
            pairs += drawn.T @ drawn
        return pairs / self._draws.shape[0]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per datapoint: the most frequent `expert`, its `share`, the `entropy` of its membership in nats."""
        share = self.membership
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.sum(np.where(share > 0, share * np.log(share), 0), axis=1)
        columns = {"expert": self.experts[share.argmax(axis=1)], "share": share.max(axis=1), "entropy": entropy}
        return pd.DataFrame(columns, index=pd.Index(self.datapoints, name="datapoint"))

    @cached_property
    def data(self) -> Any:
        """An ArviZ DataTree: all samples as `posterior`, the assignment with the dimension `datapoint`; `membership`
        (`datapoint`, `expert`) and `co_assignment` (`datapoint`, `other`) as `constant_data`. Names of sites that a
        DataTree cannot hold (with a `/`), or that these have, are replaced; its attribute `renamed` says by what.
        """
        return data_tree(
            self.samples,
            {"membership": self.membership, "co_assignment": self.co_assignment},
            {"datapoint": self.datapoints, "other": self.datapoints, "expert": self.experts},
            {self.site: ["datapoint"]},
            {"membership": ["datapoint", "expert"], "co_assignment": ["datapoint", "other"]},
            {**self.attrs, "site": self.site},
        )

    def plot(self, path: str | Path | None = None, *, groups: Sequence[int] | np.ndarray | None = None) -> Any:
        """The co-assignment matrix, sorted by `groups` `(n,)` or the most frequent expert; `path`: where a PNG goes.

        **Returns:** the matplotlib figure.
        """
        labels = self.membership.argmax(axis=1) if groups is None else np.asarray(groups)
        if labels.shape != self.datapoints.shape:
            raise ValueError(f"groups must have shape {self.datapoints.shape}, got {labels.shape}")
        pictures = need("gumbel_moe.diagnostics.pictures", "a picture")
        return pictures.draw_co_assignment({self.site: self.co_assignment}, labels, path)

    def page(self) -> str:
        """One HTML page with the co-assignments and the most frequent expert of every datapoint.

        **Raises:** `ModuleNotFoundError` without matplotlib.
        """
        pages = need("gumbel_moe.diagnostics.pages", "a page")
        chains, draws, n = self.samples[self.site].shape
        heading = f"Assignments {self.site}"
        size = pages.rows([("chains", str(chains)), ("draws of each", f"{draws:,}"), ("datapoints", f"{n:,}")])
        return pages.document(heading, heading, size, pages.memberships(self))

    @cached_property
    def _draws(self) -> np.ndarray:
        value = self.samples[self.site].reshape(-1, len(self.datapoints))
        return np.where(value < 0, -1 - value, value)

    @property
    def _one_hot(self) -> Any:
        """`(draws, n)` for one expert after the other."""
        return ((self._draws == j).astype(np.float32) for j in range(len(self.experts)))

    def __str__(self) -> str:
        chains, draws, n = self.samples[self.site].shape
        return f"{chains} chains of {draws:,} draws of {n:,} datapoints\n{self.summary.round(3).to_string(max_rows=20)}"

    __repr__ = __str__


def assignment_report(
    samples: Mapping[str, ArrayLike],
    site: str,
    num_experts: int,
    *,
    datapoints: Sequence | None = None,
    experts: Sequence | None = None,
    attrs: Mapping[str, Any] | None = None,
) -> AssignmentReport:
    """Memberships and co-assignments of an assignment site, with names, as data for ArviZ.

    The share of draws in which two datapoints have the same expert does not change when experts are renumbered: it can
    be averaged over chains that number them differently.

    **Arguments:**

    - `samples`: by site, arrays `(chains, draws, ...)`, such as `mcmc.get_samples(group_by_chain=True)`.
    - `site`: the assignment, `(chains, draws, n)` integers, `~j` for skipped by expert `j`.
    - `num_experts`: `k`.
    - `datapoints`, `experts`: names; by default their numbers.
    - `attrs`: what to note in the DataTree.

    **Returns:** an `AssignmentReport`: `membership` `(n, k)`, `co_assignment` `(n, n)`, `summary`, `data`, `plot`.

    **Raises:** `ValueError` for a site that is not in `samples`, is no array `(chains, draws, n)` of integers between
    `-k` and `k - 1`, or for names of another number.

    ```python
    >>> import numpy as np
    >>> from gumbel_moe.diagnostics import assignment_report
    >>> z = np.array([[[0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 0, 0]]])  # one chain, which swaps its experts
    >>> assignment_report({"z": z}, "z", 2).co_assignment[0].tolist()
    [1.0, 0.25, 0.0]

    ```
    """
    k = check_positive_int("num_experts", num_experts)
    if site not in samples:
        raise ValueError(f"site {site!r} must be in samples, got {sorted(samples)}")
    value = np.asarray(samples[site])
    if value.ndim != 3 or not np.issubdtype(value.dtype, np.integer):
        raise ValueError(f"samples[{site!r}] must be integers (chains, draws, n), got {value.dtype} {value.shape}")
    if value.size and (value.min() < -k or value.max() >= k):
        raise ValueError(
            f"samples[{site!r}] must be between {-k} and {k - 1} for num_experts {k}, "
            f"got {value.min()} to {value.max()}"
        )
    arrays = {name: np.asarray(x) for name, x in samples.items()}
    rows, columns = _names("datapoints", datapoints, value.shape[-1]), _names("experts", experts, k)
    return AssignmentReport(site, arrays, rows, columns, dict(attrs or {}))


def _names(argument: str, given: Sequence | None, number: int) -> np.ndarray:
    names = np.arange(number) if given is None else np.asarray(given)
    if names.shape != (number,):
        raise ValueError(f"{argument} must be {number} names, got shape {names.shape}")
    return names
