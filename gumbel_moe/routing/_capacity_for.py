"""Capacities from a capacity factor."""

import math
from fractions import Fraction

from gumbel_moe._checks import check_positive, check_positive_int


def capacity_for(num_datapoints: int, num_experts: int, factor: float = 1.0) -> int:
    r"""The capacity $\lceil f n / k \rceil$ of `k` experts for `n` datapoints at a capacity factor `f`, rounded up.

    With `factor` at least 1 there is room for everybody, as Gumbel-Matching and BASE need. The factor is taken as it is
    written: 1.1 for 100 datapoints and 10 experts gives 11, though the float 1.1 is a little more than that.

    **Arguments:**

    - `num_datapoints`: `n`, at least 1; with padding, those that take part.
    - `num_experts`: `k`, at least 1.
    - `factor`: positive and finite.

    **Returns:** an int, at least 1.

    **Raises:** `ValueError` when an argument is not positive.

    ```python
    >>> from gumbel_moe.routing import capacity_for
    >>> capacity_for(100, 8), capacity_for(100, 8, factor=1.25)
    (13, 16)

    ```

    Reference: W. Fedus, B. Zoph, N. Shazeer, *Switch Transformers: Scaling to Trillion Parameter Models with Simple and
    Efficient Sparsity*, arXiv 2101.03961 (2021), equation 3; rounding up is this library's.
    """
    n, k = check_positive_int("num_datapoints", num_datapoints), check_positive_int("num_experts", num_experts)
    return math.ceil(Fraction(repr(check_positive("factor", factor))) * n / k)
