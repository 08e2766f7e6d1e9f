"""Families of scores for the matching."""

import numpy as np

FAMILIES = ("random", "random3", "skewed", "ties", "clustered")


def family(name: str, n: int, k: int, seed: int) -> np.ndarray:
    """Logits plus Gumbel noise, or harder scores, `(n, k)` float32."""
    rng = np.random.default_rng(seed)
    normal, gumbel = rng.normal(size=(n, k)), rng.gumbel(size=(n, k))
    match name:
        case "random":
            scores = normal + gumbel
        case "random3":
            scores = 3 * normal + gumbel
        case "skewed":
            scores = normal + 3 * rng.normal(size=k) + gumbel
        case "ties":
            scores = rng.integers(0, 10, size=(n, k))
        case "clustered":
            scores = rng.normal(size=(10, k))[rng.integers(0, 10, size=n)] + 1e-3 * normal
        case _:
            raise ValueError(f"family must be one of {FAMILIES}, got {name!r}")
    return np.asarray(scores, np.float32)
