"""Pictures of the search for prices, computed in NumPy from the formulas of `docs/matching.md` alone.

    python -m benchmarks.matching_search [--out docs/images]

Writes `matching_search.png`: the way of the prices of three experts over the dual, and how many datapoints are still
undecided after every pass over the scores, for the families of the benchmark.
"""

import argparse
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from benchmarks.matching_problems import FAMILIES, family
from gumbel_moe.diagnostics.pictures import write_png

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = ("#0072b2", "#009e73", "#56b4e9", "#d55e00", "#cc79a7")  # Okabe and Ito
COOLING, NEAR, DAMPING, FIRST, COLDEST, MOST = 4.0, 6.0, 1.5, 0.05, 1e-6, 48


def cooled(scores: np.ndarray, capacity: int) -> list[tuple[np.ndarray, float, float]]:
    """Prices, temperature and undecided datapoints of every pass."""
    n, k = scores.shape
    below = scores - scores.max(axis=1, keepdims=True)
    prices = below.mean(axis=0) - below.mean(axis=0).min()
    spread = (below - below.mean(axis=0)).max(axis=1).mean()
    tau, passes = FIRST * spread, []
    while len(passes) < MOST:
        shifted = (scores - prices) / tau
        weights = np.exp(shifted - shifted.max(axis=1, keepdims=True))
        probs = weights / weights.sum(axis=1, keepdims=True)
        both = probs.T @ probs
        links = both * (1 - np.eye(k))
        surplus = probs.sum(axis=0) - capacity
        undecided = (links.sum() + np.abs(surplus).sum()) / 2
        passes.append((prices, tau / spread, undecided))
        if undecided <= k / 4 or tau <= COLDEST * spread:
            break
        hessian = np.diag(links.sum(axis=1) + 1e-6 * n / k) - links + n / k**2
        step = np.linalg.solve(hessian, surplus) * tau
        far = 2 * np.abs(step).max() / tau
        prices = prices + step * (1 if far <= NEAR else min(1, DAMPING * np.log1p(far) / far))
        tau = tau / COOLING if far <= NEAR else tau
    return passes


def draw_way(ax: Axes, width: float, scores: np.ndarray, title: str) -> None:
    """The dual of three experts around its minimum, and the way of the prices there."""
    capacity = len(scores) // 3
    way = np.array([prices - prices[0] for prices, _, _ in cooled(scores, capacity)])
    end = way[-1]
    x, y = (np.linspace(end[j] - width, end[j] + width, 241) for j in (1, 2))
    grid = np.stack(np.broadcast_arrays(0.0, x[None, :], y[:, None]), axis=-1)
    dual = np.max(scores - grid[..., None, :], axis=-1).sum(axis=-1) + capacity * grid.sum(axis=-1)
    height = dual - dual.min()
    levels = height.max() * np.linspace(0, 1, 13) ** 2
    ax.contourf(x, y, height, levels=levels, cmap="Greys", alpha=0.55)
    best = height <= 1e-9 * np.abs(dual).max()
    ax.contourf(x, y, best, levels=[0.5, 1.5], colors=["#009e73"], alpha=0.7)
    ax.plot(way[:, 1], way[:, 2], color="#0072b2", marker="o", markersize=4)
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel="price $u_1 - u_0$", ylabel="price $u_2 - u_0$")
    ax.set_title(title, fontsize=10)


def draw_progress(ax: Axes) -> None:
    """Undecided datapoints after every pass, one line per family."""
    for name, colour in zip(FAMILIES, COLOURS, strict=True):
        passes = cooled(family(name, 4096, 64, 0).astype(np.float64), 64)
        ax.plot([undecided for _, _, undecided in passes], color=colour, marker="o", markersize=3, label=name)
    ax.axhline(256, color="#888888", linestyle="--", linewidth=1)
    ax.text(9, 256 * 1.1, "half the size of the core", fontsize=8, color="#555555")
    ax.set(yscale="log", xlabel="passes over the scores", ylabel="datapoints in question", xlim=(-0.5, None))
    ax.set_title("4,096 datapoints, 64 experts", fontsize=10)
    ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0.3, 0))
    ax.grid(alpha=0.3)


def main() -> None:
    """Draw the picture."""
    parser = argparse.ArgumentParser(description="Pictures of the search for prices.")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    scores = family("skewed", 90, 3, 5).astype(np.float64)
    figure, panels = plt.subplots(1, 3, figsize=(12.5, 3.9))
    draw_way(panels[0], 1.5, scores, "90 datapoints, 3 experts")
    draw_way(panels[1], 0.12, scores, "the same, around the minimum")
    draw_progress(panels[2])
    figure.tight_layout()
    args.out.mkdir(parents=True, exist_ok=True)
    write_png(figure, args.out / "matching_search.png")


if __name__ == "__main__":
    main()
