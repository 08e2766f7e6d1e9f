"""The table of a comparison, and its legend."""

from collections.abc import Iterable

from inference.shared.table import Column, Row, aligned_table
from inference.training.methods import METHODS

_COLUMNS: tuple[Column, ...] = (
    ("router", "router", "s"),
    ("kind", "kind", "s"),
    ("solved", "solved", ".0%"),
    ("own_solved", "own solved", ".0%"),
    ("true_loss_median", "true loss", ".4f"),
    ("training_loss_median", "training loss", ".4f"),
    ("own_loss_median", "own loss", ".4f"),
    ("accuracy_median", "accuracy", ".1%"),
    ("argmax_accuracy_median", "argmax acc.", ".1%"),
    ("log_likelihood_median", "log-lik.", ".3f"),
    ("mixture_log_likelihood_median", "mixture log-lik.", ".3f"),
    ("skipped", "skipped", ".1%"),
    ("max_load", "max load", ".2f"),
    ("max_demand", "max demand", ".2f"),
)

_MEANING = {
    "kind": "weighted: unbiased draws; uncorrected: the same draws without weights; biased: by design; "
    "reference: the exact gradient, all experts on everything (exact), or no mixture",
    "solved": "fraction of starts whose most probable expert alone gives a mean squared error below 0.01",
    "own_solved": "the same threshold on own loss",
    "true_loss_median": "the objective: median over starts of the test mean of sum_j p_ij f_ij, all experts, no limit",
    "training_loss_median": "the same on all training data: what the gradients estimate, over-fitting or not",
    "own_loss_median": "median test loss of the method's own prediction (below)",
    "accuracy_median": "median test accuracy of the method's own prediction (below)",
    "argmax_accuracy_median": "median test accuracy of the most probable expert's output, no gate",
    "log_likelihood_median": "median mean test log-likelihood, nats, of the method's own predictive distribution; "
    "for drawn experts the mixture by p",
    "mixture_log_likelihood_median": "the same of all experts mixed by p, enumerated",
    "skipped": "fraction of the datapoints of a training batch that no expert computed, end of training",
    "max_load": "largest number of datapoints computed by one expert in a training batch, over the mean n / k",
    "max_demand": "the same of the datapoints that the router sent there",
}


def results_table(data: str, rows: list[Row]) -> str:
    """The rows of one problem."""
    rows = [row for row in rows if row["data"] == data]
    trained = [row for row in rows if row["kind"] != "reference"]
    extent = f"{trained[0]['starts']} starts, {trained[0]['steps']} steps" if trained else "references"
    return aligned_table(f"{data}: {extent}", _columns(rows), rows)


def legend(rows: list[Row]) -> str:
    """What the columns mean, and how every method predicts."""
    lines = [f"{heading}: {_MEANING[key]}" for key, heading, _ in _columns(rows) if key in _MEANING]
    ways = _own_ways(dict.fromkeys(row["router"] for row in rows))
    return "\n".join([*lines, "own predictions:", *(f"  {line}" for line in ways)])


def _columns(rows: list[Row]) -> list[Column]:
    """Those in which a row has something."""
    return [column for column in _COLUMNS if any(row.get(column[0]) is not None for row in rows)]


def _own_ways(names: Iterable[str]) -> list[str]:
    """One line for every way of predicting, with the routers that have it."""
    ways: dict[str, list[str]] = {}
    for name in names:
        if name in METHODS:
            ways.setdefault(METHODS[name].own_way, []).append(name)
    return [f"{', '.join(routers)}: {way}" for way, routers in ways.items()]
