"""All assignments of a tiny problem, and their probabilities: a truth to compare with."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._checks import check_capacity, check_matrix, check_positive_int
from gumbel_moe.distributions._matching_log_prob import DEFAULT_DRAWS, matching_log_prob

_MOST = 1_000_000


def enumerate_assignments(num_datapoints: int, capacity: ArrayLike, num_experts: int | None = None) -> Array:
    """All assignments of `num_datapoints` to experts in which no expert holds more than its capacity.

    **Arguments:**

    - `num_datapoints`: `n`.
    - `capacity`: `(k,)` ints, at least 1; or an int, with `num_experts`.
    - `num_experts`: `k`, needed only where `capacity` does not show it.

    **Returns:** `(outcomes, n)` int32, in lexicographic order; no row where the capacities cannot hold `n`.

    **Raises:** `ValueError` when an argument is not positive, `num_experts` is missing or contradicts `capacity`, or
    there are more than a million assignments.

    ```python
    >>> from gumbel_moe.distributions import enumerate_assignments
    >>> enumerate_assignments(3, (2, 1)).tolist()
    [[0, 0, 1], [0, 1, 0], [1, 0, 0]]

    ```
    """
    n = check_positive_int("num_datapoints", num_datapoints)
    if num_experts is None:
        if np.ndim(capacity) != 1:
            raise ValueError(f"num_experts must be given where capacity is no sequence, got capacity {capacity!r}")
        num_experts = len(np.asarray(capacity))
    places = np.asarray(check_capacity(capacity, check_positive_int("num_experts", num_experts)))
    rows, loads = np.zeros((1, 0), np.int32), np.zeros((1, num_experts), np.int32)
    for _ in range(n):
        row, expert = np.nonzero(loads < places)
        if len(row) > _MOST:
            raise ValueError(f"{n} datapoints and capacity {places.tolist()} have more than {_MOST} assignments")
        rows = np.column_stack([rows[row], expert.astype(np.int32)])
        loads = loads[row]
        loads[np.arange(len(expert)), expert] += 1
    return jnp.asarray(rows)


def outcome_probabilities(
    logits: ArrayLike, capacity: ArrayLike, *, num_draws: int = DEFAULT_DRAWS, target_error: float | None = None
) -> Array:
    """The probability under Gumbel-Matching of every assignment, in the order of `enumerate_assignments`.

    **Arguments:** `logits` of shape `(n, k)`, and the others as for
    [`matching_log_prob`][gumbel_moe.distributions.matching_log_prob].

    **Returns:** `(outcomes,)`. They sum to 1 up to the error of each: rounding and less than 1e-5 for `k <= 3`, about
    the standard error of `log_prob` for more experts.

    **Raises:** as `matching_log_prob`, and `ValueError` for logits that are no matrix or for more than a million
    assignments.

    ```python
    >>> import jax.numpy as jnp
    >>> from gumbel_moe.distributions import outcome_probabilities
    >>> probs = outcome_probabilities(jnp.array([[1.0, 0.0], [0.0, 0.0]]), capacity=1)  # of (0, 1) and (1, 0)
    >>> print(f"{probs[0]:.4f} {probs[1]:.4f}")
    0.6613 0.3387

    ```
    """
    logits = check_matrix("logits", logits, exact_rank=2)
    values = enumerate_assignments(logits.shape[0], capacity, logits.shape[1])
    return jnp.exp(matching_log_prob(logits, values, capacity, num_draws=num_draws, target_error=target_error).value)
