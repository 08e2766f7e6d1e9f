"""The log-probability of assignments on a CPU: a custom call into `native/log_prob.h`.

It computes what `estimate_many` does in JAX, from the same draws; but it is one kernel, where XLA takes many seconds to
compile some thousand, for every shape. Elsewhere than on a CPU the primitive below is lowered to the JAX program, which
is traced then, and only then; so it is for second derivatives.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

from gumbel_moe._custom_calls import AVAILABLE, LOG_PROB, LOG_PROB_AND_SCORE
from gumbel_moe._varying import vary_like
from gumbel_moe.distributions._log_prob_in_jax import Precision, estimate_many
from gumbel_moe.distributions._price_integral import num_chunks

_MOST_EXPERTS = 256
_GENERATOR = "threefry2x32"  # of which the numbers are drawn in C++
_DEFAULT = "jax_default_prng_impl"
_COUNTED = "jax_threefry_partitionable"  # a number depends on its place alone


def suits(n: int, k: int, key: Array | None) -> bool:
    """Whether problems of `n` datapoints and `k` experts go to the compiled implementation where they are on a CPU."""
    generator = getattr(jax.config, _DEFAULT) if key is None else str(jax.random.key_impl(key))
    default = generator == _GENERATOR and getattr(jax.config, _COUNTED)
    return AVAILABLE and default and n > 0 and k <= _MOST_EXPERTS


class _How(NamedTuple):
    """What is known about an estimate when it is traced."""

    precision: Precision
    scored: bool = False


def compiled_estimates(
    logits: Array,
    assignment: Array,
    present: Array,
    capacity: Array,
    words: Array,
    precision: Precision,
) -> tuple[Array, Array]:
    """`estimate_many`, of what suits; with the words `(batch or 1, 2)` of a key."""
    return _estimates(logits, (assignment, present, capacity, words), _How(precision))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _estimates(logits: Array, rest: tuple[Array, ...], how: _How) -> tuple[Array, Array]:
    value, error = _bind(logits, rest, how)
    return value, error


@_estimates.defjvp
def _estimates_jvp(how: _How, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    value, error, score = _estimates_and_scores(*primals, how._replace(scored=True))
    return (value, error), (jnp.sum(score * tangents[0], axis=(1, 2)), jnp.zeros_like(error))


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _estimates_and_scores(logits: Array, rest: tuple[Array, ...], how: _How) -> tuple[Array, Array, Array]:
    """And the gradients of the values in the logits `(batch, n, k)`."""
    value, error, score = _bind(logits, rest, how)
    return value, error, score


@_estimates_and_scores.defjvp
def _estimates_and_scores_jvp(how: _How, primals: tuple, tangents: tuple) -> tuple[tuple, tuple]:
    logits, rest = primals
    value, error, score = _estimates_and_scores(logits, rest, how)
    _, turned = jax.jvp(lambda logits: _in_jax(logits, *rest, how=how)[2], (logits,), (tangents[0],))
    return (value, error, score), (jnp.sum(score * tangents[0], axis=(1, 2)), jnp.zeros_like(error), turned)


def _bind(logits: Array, rest: tuple[Array, ...], how: _How) -> list[Array]:
    given = (logits, *rest)
    return vary_like(given, _estimates_p.bind(*vary_like(given, given), how=how))


def _on_cpu(logits: Array, assignment: Array, *rest: Array, how: _How) -> list[Array]:
    target = (LOG_PROB_AND_SCORE if how.scored else LOG_PROB).format(bits=jnp.finfo(logits.dtype).bits)
    shapes = _shapes(logits, assignment, how)
    call = jax.ffi.ffi_call(target, [jax.ShapeDtypeStruct(shape, logits.dtype) for shape in shapes])
    num_draws, target_error, by_sampling = how.precision
    settings = {
        "chunks": np.int64(num_chunks(num_draws)),
        "target_error": np.float64(0 if target_error is None else target_error),
        "by_sampling": by_sampling,
    }
    return list(call(logits, assignment, *rest, **settings))


def _in_jax(
    logits: Array,
    assignment: Array,
    present: Array,
    capacity: Array,
    words: Array,
    *,
    how: _How,
) -> list[Array]:
    key = jax.random.wrap_key_data(words, impl=_GENERATOR)
    if not how.scored:
        return list(estimate_many(logits, assignment, present, capacity, key, how.precision))
    each = jnp.broadcast_to(logits, (assignment.shape[0], *logits.shape[1:]))

    def total(each: Array) -> tuple[Array, tuple[Array, Array]]:
        value, error = estimate_many(each, assignment, present, capacity, key, how.precision)
        return jnp.sum(value), (value, error)

    score, (value, error) = jax.grad(total, has_aux=True)(each)
    return [value, error, score]


def _shapes(logits: Any, assignment: Any, how: _How) -> list[tuple[int, ...]]:
    batch = assignment.shape[0]
    return [(batch,), (batch,), *([(batch, *logits.shape[1:])] if how.scored else [])]


def _abstract(logits: Any, assignment: Any, *_: Any, how: _How) -> list[ShapedArray]:
    return [ShapedArray(shape, logits.dtype) for shape in _shapes(logits, assignment, how)]


def _eager(*args: Array, how: _How) -> list[Array]:
    return (_on_cpu if jax.default_backend() == "cpu" else _in_jax)(*args, how=how)


def _batched(args: tuple[Array, ...], axes: tuple[int | None, ...], *, how: _How) -> tuple[list[Array], list[int]]:
    """A batch of batches is a larger batch."""
    size = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
    mapped = [x[None] if axis is None else jnp.moveaxis(x, axis, 0) for x, axis in zip(args, axes, strict=True)]
    batch = mapped[1].shape[1]

    def joined(number: int, x: Array) -> Array:
        if x.shape[:2] == (1, 1) and number != 1:
            return x[0]  # one for all problems
        return jnp.broadcast_to(x, (size, batch, *x.shape[2:])).reshape(size * batch, *x.shape[2:])

    out = _estimates_p.bind(*(joined(number, x) for number, x in enumerate(mapped)), how=how)
    return [x.reshape(size, batch, *x.shape[1:]) for x in out], [0] * len(out)


# Of logits, assignments (batch, n), masks, capacities, and the words of keys: of all but the assignments there are as
# many, or one for all.
_estimates_p = Primitive("gumbel_moe_log_prob")
_estimates_p.multiple_results = True
_estimates_p.def_abstract_eval(_abstract)
_estimates_p.def_impl(_eager)
batching.primitive_batchers[_estimates_p] = _batched
mlir.register_lowering(_estimates_p, mlir.lower_fun(_in_jax, multiple_results=True))
mlir.register_lowering(_estimates_p, mlir.lower_fun(_on_cpu, multiple_results=True), platform="cpu")
