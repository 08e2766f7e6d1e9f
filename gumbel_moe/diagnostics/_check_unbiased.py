"""Is a gradient estimator unbiased, and how small a bias would have been seen?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from arviz_stats import mcse as arviz_mcse  # pyright: ignore[reportPrivateImportUsage]
from jax import Array

from gumbel_moe._checks import check_draws, check_positive, check_positive_int, check_rate
from gumbel_moe._keys import check_key
from gumbel_moe._optional import need, progress_bar
from gumbel_moe.diagnostics._coordinate_tests import draws_for
from gumbel_moe.diagnostics._draws import GradientEstimator, layout_of_draws
from gumbel_moe.diagnostics._evidence import Evidence, gather
from gumbel_moe.diagnostics._keep import choose_kept
from gumbel_moe.diagnostics._layout import exact_vector
from gumbel_moe.diagnostics._save import Saved
from gumbel_moe.diagnostics._tree import data_tree
from gumbel_moe.diagnostics._verdict import why_not


@dataclass(frozen=True, eq=False, repr=False)
class UnbiasedReport(Saved):
    """The verdict of [`check_unbiased`][gumbel_moe.diagnostics.check_unbiased]; `print` shows it in words."""

    passed: bool
    """Whether no bias was found, all draws were finite and they looked independent."""
    max_z: float
    """The largest absolute z-score of a coordinate, beyond its allowance for rounding; NaN if a draw was not finite."""
    limit: float
    """What `max_z` may not exceed."""
    detectable_bias: float
    """A bias as large as this in any one coordinate would have been found with probability 0.99, in units of the
    gradient; for each coordinate see `summary`."""
    spread_z: float
    """The t-score of the test for a bias spread over many coordinates."""
    spread_limit: float
    """What `spread_z` may not exceed."""
    detectable_spread: float
    r"""The norm $\sqrt{\sum_i (\text{bias}_i / \sigma_i)^2}$, with $\sigma_i$ the standard deviation of one draw of
    coordinate $i$, that a bias spread over uncorrelated coordinates would have been found at with probability 0.99; NaN
    if no coordinate varies."""
    false_fail_rate: float
    """The probability that an unbiased estimator fails."""
    draws: int
    """Of every chain."""
    chains: int
    reasons: tuple[str, ...]
    """Why it did not pass, in sentences; empty if it did."""
    evidence: Evidence

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per coordinate, in the order of the pytree.

        Columns: `mean` over draws, `exact`, `bias`, `se` of the mean, `z`, `detectable`, `sd` of one draw; and from
        ArviZ `mcse`, `ess`, `r_hat`, which are NaN where the draws were not kept or do not vary.
        """
        e = self.evidence
        ess, r_hat, mcse = (np.full(e.layout.size, np.nan) for _ in range(3))
        ess[e.keep], r_hat[e.keep] = (part[: len(e.keep)] for part in (e.independence.ess, e.independence.r_hat))
        varies = np.isfinite(ess[e.keep])
        if varies.any():
            mcse[e.keep[varies]] = arviz_mcse(e.kept[..., varies].astype(np.float64), chain_axis=0, draw_axis=1)
        columns = {
            "mean": e.exact + e.coordinates.bias,
            "exact": e.exact,
            "bias": e.coordinates.bias,
            "se": e.coordinates.error,
            "z": e.coordinates.z,
            "detectable": e.coordinates.detectable,
            "sd": np.sqrt(e.moments.variance),
            "mcse": mcse,
            "ess": ess,
            "r_hat": r_hat,
        }
        names = pd.Index([e.layout.name(i) for i in range(e.layout.size)], name="parameter")
        return pd.DataFrame(columns, index=names)

    @cached_property
    def data(self) -> Any:
        """An ArviZ DataTree: `posterior` with the kept draws of `gradient` (dims chain, draw, parameter) and their
        random projections, `constant_data` with the exact gradient, attributes with settings and versions.
        """
        e = self.evidence
        names = [e.layout.name(int(i)) for i in e.keep]
        return data_tree(
            {"gradient": e.kept, "projection": e.projections},
            {"exact": e.exact[e.keep]},
            {"parameter": names, "direction": np.arange(e.projections.shape[-1])},
            {"gradient": ["parameter"], "projection": ["direction"]},
            {"exact": ["parameter"]},
            {
                **e.attrs,
                "draws": self.draws,
                "chains": self.chains,
                "coordinates": e.layout.size,
                "false_fail_rate": self.false_fail_rate,
                "passed": self.passed,
                "max_z": self.max_z,
                "detectable_bias": self.detectable_bias,
            },
        )

    @property
    def variance(self) -> float:
        """The trace of the covariance of one draw."""
        return float(np.sum(self.evidence.moments.variance))

    @property
    def relative_detectable_bias(self) -> float:
        """`detectable_bias` over the norm of the exact gradient; NaN where that is 0, or `exact` was None."""
        norm = float(np.linalg.norm(self.evidence.exact))
        return self.detectable_bias / norm if norm > 0 else float("nan")

    def draws_needed(self, bias: float) -> int:
        """How many draws of every chain make a bias of this size detectable, from the spread of the draws seen.

        With as many, and the same chains and rate, a check is expected to have this `detectable_bias`, the bias in any
        one coordinate that it finds with probability 0.99.

        **Arguments:**

        - `bias`: in units of the gradient, positive.

        **Returns:** what to give `check_unbiased` as `draws`.

        **Raises:** `ValueError` for a bias that is not positive, or below what rounding alone may do; and where draws
        were not finite.

        ```python
        >>> import jax
        >>> from gumbel_moe.diagnostics import check_unbiased
        >>> report = check_unbiased(lambda key: jax.random.normal(key, (3,)), jax.numpy.zeros(3), jax.random.key(0))
        >>> needed = report.draws_needed(report.detectable_bias / 2)
        >>> 3.9 < needed / report.draws < 4.1  # half the bias, four times the draws
        True

        ```
        """
        e = self.evidence
        total = draws_for(
            check_positive("bias", bias), e.layout, e.exact, e.moments, e.coordinates, self.false_fail_rate / 2
        )
        return max(4, -(-total // self.chains))

    def page(self) -> str:
        """One HTML page with the verdict, all biases and the table of coordinates: no script, no network needed.

        **Raises:** `ModuleNotFoundError` without matplotlib.
        """
        pages = need("gumbel_moe.diagnostics.pages", "a page")
        heading = "No bias found" if self.passed else "Not an unbiased gradient"
        parts = (pages.verdict(str(self), self.passed), pages.biases(self), pages.coordinates(self))
        return pages.document(heading, heading, *parts)

    def plot(self, path: str | Path | None = None, *, most: int = 30) -> Any:
        """The biases that stand out most, with intervals around them and what could have been detected.

        **Arguments:**

        - `path`: where to write a PNG; None writes nothing.
        - `most`: coordinates shown.

        **Returns:** the matplotlib figure.
        """
        return need("gumbel_moe.diagnostics.pictures", "a picture").draw_forest(
            self.summary, self.passed, self.limit, path, most=most
        )

    def __str__(self) -> str:
        e = self.evidence
        total = self.draws * self.chains
        relative = self.relative_detectable_bias
        lines = [
            f"{'PASSED' if self.passed else 'FAILED'}: {total:,} draws of {e.layout.size:,} coordinates",
            f"largest |z| of a coordinate {self.max_z:.2f}, limit {self.limit:.2f}",
            f"t-score of all together {self.spread_z:.2f}, limit {self.spread_limit:.2f}",
            f"an unbiased estimator fails with probability {self.false_fail_rate:g}",
            f"a bias of {self.detectable_bias:.3g} in any one coordinate would have been found with probability 0.99",
        ]
        if np.isfinite(relative):
            lines.append(f"that is {relative:.3g} of the norm of the gradient")
        if np.isfinite(self.detectable_spread):
            lines.append(
                f"so would one spread over many, of {self.detectable_spread:.3g} standard deviations of a draw together"
            )
        if e.independence.distinct < total / 2:
            lines.append(f"only {e.independence.distinct:,} of the draws differ from each other in what was kept")
        return "\n".join([*lines, *(f"- {reason}" for reason in self.reasons)])

    __repr__ = __str__


def check_unbiased(
    estimate: GradientEstimator | tuple[GradientEstimator, GradientEstimator],
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
    truth = np.zeros(layout.size) if exact is None else exact_vector(exact, layout)
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


def _functions(estimate: Any, exact: Any) -> tuple[GradientEstimator, ...]:
    if exact is not None:
        return (estimate,)
    if not (isinstance(estimate, tuple | list) and len(estimate) == 2):
        raise TypeError(f"estimate must be a pair of functions when exact is None, got {type(estimate).__name__}")
    return tuple(estimate)
