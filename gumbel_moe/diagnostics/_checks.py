"""Checks of arguments that several diagnostics take."""


def check_rate(false_fail_rate: float) -> float:
    """A probability, neither 0 nor 1."""
    if not 0 < false_fail_rate < 1:
        raise ValueError(f"false_fail_rate must be between 0 and 1, got {false_fail_rate!r}")
    return float(false_fail_rate)
