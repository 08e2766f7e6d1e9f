"""Outcomes to rows: medians over starts."""

from typing import Any

import numpy as np

from inference.shared.table import Row
from inference.training.starts import Outcome
from inference.training.tasks import Task


def row_of(task: Task, outcome: Outcome) -> Row:
    """Medians over starts at the end of training; None where a figure has no meaning or is not finite.

    A start that diverged counts as infinitely bad. `skipped`, `max_load` and `max_demand` are means over starts and the
    last batches; the last two in multiples of the balanced load `n / k`.
    """
    row: Row = {
        "data": outcome.data,
        "router": outcome.router,
        "kind": outcome.kind,
        "starts": len(outcome.last("true_loss")),
        "steps": outcome.at[-1],
    }
    if task.experts_per_datapoint > 1:
        row |= {"experts_per_datapoint": task.experts_per_datapoint, "batch_size": task.data.batch_size}
    if (below := task.evaluation.solved_below) is not None:
        row["solved"] = float(np.mean(outcome.last("argmax_loss") < below))
        row["own_solved"] = float(np.mean(outcome.last("own_loss") < below))
    for name in ("true_loss", "own_loss", "argmax_loss"):
        row[f"{name}_median"] = _finite(np.median(_diverged_as(np.inf, outcome.last(name))))
    if "training_loss" in outcome.points[-1]:
        row["training_loss_median"] = _finite(np.median(_diverged_as(np.inf, outcome.last("training_loss"))))
    row["true_loss_quartiles"] = [_finite(q) for q in quartiles(outcome.last("true_loss"))]
    for name in ("accuracy", "argmax_accuracy", "log_likelihood", "mixture_log_likelihood"):
        if name in outcome.points[-1]:
            row[f"{name}_median"] = _finite(np.median(_diverged_as(-np.inf, outcome.last(name))))
    for name in ("skipped", "max_load", "max_demand"):
        row[name] = _finite(np.mean(outcome.late(name)))
    row["compile_seconds"] = round(outcome.compile_seconds, 2)
    row["run_seconds"] = round(outcome.run_seconds, 2)
    return row


def quartiles(values: np.ndarray) -> tuple[float, float]:
    """Lower and upper, at actual values, so that an infinite one does no harm."""
    low, high = np.quantile(_diverged_as(np.inf, values), [0.25, 0.75], method="nearest")
    return float(low), float(high)


def _diverged_as(worst: float, values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, worst)


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
