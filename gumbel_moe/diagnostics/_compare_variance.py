"""How noisy are gradient estimators, and what does a unit of variance cost?"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array

from gumbel_moe._checks import check_positive, check_positive_int
from gumbel_moe._keys import check_key
from gumbel_moe._optional import progress_bar
from gumbel_moe.diagnostics._bootstrap import interval as middle
from gumbel_moe.diagnostics._bootstrap import resampled_means
from gumbel_moe.diagnostics._checks import check_draws
from gumbel_moe.diagnostics._comparison import VarianceComparison
from gumbel_moe.diagnostics._draws import Estimate, layout_of_draws, plan_of, sampler
from gumbel_moe.diagnostics._layout import Layout, check_same
from gumbel_moe.diagnostics._spectrum import FULL, Spectrum, of_covariance, of_draws
from gumbel_moe.diagnostics._stream import Stretch, stretch
from gumbel_moe.diagnostics._timing import Timed, timed_draws

_INTERVAL = 0.95


def compare_variance(
    estimates: Mapping[str, Estimate],
    key: Array,
    draws: int = 1000,
    chains: int = 4,
    *,
    reference: str | None = None,
    cost: Mapping[str, float] | None = None,
    progress: bool = False,
    attrs: Mapping[str, Any] | None = None,
) -> VarianceComparison:
    r"""Covariance $C$ of one draw of each estimator: its trace and spectrum, against the mean and against the cost.

    The error of a mean of $N$ draws is $\mathrm{tr}\, C / N$, so for the same error at the same cost the product of
    trace and cost per draw decides. Intervals are from a bootstrap of the draws' squared distances from the mean; where
    one draw makes up much of the trace (`largest_draw`), they are too short. Biased estimators are compared by their
    variance alone.

    **Arguments:**

    - `estimates`: by name, functions of a JAX key that return pytrees of the same structure and shapes.
    - `key`: a JAX key; the estimators get independent ones.
    - `draws`, `chains`: number of draws of each chain, at least 4, and of chains.
    - `reference`: the estimator that the others are compared with; the first one if None.
    - `cost`: by name, expert evaluations per draw, positive; None leaves their columns out (NaN).
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
    evaluations = _costs(cost, names)
    layouts = {name: layout_of_draws((estimates[name],), key) for name in names}
    layout = layouts[names[0]]
    for name in names[1:]:
        check_same(f"what {name} returns", layouts[name], f"what {names[0]} returns", layout)

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
            spectra[name] = _spectrum(seen, timed[name])
            trace = float(np.sum(seen.moments.variance))
            means = resampled_means(squared.ravel(), place)
            resampled[name] = trace * means / squared.mean() if squared.any() else np.zeros_like(means)
            rows[name] = _row(seen, np.asarray(centre, np.float64), timed[name], squared, trace, spectra[name])
    table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("estimator")
    return VarianceComparison(
        summary=_relate(table, resampled, evaluations, reference),
        reference=reference,
        interval=_INTERVAL,
        draws=draws,
        chains=chains,
        spectra=spectra,
        squared_deviations=np.stack(lengths, axis=-1),
        attrs=dict(attrs or {}),
    )


def _names(estimates: Mapping[str, Estimate]) -> list[str]:
    if not isinstance(estimates, Mapping):
        raise TypeError(f"estimates must be a dict from names to functions, got {type(estimates).__name__}")
    if not estimates or not all(isinstance(name, str) for name in estimates):
        raise ValueError(f"estimates must have at least one name, all of them strings, got {list(estimates)}")
    return list(estimates)


def _costs(cost: Mapping[str, float] | None, names: list[str]) -> dict[str, float]:
    if cost is None:
        return dict.fromkeys(names, np.nan)
    if set(cost) != set(names):
        raise ValueError(f"cost must have the names of estimates, {', '.join(names)}, got {', '.join(cost)}")
    return {name: check_positive(f"cost[{name!r}]", cost[name]) for name in names}


def _draw(
    estimate: Estimate, layout: Layout, key: Array, chains: int, draws: int, centre: Array, advance: Any
) -> Stretch:
    """All draws, as deviations from a centre near their mean, so that their squares are free of cancellation."""
    plan = plan_of(layout, chains * draws)
    products = layout.size <= FULL
    sample = sampler((estimate,), layout, plan.together, products)
    none = np.zeros(0, np.int64)
    return stretch(sample, plan, key, chains, range(draws), centre, none, products=products, advance=advance)


def _spectrum(seen: Stretch, timed: Timed) -> Spectrum:
    moments = seen.moments
    if moments.products is None:
        return of_draws(timed.draws)
    return of_covariance(moments.products / (moments.count - 1), moments.count)


def _row(
    seen: Stretch, centre: np.ndarray, timed: Timed, squared: np.ndarray, trace: float, spectrum: Spectrum
) -> dict[str, float]:
    count = seen.moments.count
    total = float(squared.sum())
    signal = float(np.sum((centre + seen.moments.mean) ** 2)) - trace / count  # the mean's own noise taken out
    return {
        "trace": trace,
        "signal_to_noise": signal / trace if trace else np.inf,
        "seconds": float(np.median(timed.seconds)),
        "rank": spectrum.rank,
        "top_share": float(spectrum.eigenvalues[0] / spectrum.eigenvalues.sum()) if trace else np.nan,
        "largest_draw": float(squared.max() / total) if total else np.nan,
        "not_finite": int((~seen.whole).sum()),
    }


def _relate(
    table: pd.DataFrame, resampled: dict[str, np.ndarray], evaluations: dict[str, float], reference: str
) -> pd.DataFrame:
    """The columns that need several others, in their order."""
    low_high = {name: middle(values, _INTERVAL) for name, values in resampled.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = {
            name: (1.0, 1.0) if name == reference else middle(resampled[reference] / values, _INTERVAL)
            for name, values in resampled.items()
        }
        table = table.assign(
            trace_low=[low for low, _ in low_high.values()],
            trace_high=[high for _, high in low_high.values()],
            relative=table.trace[reference] / table.trace,
            relative_low=[low for low, _ in ratios.values()],
            relative_high=[high for _, high in ratios.values()],
            evaluations=list(evaluations.values()),
        )
        for unit in ("seconds", "evaluations"):
            product = table.trace * table[unit]
            table[f"trace_x_{unit}"] = product
            table[f"relative_per_{unit.removesuffix('s')}"] = product[reference] / product
    order = ["trace", "trace_low", "trace_high", "relative", "relative_low", "relative_high", "signal_to_noise"]
    order += ["seconds", "trace_x_seconds", "relative_per_second"]
    order += ["evaluations", "trace_x_evaluations", "relative_per_evaluation"]
    return table.reindex(columns=[*order, "rank", "top_share", "largest_draw", "not_finite"])
