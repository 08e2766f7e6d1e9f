"""The picture that opens the README: who handles whom under a capacity, and whose gradient is wrong by how much.

python -m benchmarks.readme_picture [--images docs/images]

Writes readme_light.png and readme_dark.png, for pages of either colour.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpecFromSubplotSpec

from gumbel_moe.diagnostics import EstimatorTable, check_all
from gumbel_moe.diagnostics.pictures import write_png
from gumbel_moe.estimators import exact_loss, score_function_loss
from gumbel_moe.routing import ROUTERS, Routing, make_router

N, K, CAPACITY = 48, 3, 16
DRAWN = ("independent", "skip", "gumbel_matching")
TESTED = (*DRAWN, "skip_uncorrected", "gumbel_matching_uncorrected", "switch", "base", "sinkhorn")
_SAID = {
    "independent": "independent draws",
    "skip": "skip",
    "gumbel_matching": "Gumbel-Matching",
    "skip_uncorrected": "skip,\nno weights",
    "gumbel_matching_uncorrected": "Gumbel-Matching,\nno weights",
    "switch": "Switch",
    "base": "BASE",
    "sinkhorn": "Sinkhorn",
}
_UNDER = {
    "independent": "one expert is overrun",
    "skip": "surplus left out (crosses)",
    "gumbel_matching": "every place is filled",
}
_EXPERTS = ("#3b8fd0", "#e0752d", "#1fa37a")
_GOOD, _BAD = "#3b8fd0", "#e0752d"


class Look(NamedTuple):
    """Colours of a page."""

    page: str
    ink: str
    faint: str


LOOKS = {"light": Look("#ffffff", "#24292f", "#c4c9cf"), "dark": Look("#0d1117", "#e6edf3", "#484f58")}


class Mixture(NamedTuple):
    """Three linear experts on points of a plane, and a linear router that prefers the first of them."""

    x: Array
    """`(N, 2)`."""
    y: Array
    """`(N,)`."""
    params: dict[str, Array]

    def logits(self, params: dict[str, Array]) -> Array:
        """`(N, K)`."""
        return self.x @ params["router"] + params["bias"]

    def outputs(self, params: dict[str, Array]) -> Array:
        """`(N, K)`."""
        return self.x @ params["experts"]

    def exact(self) -> dict[str, Array]:
        """The gradient of the mean expected loss, by enumeration."""

        def loss(params: dict[str, Array]) -> Array:
            return exact_loss(self.logits(params), (self.outputs(params) - self.y[:, None]) ** 2)

        return jax.grad(loss)(self.params)

    def estimator(self, name: str) -> Callable[[Array], Any]:
        """The gradient that the router of this name trains with: its weighted loss, or that of its gated output."""
        router = make_router(name, CAPACITY)

        def loss(params: dict[str, Array], key: Array) -> Array:
            routing: Routing = router(key, self.logits(params))
            own = jnp.take_along_axis(self.outputs(params), routing.expert[:, None], axis=1)[:, 0]
            if ROUTERS[name].kind == "biased":
                return jnp.mean((routing.gate * routing.kept * own - self.y) ** 2)
            return score_function_loss(routing, (own - self.y) ** 2)

        return jax.jit(lambda key: jax.grad(loss)(self.params, key))


def mixture(seed: int = 0) -> Mixture:
    """Points around the middle, in three directions for three experts."""
    keys = jax.random.split(jax.random.key(seed), 3)
    angles = 2 * jnp.pi * jnp.arange(K) / K + jnp.pi / 2
    x = jax.random.normal(keys[0], (N, 2))
    params = {
        "router": 1.6 * jnp.stack([jnp.cos(angles), jnp.sin(angles)]),
        "bias": jnp.array([0.9, 0.0, 0.0]),
        "experts": jax.random.normal(keys[1], (2, K)),
    }
    return Mixture(x, jax.random.normal(keys[2], (N,)), params)


def draw(given: Mixture, table: EstimatorTable, look: Look, path: Path) -> None:
    """Three routings of the same points above their loads, and the biases beside them."""
    figure = Figure(figsize=(10.8, 4.2), layout="constrained", facecolor=look.page)
    FigureCanvasAgg(figure)
    halves = figure.add_gridspec(1, 2, width_ratios=(1.75, 1), wspace=0.06)
    left = GridSpecFromSubplotSpec(2, len(DRAWN), halves[0], height_ratios=(3.4, 1))
    for place, name in enumerate(DRAWN):
        routing = make_router(name, CAPACITY)(jax.random.key(3), given.logits(given.params))
        points, loads = figure.add_subplot(left[0, place]), figure.add_subplot(left[1, place])
        points.set_title(f"{_SAID[name]}:\n{_UNDER[name]}", fontsize=11, color=look.ink)
        _points(points, given, routing, look)
        _loads(loads, routing, look, labelled=place == 0)
    _biases(figure.add_subplot(halves[1]), table, look)
    for ax in figure.axes:
        ax.set_facecolor(look.page)
    write_png(figure, path, dpi=150)


def _points(ax: Axes, given: Mixture, routing: Routing, look: Look) -> None:
    x, expert, kept = np.asarray(given.x), np.asarray(routing.expert), np.asarray(routing.kept)
    for j, colour in enumerate(_EXPERTS):
        has, lost = (expert == j) & kept, (expert == j) & ~kept
        ax.scatter(*x[has].T, s=42, color=colour, linewidth=0)
        ax.scatter(*x[lost].T, s=34, color=colour, marker="x", linewidth=1.4)
    ax.set(xticks=[], yticks=[], aspect="equal")
    ax.spines[:].set_color(look.faint)


def _loads(ax: Axes, routing: Routing, look: Look, labelled: bool) -> None:
    expert, kept = np.asarray(routing.expert), np.asarray(routing.kept)
    handled = [int(((expert == j) & kept).sum()) for j in range(K)]
    sent = [int((expert == j).sum()) for j in range(K)]
    ax.barh(range(K), sent, color="none", edgecolor=_EXPERTS, hatch="/////", linewidth=1, height=0.7)
    ax.barh(range(K), handled, color=_EXPERTS, height=0.7)
    ax.axvline(CAPACITY, color=look.ink, linewidth=1.2, linestyle="--")
    if labelled:
        ax.annotate("capacity", (CAPACITY - 0.4, K - 0.55), fontsize=9, color=look.ink, ha="right", va="bottom")
    ax.set_xlim(0, 31)
    ax.set_ylim(-0.6, K - 0.1)
    ax.set_yticks([])
    ax.set_xticks([0, CAPACITY, 30])
    ax.tick_params(colors=look.ink, labelsize=9)
    ax.set_xlabel("points of each expert", fontsize=9, color=look.ink)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[:].set_color(look.faint)


def _biases(ax: Axes, table: EstimatorTable, look: Look) -> None:
    summary = table.summary
    place = np.arange(len(summary))[::-1]
    passed = summary["passed"].to_numpy(bool)
    bias = np.where(passed, 0, summary["relative_bias"])
    ax.barh(place, bias, color=_BAD, height=0.62)
    limits = summary["relative_detectable_bias"]
    for at, good, value, limit in zip(place, passed, bias, limits, strict=True):
        said = f"none found, {limit:.1%} detectable" if good else f"{value:.0%}"
        ax.annotate(
            said,
            (value, at),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            color=_GOOD if good else look.ink,
        )
    ax.set_yticks(place, [_SAID[str(name)] for name in summary.index])
    ax.set_xlim(0, 1.18 * float(bias.max()))
    ax.set_xticks([])
    ax.tick_params(colors=look.ink, labelsize=10, length=0)
    ax.spines[["top", "right", "bottom"]].set_visible(False)
    ax.spines[:].set_color(look.faint)
    ax.set_title("bias of the gradient trained with,\nover the norm of the true one", fontsize=11, color=look.ink)


def main() -> None:
    """Test the routers, draw both pictures."""
    parser = argparse.ArgumentParser(description="The picture that opens the README.")
    parser.add_argument("--images", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    given = mixture()
    estimators = {name: given.estimator(name) for name in TESTED}
    table = check_all(estimators, given.exact(), jax.random.key(1), draws=5000)
    print(table)
    for name, look in LOOKS.items():
        draw(given, table, look, args.images / f"readme_{name}.png")


if __name__ == "__main__":
    main()
