"""Products as an accelerator computes them: float32 inputs of every product that asks for no precision lose mantissa.

TF32 keeps 10 bits of it, bfloat16 7. What asks for `Precision.HIGHEST` (or names an algorithm) is left alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

TF32, BFLOAT16 = 10, 7
_PRODUCTS = ("dot_general", "conv_general_dilated")


def with_mantissa(function: Callable[..., Any], bits: int) -> Callable[..., Any]:
    """`function` of arrays, with `bits` bits of mantissa in the inputs of its products of default precision.

    It is traced anew at every call, down to the bodies of its loops and branches, and can be jitted itself. Derivatives
    are those of the inside: `with_mantissa(jax.grad(f), bits)`, not the other way round.
    """

    def coarse(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        flat = jax.make_jaxpr(lambda *x: function(*jax.tree.unflatten(tree, x)), return_shape=True)
        program, shape = flat(*leaves)
        return jax.tree.unflatten(jax.tree.structure(shape), _evaluate(program, bits, leaves))

    return coarse


def default_products(function: Callable[..., Any], *args: Any) -> int:
    """How many products of `function` at `args` ask for no precision and have float32 inputs or narrower ones."""
    return _count(jax.make_jaxpr(function)(*args).jaxpr)


def _is_default(equation: Any) -> bool:
    if equation.primitive.name not in _PRODUCTS:
        return False
    asked = equation.params["precision"]
    asked = asked if isinstance(asked, tuple) else (asked,)
    floats = all(jnp.issubdtype(x.aval.dtype, jnp.floating) and x.aval.dtype.itemsize <= 4 for x in equation.invars)
    return floats and any(one in (None, jax.lax.Precision.DEFAULT) for one in asked)


def _is_program(value: Any) -> bool:
    return isinstance(value, (core.ClosedJaxpr, core.Jaxpr))


def _count(program: Any) -> int:
    leaves = jax.tree.leaves([eqn.params for eqn in program.eqns], is_leaf=_is_program)
    inner = [getattr(leaf, "jaxpr", leaf) for leaf in leaves if _is_program(leaf)]
    return sum(map(_is_default, program.eqns)) + sum(map(_count, inner))


def _coarser(value: Any, bits: int) -> Any:
    """A part of an equation's parameters, made coarse if it is a program: the body of a loop, a branch."""
    if not _is_program(value):
        return value
    closed = value if isinstance(value, core.ClosedJaxpr) else core.ClosedJaxpr(value, ())
    inputs = [jax.ShapeDtypeStruct(x.aval.shape, x.aval.dtype) for x in closed.jaxpr.invars]
    coarse = jax.make_jaxpr(lambda *x: _evaluate(closed, bits, x))(*inputs)
    if isinstance(value, core.ClosedJaxpr):
        return coarse
    assert not coarse.consts, "an open program has no place for constants"
    return coarse.jaxpr


def _evaluate(program: Any, bits: int, inputs: Any) -> list[Any]:
    values = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    values |= zip(program.jaxpr.invars, inputs, strict=True)
    for equation in program.jaxpr.eqns:
        given = [x.val if isinstance(x, core.Literal) else values[x] for x in equation.invars]
        if _is_default(equation):
            given = [jax.lax.reduce_precision(jnp.float32(x), 8, bits).astype(x.dtype) for x in given]
        params = jax.tree.map(partial(_coarser, bits=bits), equation.params, is_leaf=_is_program)
        bound = equation.primitive.get_bind_params(params)
        functions, params = bound if isinstance(bound, tuple) else ((), bound)  # JAX of other ages
        out = equation.primitive.bind(*functions, *given, **params)
        values |= zip(equation.outvars, out if equation.primitive.multiple_results else [out], strict=True)
    return [x.val if isinstance(x, core.Literal) else values[x] for x in program.jaxpr.outvars]
