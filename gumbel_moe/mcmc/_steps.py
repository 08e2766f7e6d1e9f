"""Swaps and moves under a surrogate: a reversible chain on the assignments in the support."""

import jax
import jax.numpy as jnp
from jax import Array

from gumbel_moe._varying import vary_like
from gumbel_moe.mcmc._surrogate import Surrogate


def run_steps(key: Array, surrogate: Surrogate, code: Array, load: Array, num_steps: int) -> tuple[Array, Array]:
    """Codes `(n,)` and loads `(k,)` after `num_steps` Metropolis steps, each a swap or a move of random datapoints.

    Both proposals are symmetric. A swap exchanges the codes of two datapoints. A move sends one to another expert:
    without skipping, to a free place; with it, from an expert that skipped nobody else on its account, or as one of
    the skipped, to be kept where there is room and skipped where there is none, which is the way back as well.
    """
    n = code.shape[0]
    k = surrogate.capacity.shape[0]
    keys = jax.random.split(key, 5)
    shape = (num_steps,)
    first = jax.random.randint(keys[0], shape, 0, n)
    second = (first + jax.random.randint(keys[1], shape, 1, max(n, 2))) % n
    shift = jax.random.randint(keys[2], shape, 1, max(k, 2))
    log_uniform = jnp.log(jax.random.uniform(keys[3], shape))
    with_moves = surrogate.skips | (jnp.sum(surrogate.capacity) > n)
    moves = jax.random.bernoulli(keys[4], 0.5, shape) & with_moves & (k > 1)

    def step(t: int, state: tuple[Array, Array]) -> tuple[Array, Array]:
        code, load = state
        i, other = first[t], second[t]
        old, partner = code[i], code[other]
        source = old % k
        target = (source + shift[t]) % k
        room = load[target] < surrogate.capacity[target]
        if surrogate.skips:
            may_move = (old >= k) | (load[source] <= surrogate.capacity[source])
            arrival = jnp.where(room, target, k + target)
        else:
            may_move, arrival = room, target
        new = jnp.where(moves[t], arrival, partner)

        gain = surrogate.table[i, new] - surrogate.table[i, old]
        swapped = surrogate.table[other, old] - surrogate.table[other, partner]
        lighter = surrogate.loads[source, load[source] - 1] - surrogate.loads[source, load[source]]
        heavier = surrogate.loads[target, load[target] + 1] - surrogate.loads[target, load[target]]
        log_ratio = gain + jnp.where(moves[t], lighter + heavier, swapped)
        accept = (log_uniform[t] < log_ratio) & (may_move | ~moves[t])

        moved = (accept & moves[t]).astype(load.dtype)
        load = load.at[source].add(-moved).at[target].add(moved)
        code = code.at[i].set(jnp.where(accept, new, old))
        code = code.at[other].set(jnp.where(accept & ~moves[t], old, code[other]))
        return code, load

    return jax.lax.fori_loop(0, num_steps, step, vary_like((key, surrogate), (code, load)))
