"""The pictures: what was fitted, how the bound rose, who computes how much."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.lines import Line2D

from inference.latent_routing._fit import Fit
from inference.shared.style import (
    FAINT,
    INK,
    REGIONS,
    bar_legend,
    by_rank,
    curve_legend,
    draw_bars,
    draw_curve,
    panels,
    save,
)
from models import latent_routing as lr
from models.data import load_halves

# Eight experts, told apart by readers with any colour vision as far as eight can be (Okabe and Ito).
_EXPERTS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a900", "#555555")
_REACH = 2.8


def draw_latent_fit(fit: Fit, start: int, seed: int, images: int, path: Path) -> Path:
    """One start: whom the gate prefers where, what the experts predict, the guide against the posterior, the digits."""
    halves = load_halves(seed, images)
    params = {name: jnp.asarray(param[start]) for name, param in fit.params.items()}
    x, y = halves.train_x, halves.train_y
    posterior = np.asarray(lr.responsibilities(params, x, y))
    expert, k = posterior.argmax(axis=1), posterior.shape[1]
    figure = Figure(figsize=(12.4, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 1, height_ratios=(2.4, 1), hspace=0.08)
    plane, lines, guide = _side_by_side(figure, grid[0], 3)
    _plane(plane, params, np.asarray(x), posterior)
    means = np.column_stack([np.ones(len(x)), np.asarray(x)]) @ np.asarray(params["experts"])
    predicted = means[np.arange(len(x)), expert]
    lines.plot([-_REACH, _REACH], [-_REACH, _REACH], color=FAINT, linewidth=1, zorder=1)
    lines.scatter(predicted, np.asarray(y), s=7, c=[_EXPERTS[j % 8] for j in expert], linewidths=0)
    lines.set(xlabel="predicted by the most responsible expert", ylabel="target (lower half)", title="experts")
    guess = np.exp(np.asarray(lr.log_q(params, x, y)))
    guide.plot([0, 1], [0, 1], color=FAINT, linewidth=1, zorder=1)
    colours = np.tile([_EXPERTS[j % 8] for j in range(k)], (len(x), 1))
    guide.scatter(posterior.ravel(), guess.ravel(), s=5, c=colours.ravel(), linewidths=0, alpha=0.6)
    guide.set(xlabel="exact responsibility", ylabel="guide's probability", title="guide")
    for ax, digit in zip(_side_by_side(figure, grid[1], k), np.argsort(-posterior.sum(axis=0)), strict=True):
        share = posterior[:, digit]
        mean = np.tensordot(share, halves.train_images, 1) / share.sum()
        ax.imshow(mean, cmap="Greys", vmin=0, vmax=1)
        ax.axhline(3.5, color=_EXPERTS[digit % 8], linewidth=1)
        ax.set(xticks=[], yticks=[])
        ax.set_title(f"{share.sum():.0f} images", fontsize=9, color=_EXPERTS[digit % 8], fontweight="bold")
        ax.spines[:].set(color=_EXPERTS[digit % 8], linewidth=2)
    for ax in (plane, lines, guide):
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=8, colors=INK)
    name = fit.router.replace("_", " ")
    figure.suptitle(f"{name}: the fit, and the mean image of each expert's responsibility", fontsize=13, color=INK)
    return save(figure, [], path)


def _side_by_side(figure: Figure, place: SubplotSpec, number: int) -> list[Axes]:
    inside = place.subgridspec(1, number)
    return [figure.add_subplot(inside[0, column]) for column in range(number)]


def _plane(ax: Axes, params: lr.Params, x: np.ndarray, posterior: np.ndarray) -> None:
    """Regions where the gate prefers an expert; the datapoints in the colour of the most responsible one."""
    side = np.linspace(-_REACH, _REACH, 200)
    across, up = np.meshgrid(side, side)
    inputs = np.stack([np.ones(across.size), across.ravel(), up.ravel()], axis=1)
    preferred = (inputs @ np.asarray(params["gate"])).argmax(axis=1).reshape(across.shape)
    colours = ListedColormap(_EXPERTS)
    extent = (-_REACH, _REACH, -_REACH, _REACH)
    ax.imshow(preferred % 8, extent=extent, origin="lower", cmap=colours, vmin=0, vmax=7, alpha=0.25, **REGIONS)
    ax.scatter(*x.T, s=7, c=[_EXPERTS[j % 8] for j in posterior.argmax(axis=1)], linewidths=0)
    ax.set(xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), xlabel="first component of the upper half")
    ax.set(ylabel="second component", title="gate (ground) and responsibility (points)")


def draw_bounds(fits: list[Fit], path: Path) -> Path:
    """The exact ELBO over the steps, median and middle half; all other medians behind it."""
    figure, axes = panels(fits, "latent routing: the ELBO, exact", "training steps")
    medians = [np.median(fit.curves["elbo"], axis=0) for fit in fits]
    for ax, fit, median in zip(axes, fits, medians, strict=True):
        others = [(other.at, values) for other, values in zip(fits, medians, strict=True)]
        draw_curve(ax, fit.kind, fit.at, median, np.quantile(fit.curves["elbo"], [0.25, 0.75], axis=0), others)
    best = max(median[-1] for median in medians)
    axes[0].set_ylim(best - 0.35, best + 0.03)
    figure.supylabel("nats per image", fontsize=10)
    handles = [
        Line2D([], [], color=INK, linewidth=1.8, label="median over starts and splits"),
        *curve_legend("middle half", "medians of the others"),
    ]
    return save(figure, handles, path)


def draw_shares(fits: list[Fit], fair: float, path: Path) -> Path:
    """One pass: experts from the most wanted to the least of each start, means over starts."""
    figure, axes = panels(fits, "latent routing: images for each expert in one pass", "expert, from the most wanted")
    highest = 0.0
    for ax, fit in zip(axes, fits, strict=True):
        places = draw_bars(ax, fit.kind, fit.wanted, fit.demand, fit.load, fair)
        demand, wanted = by_rank(fit.wanted, fit.demand, fit.wanted)
        ax.plot(places, wanted, color=INK, marker="_", markersize=11, linewidth=0)
        highest = max(highest, demand.max(), wanted.max())
    axes[0].set_ylim(0, 1.08 * highest)
    figure.supylabel("images", fontsize=10)
    handles = bar_legend("drawn, but skipped", "fair share")
    mark = Line2D([], [], color=INK, marker="_", markersize=11, linewidth=0, label="wanted: expected under the guide")
    return save(figure, [*handles[:2], mark, handles[2]], path)
