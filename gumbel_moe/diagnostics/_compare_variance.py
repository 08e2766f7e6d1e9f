"""How noisy are gradient estimators, and what does a unit of variance cost?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array

from gumbel_moe._checks import check_draws, check_positive, check_positive_int, check_rate
from gumbel_moe._keys import check_key
from gumbel_moe._optional import need, progress_bar
from gumbel_moe.diagnostics._draws import GradientEstimator, batching_of, layout_of_draws, sampler
from gumbel_moe.diagnostics._layout import Layout, check_same, exact_vector
from gumbel_moe.diagnostics._save import Saved
from gumbel_moe.diagnostics._spectrum import FULL, Spectrum
from gumbel_moe.diagnostics._stream import Stretch, stretch
from gumbel_moe.diagnostics._timing import timed_draws
from gumbel_moe.diagnostics._tree import data_tree
from gumbel_moe.diagnostics._variance_table import INTERVAL, bias_row, relate, resampled_means, row, spectrum_of


@dataclass(frozen=True, eq=False, repr=False)
class VarianceComparison(Saved):
    """From [`compare_variance`][gumbel_moe.diagnostics.compare_variance]; `print` shows the table."""

    summary: pd.DataFrame
    """One row per estimator. `trace`: of the covariance of one draw, with `trace_low` and `trace_high`; `relative`: the
    reference's trace over this one, above 1 where fewer draws are needed, with `relative_low` and `relative_high`;
    `signal_to_noise`: squared norm of the mean over the trace; `seconds`: of one draw, median; `evaluations`: of
    experts; `trace_x_seconds`, `trace_x_evaluations`: the variance for a unit of cost; `relative_per_second`,
    `relative_per_evaluation`: the reference's over this one; `rank`: effective number of directions that share the
    variance; `top_share`: of the largest eigenvalue; `largest_draw`: what the largest draw contributes to the trace
    (near 1: a tail so heavy that no interval holds); `not_finite`: draws that were NaN or infinite; `trace_NAME`: of
    the coordinates of a group. Where the exact gradient was given: `bias`, the norm of the mean's distance from it, the
    mean's own noise taken out; `mse`, its square plus the trace; `max_z`, the largest z-score of a coordinate;
    `biased`, whether it is beyond chance."""
    reference: str
    interval: float
    """Probability that each interval covers."""
    draws: int
    """Of every chain."""
    chains: int
    spectra: dict[str, Spectrum]
    """By estimator: `eigenvalues` from the largest down (all of them for up to 256 coordinates; else those of a few
    draws, the largest of which are too large), and the effective `rank`."""
    squared_deviations: np.ndarray
    """`(chains, draws, estimators)`: what every draw adds to the trace, up to a small constant its squared distance
    from the mean."""
    attrs: dict[str, Any]

    @cached_property
    def data(self) -> Any:
        """An ArviZ DataTree: `posterior` with `squared_deviation` of every draw (its mean is the trace), by estimator;
        `constant_data` with the summary and the eigenvalues.
        """
        names = list(self.summary.index)
        longest = max(len(spectrum.eigenvalues) for spectrum in self.spectra.values())
        eigenvalues = np.full((len(names), longest), np.nan)
        for line, name in zip(eigenvalues, names, strict=True):
            values = self.spectra[name].eigenvalues
            line[: len(values)] = values
        columns = {name: self.summary[name].to_numpy(np.float64) for name in self.summary}
        return data_tree(
            {"squared_deviation": self.squared_deviations},
            {**columns, "eigenvalue": eigenvalues},
            {"estimator": names, "place": np.arange(longest)},
            {"squared_deviation": ["estimator"]},
            {**{name: ["estimator"] for name in columns}, "eigenvalue": ["estimator", "place"]},
            {**self.attrs, "reference": self.reference, "draws": self.draws, "chains": self.chains},
        )

    def plot(self, path: str | Path | None = None) -> Any:
        """Variance and efficiency with intervals, and the spectra; `path` is where to write a PNG, if anywhere.

        **Returns:** the matplotlib figure.
        """
        return need("gumbel_moe.diagnostics.pictures", "a picture").draw_comparison(self, path)

    def page(self) -> str:
        """One HTML page with the picture and the table, whose ratios are all of this variance over the reference's.

        **Raises:** `ModuleNotFoundError` without matplotlib.
        """
        pages = need("gumbel_moe.diagnostics.pages", "a page")
        heading = "Variance of " + ", ".join(map(str, self.summary.index))
        draws = pages.rows([("draws of each", f"{self.draws * self.chains:,}"), ("compared with", self.reference)])
        return pages.document(heading, heading, draws, pages.variances(self))

    def __str__(self) -> str:
        title = f"{self.draws * self.chains:,} draws each; relative to {self.reference}, {self.interval:.0%} intervals"
        table = self.summary
        if (
            "biased" in table
        ):  # the best of the unbiased first, those that are biased at the end, however little they vary
            table = table.sort_values(["biased", "mse"])
            if table.biased.any():
                title += f"; BIASED: {', '.join(table.index[table.biased.astype(bool)])}"
        return f"{title}\n{table.T.to_string(float_format='{:.4g}'.format)}"

    __repr__ = __str__


def compare_variance(
    estimates: Mapping[str, GradientEstimator],
    key: Array,
    draws: int = 1000,
    chains: int = 4,
    *,
    exact: Any = None,
    groups: Mapping[str, str | Sequence[str]] | None = None,
    false_fail_rate: float = 1e-6,
    reference: str | None = None,
    cost: Mapping[str, float] | None = None,
    progress: bool = False,
    attrs: Mapping[str, Any] | None = None,
) -> VarianceComparison:
    r"""Covariance $C$ of one draw of each estimator: its trace and spectrum, against the mean and against the cost.

    The error of a mean of $N$ draws is $\mathrm{tr}\, C / N$, so for the same error at the same cost the product of
    trace and cost per draw decides. Intervals are from a bootstrap of the draws' squared distances from the mean; where
    one draw makes up much of the trace (`largest_draw`), they are too short. With the exact gradient, bias and mean
    squared error are there too, and what is biased is marked and shown last; without it, nothing can be said of biases.

    **Arguments:**

    - `estimates`: by name, functions of a JAX key that return pytrees of the same structure and shapes.
    - `key`: a JAX key; the estimators get independent ones.
    - `draws`, `chains`: number of draws of each chain, at least 4, and of chains.
    - `exact`: the pytree that the means should be; or a function without arguments that returns it; or None.
    - `groups`: by name, which part of the pytree: a path such as `"router"` or `"layers.0.router"`, or several; each
      gets its own trace.
    - `false_fail_rate`: the probability that an unbiased estimator is called biased, between 0 and 1.
    - `reference`: the estimator that the others are compared with; the first one if None.
    - `cost`: by name, expert evaluations per draw, positive; None leaves their columns out.
    - `progress`: show a progress bar (needs tqdm).
    - `attrs`: what else to note in `data`.

    **Returns:** a [`VarianceComparison`][gumbel_moe.diagnostics.VarianceComparison].

    **Raises:** `TypeError` when an estimator is no function or returns anything but floating-point arrays, or `key`
    is no key; `ValueError` when they return different structures, and for names and numbers out of range.

    ```python
    >>> import jax
    >>> from gumbel_moe.diagnostics import compare_variance
    >>> one = lambda key: jax.random.normal(key, (3,))
    >>> mean_of_two = lambda key: jax.random.normal(key, (2, 3)).mean(axis=0)
    >>> result = compare_variance({"one": one, "two": mean_of_two}, jax.random.key(0), cost={"one": 1, "two": 2})
    >>> print(result.summary.relative.round()["two"])  # half the variance,
    2.0
    >>> print(result.summary.relative_per_evaluation.round()["two"])  # at twice the cost
    1.0

    ```
    """
    draws, chains = check_draws(draws, 4), check_positive_int("chains", chains)
    names, key = _names(estimates), check_key(key)
    reference = names[0] if reference is None else reference
    if reference not in names:
        raise ValueError(f"reference must be one of {', '.join(names)}, got {reference!r}")
    evaluations, rate = _costs(cost, names), check_rate(false_fail_rate)
    layouts = {name: layout_of_draws((estimates[name],), key) for name in names}
    layout = layouts[names[0]]
    for name in names[1:]:
        check_same(f"what {name} returns", layouts[name], f"what {names[0]} returns", layout)

    truth = None if exact is None else exact_vector(exact, layout)
    parts = _parts(groups or {}, layout)

    rows, spectra, lengths, resampled = {}, {}, [], {}
    # Draws that are not finite are counted, not warned of.
    with progress_bar(progress, draws * chains * len(names), "draws") as advance, np.errstate(all="ignore"):
        timed = timed_draws(estimates, layout, jax.random.fold_in(key, 0), draws * chains)
        for place, name in enumerate(names):
            inner = jax.random.fold_in(key, 1 + place)
            centre = jnp.asarray(np.nan_to_num(timed[name].draws.mean(axis=0), posinf=0, neginf=0), layout.dtype)
            seen = _draw(estimates[name], layout, inner, chains, draws, centre, advance)
            # From the draws' own mean, which the centre they were measured from is not.
            squared = seen.length.astype(np.float64) ** 2 - np.sum(seen.moments.mean**2)
            lengths.append(squared)
            spectra[name] = spectrum_of(seen, timed[name])
            trace = float(np.sum(seen.moments.variance))
            means = resampled_means(squared.ravel(), place)
            resampled[name] = trace * means / squared.mean() if squared.any() else np.zeros_like(means)
            middle = np.asarray(centre, np.float64)
            rows[name] = row(seen, middle, timed[name], squared, trace, spectra[name])
            rows[name] |= {f"trace_{part}": float(np.sum(seen.moments.variance[of])) for part, of in parts.items()}
            if truth is not None:
                rows[name] |= bias_row(layout, truth, middle, seen.moments, rate)
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("estimator")
    return VarianceComparison(
        summary=relate(table, resampled, evaluations, reference),
        reference=reference,
        interval=INTERVAL,
        draws=draws,
        chains=chains,
        spectra=spectra,
        squared_deviations=np.stack(lengths, axis=-1),
        attrs=dict(attrs or {}),
    )


def _names(estimates: Mapping[str, GradientEstimator]) -> list[str]:
    if not isinstance(estimates, Mapping):
        raise TypeError(f"estimates must be a dict from names to functions, got {type(estimates).__name__}")
    if not estimates or not all(isinstance(name, str) for name in estimates):
        raise ValueError(f"estimates must have at least one name, all of them strings, got {list(estimates)}")
    return list(estimates)


def _costs(cost: Mapping[str, float] | None, names: list[str]) -> dict[str, float] | None:
    if cost is None:
        return None
    if set(cost) != set(names):
        raise ValueError(f"cost must have the names of estimates, {', '.join(names)}, got {', '.join(cost)}")
    return {name: check_positive(f"cost[{name!r}]", cost[name]) for name in names}


def _parts(groups: Mapping[str, str | Sequence[str]], layout: Layout) -> dict[str, np.ndarray]:
    parts = {name: layout.within([paths] if isinstance(paths, str) else paths) for name, paths in groups.items()}
    for name, inside in parts.items():
        if not inside.any():
            leaves = ", ".join(layout.leaves)
            raise ValueError(f"groups[{name!r}] must be paths to leaves, got {groups[name]!r}; the leaves are {leaves}")
    return parts


def _draw(
    estimate: GradientEstimator, layout: Layout, key: Array, chains: int, draws: int, centre: Array, advance: Any
) -> Stretch:
    """All draws, as deviations from a centre near their mean, so that their squares are free of cancellation."""
    batching = batching_of(layout, chains * draws)
    products = layout.size <= FULL
    sample = sampler((estimate,), layout, batching.together, products)
    none = np.zeros(0, np.int64)
    return stretch(sample, batching, key, chains, range(draws), centre, none, products=products, advance=advance)
