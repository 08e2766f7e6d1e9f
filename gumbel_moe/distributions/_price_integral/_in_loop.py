"""Parts of an array that are taken inside a loop, and stay there."""

from jax import Array
from jax.lax import optimization_barrier


def in_loop(whole: Array, changing: Array) -> Array:
    """`whole`, of which the compiler does not know that it is the same in every round, as `changing` is not.

    Otherwise it moves parts such as `whole[2:5]` out of the loop. They are read where they are used and cost nothing;
    outside, every one is a kernel more, and a kernel takes more time to compile than all these parts to be read.
    """
    return optimization_barrier((whole, changing))[0]
