"""Pictures of the integrand over prices, computed in NumPy from the formula of `docs/probability.md` alone.

    python -m benchmarks.price_integrand [--out docs/images]

Writes `price_integrand_2.png`, two experts and their one price difference beside Laplace's normal approximation, and
`price_integrand_3.png`, three experts and their two prices.
"""

import argparse
import itertools
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.contour import ContourSet
from matplotlib.figure import Figure

from gumbel_moe.diagnostics.pictures import write_png

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BLUE, ORANGE, INK, GREY = "#0072b2", "#d55e00", "#222222", "#bbbbbb"  # the first two from Okabe and Ito
LEVELS = (0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the maximum
SEED = 3


def log_integrand(logits: np.ndarray, assignment: np.ndarray, prices: np.ndarray, axes: list[int]) -> np.ndarray:
    """`log det L_F + sum_i log p[i, z_i]` at prices `(points, k)`, `F` the experts in `axes`."""
    n, k = logits.shape
    shifted = logits - prices[:, None]
    log_p = shifted - np.logaddexp.reduce(shifted, axis=2, keepdims=True)
    member = np.eye(k)[assignment]
    rates = np.einsum("ip,gij->gpj", member, np.exp(log_p))
    off = rates * (1 - np.eye(k))
    laplacian = np.eye(k) * off.sum(axis=2, keepdims=True) - off
    log_det = np.linalg.slogdet(laplacian[:, axes][:, :, axes])[1]
    return log_det + log_p[:, np.arange(n), assignment].sum(axis=1)


def best_assignment(scores: np.ndarray, capacity: tuple[int, ...]) -> np.ndarray:
    """The optimal assignment of a few datapoints, by trying all."""
    n, k = scores.shape
    every = (np.array(z) for z in itertools.product(range(k), repeat=n))
    allowed = (z for z in every if (np.bincount(z, minlength=k) <= capacity).all())
    return max(allowed, key=lambda z: scores[np.arange(n), z].sum())


def sorted_assignment(scores: np.ndarray) -> np.ndarray:
    """The optimal assignment to two experts of equal capacity: a sort."""
    difference = scores[:, 1] - scores[:, 0]
    return (np.argsort(np.argsort(difference)) >= len(scores) // 2).astype(int)


def draw_two(ax: Axes, n: int, scale: float, opposed: bool) -> None:
    """One panel: the integrand over `u_1 - u_0`, normalised, and the normal density at its mode."""
    rng = np.random.default_rng(SEED)
    logits = scale * rng.normal(size=(n, 2))
    scores = -logits if opposed else logits + rng.gumbel(size=(n, 2))
    assignment = sorted_assignment(scores)
    u = np.linspace(-60, 60, 24_001)
    step = u[1] - u[0]
    value = log_integrand(logits, assignment, np.stack([np.zeros_like(u), u], axis=1), [1])
    density = np.exp(value - value.max())
    density /= density.sum() * step
    mode = int(value.argmax())
    curvature = -(value[mode + 1] - 2 * value[mode] + value[mode - 1]) / step**2
    normal = np.exp(-0.5 * curvature * (u - u[mode]) ** 2) * np.sqrt(curvature / (2 * np.pi))
    seen = u[density > 1e-3 * density.max()]
    kept = np.abs(u - (seen[0] + seen[-1]) / 2) < 0.6 * (seen[-1] - seen[0])
    ax.fill_between(u[kept], density[kept], color=BLUE, alpha=0.15, linewidth=0)
    ax.plot(u[kept], density[kept], color=BLUE, linewidth=1.8, label="integrand, normalised")
    ax.plot(u[kept], normal[kept], color=ORANGE, linewidth=1.5, linestyle="--", label="normal density at the mode")
    ax.set_ylim(bottom=0)
    ax.margins(x=0)
    kind = "equal logits" if scale == 0 else f"logits of scale {scale:g}"
    ax.set_title(f"{n} datapoints, {kind}" + (",\nan improbable assignment" if opposed else ""), fontsize=9.5)


def two_experts(path: Path) -> None:
    """Four panels for two experts."""
    figure, axes = plt.subplots(2, 2, figsize=(8, 5.4), layout="constrained")
    cases = [(2, 0.0, False), (16, 1.0, False), (200, 1.0, False), (4, 12.0, True)]
    for ax, case in zip(axes.flat, cases, strict=True):
        draw_two(ax, *case)
    figure.supxlabel("price difference $u_1 - u_0$ (nats)", fontsize=10)
    figure.supylabel("density", fontsize=10)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False, fontsize=9.5)
    save(figure, path)


def draw_three(
    ax: Axes, title: str, logits: np.ndarray, assignment: np.ndarray, box: tuple[float, float], free: bool
) -> ContourSet:
    """One panel: contours of the integrand over two prices; expert 0 has price 0."""
    line = np.linspace(*box, 241)
    grid = np.stack(np.meshgrid(line, line, indexing="xy"), axis=-1).reshape(-1, 2)
    prices = np.column_stack([np.zeros(len(grid)), grid])
    value = log_integrand(logits, assignment, prices, [1, 2])
    if free:
        value = np.where((grid >= 0).all(axis=1), value, -np.inf)
    height = np.exp(value - value.max()).reshape(len(line), len(line))
    filled = ax.contourf(line, line, height, levels=LEVELS, cmap="Blues")
    ax.contour(line, line, height, levels=LEVELS[:-1], colors=INK, linewidths=0.4)
    best = grid[value.argmax()]
    ax.plot(*best, marker="o", color="white", markersize=5, markeredgecolor=INK, clip_on=False, zorder=4)
    if free:
        for span in (ax.axhspan, ax.axvspan):
            span(box[0], 0, facecolor="#eeeeee", edgecolor=GREY, hatch="//", linewidth=0, zorder=2)
    ax.set_aspect("equal")
    ax.set_title(title, fontsize=9.5)
    ax.set_xlabel("price $u_1$ (nats)", fontsize=9.5)
    return filled


def three_experts(path: Path) -> None:
    """Three panels for three experts."""
    many = np.zeros((60, 3))
    sharp = 8 * np.random.default_rng(SEED + 1).normal(size=(6, 3))
    roomy = np.random.default_rng(SEED).normal(size=(6, 3))
    drawn = best_assignment(roomy + np.array([-2.0, 0.8, 0.5]), (3, 2, 2))
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.7), layout="constrained")
    filled = draw_three(axes[0], "60 datapoints, equal logits", many, np.arange(60) % 3, (-1.2, 1.2), False)
    draw_three(
        axes[1], "6 datapoints, logits of scale 8,\nan improbable assignment", sharp, np.arange(6) % 3, (-21, 17), False
    )
    draw_three(axes[2], "6 datapoints, a free place at expert 0", roomy, drawn, (-0.5, 4.5), True)
    axes[0].set_ylabel("price $u_2$ (nats)", fontsize=9.5)
    bar = figure.colorbar(filled, ax=axes, shrink=0.85, pad=0.01)
    bar.set_label("integrand / its maximum", fontsize=9.5)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a picture and say so."""
    for ax in figure.axes:
        ax.tick_params(labelsize=8.5)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(figure, path, dpi=135)
    plt.close(figure)
    print(path)


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description="Pictures of the integrand over prices.")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    args = parser.parse_args()
    two_experts(args.out / "price_integrand_2.png")
    three_experts(args.out / "price_integrand_3.png")


if __name__ == "__main__":
    main()
