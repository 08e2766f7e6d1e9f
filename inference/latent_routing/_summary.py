"""Fits to rows of a table: medians over starts and splits."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.stats import norm

from inference.latent_routing._estimators import Estimator
from inference.latent_routing._fit import Fit
from inference.latent_routing._svi import Problem
from inference.shared.table import Column, Row, aligned_table

_COLUMNS: tuple[Column, ...] = (
    ("estimator", "estimator", "s"),
    ("kind", "kind", "s"),
    ("test_median", "test", ".3f"),
    ("against_enumerated_median", "against enum.", "+.3f"),
    ("log_likelihood_median", "train", ".3f"),
    ("elbo_median", "ELBO", ".3f"),
    ("away_median", "q away", ".3f"),
    ("gradient_error", "gradient error", ".3f"),
    ("wanted", "wanted", ".0f"),
    ("busiest", "busiest", ".0f"),
    ("evaluations", "evaluations", ".0f"),
)

_LEGEND = """\
test: log predictive density of the images that were held out, nats per image, the assignment summed out; median
against enum.: the same less that of `enumerated` at the same start and split; median of the differences
train, ELBO: log-likelihood of the training images, and the guide's bound on it, exact; medians
q away: total variation between guide and exact posterior of the assignment, mean over training images; median
gradient error: root mean squared distance of a step's gradient from the exact one of the ELBO per image, last fifth
wanted: images that the guide would give the most wanted expert, expected
busiest: images that the busiest expert computes in one pass (a particle), mean; there are as many passes as particles
evaluations: images times experts computed in one training step, mean"""


def row_of(fit: Fit, estimator: Estimator, settings: dict[str, Any], exact: np.ndarray | None) -> Row:
    """Medians, with quartiles of what is compared; the rest are means over starts."""
    last = {name: curve[:, -1] for name, curve in fit.curves.items()}
    late = fit.curves["squared_error"][:, -max(1, (fit.curves["elbo"].shape[1] - 1) // 5) :]
    passes = 1 if estimator.enumerates else settings["particles"]
    return {
        "estimator": fit.router,
        "kind": fit.kind,
        "capacity": estimator.capacity(settings["images"], fit.demand.shape[1]) if estimator.factor else None,
        **_test(last["test"], exact),
        "log_likelihood_median": float(np.median(last["log_likelihood"])),
        "elbo_median": float(np.median(last["elbo"])),
        "away_median": float(np.median(fit.away)),
        # The marginal likelihood has another gradient, and no guide.
        "gradient_error": None if fit.router == "marginal" else float(np.sqrt(late.mean())),
        "wanted": float(fit.wanted.max(axis=1).mean()),
        "busiest": float(fit.busiest.mean()),
        "evaluations": float(passes * fit.load.sum(axis=1).mean()),
        "seconds": fit.seconds,
    }


def linear_regression(given: Problem, settings: dict[str, Any], exact: np.ndarray | None) -> Row:
    """One linear regression by least squares for each split."""

    def one(train: tuple[Array, Array], test: tuple[Array, Array]) -> tuple[Array, Array]:
        (known, y), (new, y_new) = ((jnp.insert(x, 0, 1, axis=1), y) for x, y in (train, test))
        line = jnp.linalg.lstsq(known, y)[0]
        spread = jnp.std(y - known @ line)
        return jnp.mean(norm.logpdf(y, known @ line, spread)), jnp.mean(norm.logpdf(y_new, new @ line, spread))

    trained, tested = (np.asarray(part) for part in jax.jit(jax.vmap(one))(given.train, given.test))
    images = float(settings["images"])
    return {
        "estimator": "linear_regression",
        "kind": "reference",
        **_test(tested, exact),
        "log_likelihood_median": float(np.median(trained)),
        "busiest": images,
        "evaluations": images,
    }


def results_table(rows: list[Row], settings: dict[str, Any]) -> str:
    """Rows as an aligned table, with a legend."""
    title = ", ".join(f"{value} {name}" for name, value in settings.items() if name != "seed")
    return f"{aligned_table(f'latent routing: {title}', _COLUMNS, rows)}\n\n{_LEGEND}"


def _test(values: np.ndarray, exact: np.ndarray | None) -> Row:
    row: Row = {"test_median": float(np.median(values)), "test_quartiles": _quartiles(values)}
    if exact is not None:
        difference = values - exact
        row["against_enumerated_median"] = float(np.median(difference))
        row["against_enumerated_quartiles"] = _quartiles(difference)
    return row


def _quartiles(values: np.ndarray) -> list[float]:
    return [float(q) for q in np.quantile(values, [0.25, 0.75])]
