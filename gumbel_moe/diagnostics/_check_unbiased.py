"""Is a gradient estimator unbiased, and how small a bias would have been seen?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gumbel_moe._checks import check_positive_int
from gumbel_moe.diagnostics._checks import check_rate
from gumbel_moe.diagnostics._coordinates import Coordinates, judge, rare, rounding
from gumbel_moe.diagnostics._draws import Estimate, layout_of_draws, plan_of, sampler
from gumbel_moe.diagnostics._independence import look
from gumbel_moe.diagnostics._keep import choose_kept
from gumbel_moe.diagnostics._layout import Layout, check_same, layout_of
from gumbel_moe.diagnostics._moments import Moments
from gumbel_moe.diagnostics._progress import progress_bar
from gumbel_moe.diagnostics._report import Evidence, UnbiasedReport
from gumbel_moe.diagnostics._spread import Spread, learn, project
from gumbel_moe.diagnostics._stream import stretch


def check_unbiased(
    estimate: Estimate | tuple[Estimate, Estimate],
    exact: Any,
    key: Array,
    draws: int = 2000,
    chains: int = 4,
    false_fail_rate: float = 1e-6,
    *,
    keep: int | Sequence[int | str] | np.ndarray = 64,
    progress: bool = False,
    attrs: Mapping[str, Any] | None = None,
) -> UnbiasedReport:
    r"""Test $E[g(\text{key})] = \nabla J$ for a gradient estimator $g$, coordinate by coordinate and as a whole.

    With the mean $\bar g_i$ of $N$ draws and their standard deviation $\sigma_i$, two tests share the false-fail rate:

    - every coordinate's $z_i = (\bar g_i - \nabla_i J) / (\sigma_i / \sqrt N)$ against a Student-t limit, with
      Bonferroni's correction for the number of coordinates;
    - for a bias too small to be seen in any one of them: half of the draws give the direction
      $v_i = m_i / \sigma_i^2$, with $m$ their mean deviation, and the projections on it of the other half are tested by
      a one-sided t-test. Without bias their mean is 0 whatever the correlations, and the power against a bias spread
      over $d$ coordinates grows with $\sqrt d$.

    Both are exact for normal means, that is for many draws. Draws that are NaN or infinite fail, and so do draws that
    do not look independent, as happens when a key is reused. A mean may be off by a few roundings (32 units in the last
    place of the largest entry of its leaf), and where nearly all draws of a coordinate are 0, by what events too rare
    to be seen could add; both count in `detectable_bias`.

    Memory: a few vectors of all coordinates, one batch of draws (64 MiB or one draw), and of every draw only what is
    kept.

    **Arguments:**

    - `estimate`: a function of a JAX key that returns a pytree of floating-point arrays, and can be compiled. Compile
      it with `jax.jit` to test it many times without compiling again. If `exact` is None: a pair of such functions,
      whose difference is tested, with independent keys.
    - `exact`: the pytree that the mean should be; or a function without arguments that returns it; or None.
    - `key`: a JAX key.
    - `draws`, `chains`: number of draws of each chain, at least 4, and of chains. Draws are independent, so chains only
      serve to show that they are.
    - `false_fail_rate`: the probability that an unbiased estimator fails, between 0 and 1.
    - `keep`: coordinates of which every draw is kept for `data`: how many, chosen at random, or which, by their place
      in the flattened pytree or by names such as `"router.bias[0]"`.
    - `progress`: show a progress bar (needs tqdm).
    - `attrs`: what else to note in `data`, such as the estimator's name, `n`, `k`, `capacity` and `seed`.

    **Returns:** an [`UnbiasedReport`][gumbel_moe.diagnostics.UnbiasedReport].

    **Raises:** `TypeError` when `estimate` is no function (or pair) or returns anything but floating-point arrays;
    `ValueError` when `exact` has another structure or shapes or is not finite, or a number is out of its range.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.diagnostics import check_unbiased
    >>> from gumbel_moe.estimators import exact_loss, score_function_loss
    >>> from gumbel_moe.routing import SkipRouter
    >>> logits = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 0.5]])
    >>> losses = jnp.array([[1.0, 3.0], [2.0, 0.0], [1.0, 1.0], [0.0, 2.0]])
    >>> def estimate(key, corrected=True):
    ...     def loss(logits):
    ...         routing = SkipRouter(2, corrected=corrected)(key, logits)
    ...         own = jnp.take_along_axis(losses, routing.expert[:, None], axis=1)[:, 0]
    ...         return score_function_loss(routing, own)
    ...     return jax.grad(loss)(logits)
    >>> exact = jax.grad(exact_loss)(logits, losses)
    >>> check_unbiased(estimate, exact, jax.random.key(0)).passed
    True
    >>> check_unbiased(lambda key: estimate(key, corrected=False), exact, jax.random.key(0)).passed
    False

    ```
    """
    draws, chains = check_positive_int("draws", draws), check_positive_int("chains", chains)
    if draws < 4:
        raise ValueError(f"draws must be at least 4, got {draws}")
    rate = check_rate(false_fail_rate)
    estimates = _functions(estimate, exact)
    layout = layout_of_draws(estimates, key)
    truth = _truth(exact, layout)
    kept = choose_kept(keep, layout)
    shift = jnp.asarray(truth, layout.dtype)

    half = draws // 2
    plan = plan_of(layout, chains * (draws - half))
    sample = sampler(estimates, layout, plan.together)
    with progress_bar(progress, draws * chains, "draws") as advance:
        first = stretch(sample, plan, key, chains, range(half), shift, kept, advance=advance)
        direction = learn(layout, truth, first.moments)
        second = stretch(
            sample, plan, key, chains, range(half, draws), shift, kept, first.unit, direction.vector, advance=advance
        )

    moments = first.moments.with_(second.moments)
    coordinates = judge(layout, truth, np.asarray(shift, np.float64), moments, rate / 2)
    spread = project(direction, second.along, rate / 2)
    tables = [np.concatenate(pair, axis=1) for pair in zip(first[1:3], second[1:3], strict=True)]
    series = np.concatenate(tables, axis=2)
    varies = np.sqrt(moments.variance) > rounding(layout, truth, moments)
    judged = np.concatenate([(varies & ~rare(moments))[kept], np.full(tables[1].shape[2], varies.any())])
    independence = look(series, judged)

    whole = np.concatenate([first.whole, second.whole], axis=1)
    reasons = (
        *_not_finite(layout, moments, whole),
        *_biased(layout, moments, coordinates, spread),
        *independence.reasons,
    )
    return UnbiasedReport(
        passed=not reasons,
        max_z=float(np.max(np.abs(coordinates.z))),
        limit=coordinates.limit,
        detectable_bias=float(np.max(coordinates.detectable)),
        spread_z=spread.z,
        spread_limit=spread.limit,
        detectable_spread=spread.detectable,
        false_fail_rate=rate,
        draws=draws,
        chains=chains,
        reasons=reasons,
        evidence=Evidence(
            layout, truth, moments, coordinates, spread, independence, kept, tables[0], tables[1], dict(attrs or {})
        ),
    )


def _functions(estimate: Any, exact: Any) -> tuple[Estimate, ...]:
    if exact is not None:
        return (estimate,)
    if not (isinstance(estimate, tuple | list) and len(estimate) == 2):
        raise TypeError(f"estimate must be a pair of functions when exact is None, got {type(estimate).__name__}")
    return tuple(estimate)


def _truth(exact: Any, layout: Layout) -> np.ndarray:
    """`(size,)` float64: the exact gradient, 0 for a difference."""
    if exact is None:
        return np.zeros(layout.size)
    if callable(exact) and jax.tree_util.all_leaves([exact]):  # a model may be callable too, but is a tree of arrays
        exact = exact()
    check_same("exact", layout_of("exact", exact), "what estimate returns", layout)
    truth = layout.numbers(exact)
    if not np.isfinite(truth).all():
        raise ValueError(
            f"exact must be finite, got {truth[~np.isfinite(truth)][0]} at {_names(layout, ~np.isfinite(truth))}"
        )
    return truth


def _not_finite(layout: Layout, moments: Moments, whole: np.ndarray) -> tuple[str, ...]:
    broken = moments.broken > 0
    if broken.any():
        return (f"{(~whole).sum():,} of {whole.size:,} draws are NaN or infinite, in {_names(layout, broken)}",)
    wild = ~np.isfinite(moments.variance)
    return (f"the variance is too large for {layout.dtype} in {_names(layout, wild)}",) if wild.any() else ()


def _biased(layout: Layout, moments: Moments, coordinates: Coordinates, spread: Spread) -> tuple[str, ...]:
    reasons = []
    found = np.abs(coordinates.z) > coordinates.limit
    if found.any():
        at = int(np.argmax(np.where(found, np.abs(coordinates.z), 0)))
        bias, error = coordinates.bias[at], coordinates.error[at]
        sentence = f"bias in {found.sum():,} of {layout.size:,} coordinates, most clearly {layout.name(at)}: "
        sentence += f"{bias:+.3g} with standard error {error:.2g}"
        reasons.append(sentence)
        if math.isinf(coordinates.z[at]):
            reasons.append(f"all draws of {layout.name(at)} are the same: does the estimator use its key?")
    if spread.z > spread.limit:
        reasons.append(f"bias spread over the coordinates: t-score {spread.z:.1f}, limit {spread.limit:.1f}")
    return tuple(reasons)


def _names(layout: Layout, where: np.ndarray) -> str:
    """The leaves that hold the coordinates."""
    return ", ".join(layout.leaves[leaf] for leaf in np.unique(layout.leaf_of[where]))
