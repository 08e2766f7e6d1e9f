"""Is a gradient estimator unbiased, and how small a bias would have been seen?"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import Array

from gumbel_moe._checks import check_positive_int
from gumbel_moe._keys import check_key
from gumbel_moe._optional import progress_bar
from gumbel_moe.diagnostics._checks import check_draws, check_rate
from gumbel_moe.diagnostics._draws import Estimate, layout_of_draws
from gumbel_moe.diagnostics._evidence import gather
from gumbel_moe.diagnostics._keep import choose_kept
from gumbel_moe.diagnostics._layout import Layout, check_same, layout_of
from gumbel_moe.diagnostics._report import UnbiasedReport
from gumbel_moe.diagnostics._verdict import why_not


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

    Both are exact for normal means, that is for many draws: for a router's gradient, which is skewed, at least 2,000 in
    all, and at the default rate more. The weights of Gumbel-Matching with less than about four places for an expert
    have tails for which no number suffices (the documentation's page *Test an estimator* has measured rates).

    Draws that are NaN or infinite fail, and so do draws that do not look independent, as happens when a key is reused.
    A mean may be off by 32 units in the last place (where a coordinate hardly varies, of the largest entry of its
    leaf), and where nearly all draws of a coordinate are 0, by what events too rare to be seen could add; both count
    in `detectable_bias`.

    Memory: a dozen vectors of all coordinates, a few times 64 MiB for a batch of draws (or a few draws, if they are
    larger), and of every draw only what is kept.

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

    **Raises:** `TypeError` when `estimate` is no function (or pair) or returns anything but floating-point arrays, or
    `key` is no key; `ValueError` when `exact` has another structure or shapes or is not finite, or a number is out of
    its range.

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
    draws, chains = check_draws(draws, 4), check_positive_int("chains", chains)
    rate, key = check_rate(false_fail_rate), check_key(key)
    estimates = _functions(estimate, exact)
    layout = layout_of_draws(estimates, key)
    truth = _truth(exact, layout)
    kept = choose_kept(keep, layout)
    # Draws that are not finite are counted, not warned of.
    with progress_bar(progress, draws * chains, "draws") as advance, np.errstate(all="ignore"):
        evidence = gather(estimates, truth, layout, key, draws, chains, rate, kept, attrs or {}, advance)
        reasons = why_not(evidence)
        return UnbiasedReport(
            passed=not reasons,
            max_z=float(np.max(np.abs(evidence.coordinates.z))),
            limit=evidence.coordinates.limit,
            detectable_bias=float(np.max(evidence.coordinates.detectable)),
            spread_z=evidence.spread.z,
            spread_limit=evidence.spread.limit,
            detectable_spread=evidence.spread.detectable,
            false_fail_rate=rate,
            draws=draws,
            chains=chains,
            reasons=reasons,
            evidence=evidence,
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
        at = int(np.argmin(np.isfinite(truth)))
        raise ValueError(f"exact must be finite, got {truth[at]} at {layout.name(at)}")
    return truth
