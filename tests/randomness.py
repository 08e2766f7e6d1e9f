"""What tests of randomness share: the rate at which right programs fail, z-scores of means, and chi-square."""

import jax
import numpy as np
from scipy import stats

FALSE_FAIL_RATE = 1e-6  # of every test of randomness; seeds are fixed, so that it is spent once


def z_limit(count):
    """What the largest of `count` two-sided z-scores stays below but for the false-fail rate, by Bonferroni."""
    return stats.norm.isf(FALSE_FAIL_RATE / (2 * count))


def largest_z(drawn, exact, rounding=0.0):
    """Largest z-score of the means of `drawn`, a tree with draws along the first axes, against `exact`, and its limit.

    `rounding` is an error relative to `1 + |exact|`, for means in which nothing is left to chance.
    """
    z = []
    for sample, truth in zip(jax.tree.leaves(drawn), jax.tree.leaves(exact), strict=True):
        sample, truth = np.asarray(sample, np.float64), np.asarray(truth, np.float64)
        error = sample.std(axis=0) / np.sqrt(len(sample)) + rounding * (1 + np.abs(truth))
        with np.errstate(divide="ignore"):  # a mean that is off without any spread is off by infinitely many errors
            z.append(np.ravel(np.abs(sample.mean(axis=0) - truth) / error))
    z = np.concatenate(z)
    return z.max(), z_limit(z.size)


def chisquare_p_value(samples, values, probs):
    """P-value of the frequencies of `samples` among `values`; outcomes expected fewer than 10 times are pooled."""
    samples, values = np.asarray(samples), np.asarray(values)
    codes = {value.tobytes(): index for index, value in enumerate(values.astype(samples.dtype))}
    counts = np.zeros(len(values))
    unique, number = np.unique(samples, axis=0, return_counts=True)
    for value, times in zip(unique, number, strict=True):
        counts[codes[value.tobytes()]] += times
    expected = np.asarray(probs, np.float64) * len(samples)
    common = expected >= 10
    counts = np.append(counts[common], counts[~common].sum())
    expected = np.append(expected[common], expected[~common].sum())
    if expected[-1] == 0:
        assert counts[-1] == 0
        counts, expected = counts[:-1], expected[:-1]
    return stats.chisquare(counts, expected * (counts.sum() / expected.sum())).pvalue
