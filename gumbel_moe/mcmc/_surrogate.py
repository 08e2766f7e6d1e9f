"""A cheap approximation of a model's density in an assignment: a table of terms, and a term of the experts' loads."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions.util import scale_and_mask
from numpyro.handlers import block, substitute, trace
from numpyro.ops.provenance import eval_provenance

from gumbel_moe.distributions import SkipAssignment
from gumbel_moe.mcmc._assignment_site import assignment_prior
from gumbel_moe.mcmc._prior_terms import prior_terms


class Surrogate(NamedTuple):
    r"""The log-density $\sum_i T_{i z_i} + \sum_j L_j(n_j)$, up to a constant, of an assignment in the support."""

    table: Array  # (n, codes)
    loads: Array  # (k, n + 1) the term of an expert with so many datapoints
    capacity: Array  # (k,)
    skips: bool
    uniform: Array  # () bool: the prior gives all assignments in its support the same probability

    def log_density(self, code: Array, load: Array) -> Array:
        """Of codes `(n,)`, with the experts' loads `(k,)`."""
        terms = jnp.take_along_axis(self.table, code[:, None], axis=1)
        return jnp.sum(terms) + jnp.sum(jnp.take_along_axis(self.loads, load[:, None], axis=1))


def surrogate(model: Callable[[], Any], site: str, fixed: dict[str, Any], value: Array) -> Surrogate:
    """The surrogate of `model`, everything but `site` being `fixed`.

    The terms of the other sites are read off the model at assignments of everybody to one expert. They are exact where
    a site's log-probability has an axis for the datapoints (a plate, or the last one) and each entry depends on its
    own datapoint's expert alone; other sites are left out.
    """
    prior = assignment_prior(trace(substitute(model, data={**fixed, site: value})).get_trace(), site)
    if prior.present is not None:
        raise ValueError(
            f"site {site!r} has a mask, which swap_and_move does not support: "
            "draw the assignment of the datapoints that take part alone"
        )
    n, k = prior.num_datapoints, prior.num_experts
    skips = isinstance(prior, SkipAssignment)
    codes = jnp.arange(2 * k if skips else k, dtype=jnp.int32)

    def of_all(code: Array) -> Array:
        everybody = jnp.full((n,), decode(code, k), jnp.int32)
        sites = trace(substitute(model, data={**fixed, site: everybody})).get_trace()
        return sum((_per_datapoint(s, n) for name, s in sites.items() if name != site), jnp.zeros(n))

    likelihood = jax.vmap(of_all, out_axes=1)(codes)
    terms = prior_terms(prior)
    table = jax.lax.stop_gradient(likelihood + terms.table)
    return Surrogate(table, terms.loads, jnp.asarray(prior.capacity), skips, terms.uniform)


def encode(value: Array, num_experts: int) -> Array:
    """Values of the site as columns of the table: `j` for kept by expert `j`, `k + j` for skipped by it (`~j`)."""
    return jnp.where(value < 0, num_experts - 1 - value, value)


def decode(code: Array, num_experts: int) -> Array:
    """The inverse of `encode`."""
    return jnp.where(code < num_experts, code, num_experts - 1 - code)


def unseen_terms(model: Callable[[], Any], site: str, fixed: dict[str, Any], value: Array) -> list[str]:
    """The sites whose log-density depends on the assignment but has no axis for its datapoints."""
    n = value.shape[0]

    def terms(assignment: Array) -> dict[str, Array]:
        sites = trace(substitute(model, data={**fixed, site: assignment})).get_trace()
        return {
            name: _log_prob(s)
            for name, s in sites.items()
            if s["type"] == "sample" and name != site and _axis(s, _log_prob(s), n) is None
        }

    with block():
        return sorted(name for name, sources in eval_provenance(terms, assignment=value).items() if sources)


def _log_prob(site: Any) -> Array:
    return jnp.asarray(scale_and_mask(site["fn"].log_prob(site["value"]), site["scale"]))


def _axis(site: Any, log_prob: Array, n: int) -> int | None:
    """Where a site's log-probability has its axis for `n` datapoints: a plate, or the last one; None if nowhere."""
    dims = [frame.dim for frame in site["cond_indep_stack"] if frame.size == n] or [-1]
    if len(dims) > 1 or log_prob.ndim < -dims[0] or log_prob.shape[dims[0]] != n:
        return None
    return dims[0]


def _per_datapoint(site: Any, n: int) -> Array:
    """What a site adds to the log-density for each of `n` datapoints; zero if it has no axis for them."""
    if site["type"] != "sample":
        return jnp.zeros(n)
    log_prob = _log_prob(site)
    axis = _axis(site, log_prob, n)
    return jnp.zeros(n) if axis is None else jnp.sum(jnp.moveaxis(log_prob, axis, -1).reshape(-1, n), axis=0)
