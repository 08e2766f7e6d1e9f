"""Checks of arguments that several diagnostics take."""

from gumbel_moe._checks import check_positive_int


def check_rate(false_fail_rate: float) -> float:
    """A probability, neither 0 nor 1."""
    if not 0 < false_fail_rate < 1:
        raise ValueError(f"false_fail_rate must be between 0 and 1, got {false_fail_rate!r}")
    return float(false_fail_rate)


def check_draws(draws: int, least: int) -> int:
    """A number of draws."""
    number = check_positive_int("draws", draws)
    if number < least:
        raise ValueError(f"draws must be at least {least}, got {number}")
    return number
