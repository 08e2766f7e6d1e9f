"""The report as one HTML page: its pictures are in it, and it needs no script and no network."""

import base64
import io
from collections.abc import Iterable
from html import escape
from typing import Any

import pandas as pd

from gumbel_moe.cli._findings import Findings, table, verdict

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
.verdict { padding: .8rem 1rem; border-left: .4rem solid; white-space: pre-wrap; background: #f6f6f6 }
.passed { border-color: #0072b2 } .failed { border-color: #d55e00 }
table { border-collapse: collapse; font-size: .9rem } .wide { overflow-x: auto }
th, td { padding: .25rem .8rem .25rem 0; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap }
td { font-variant-numeric: tabular-nums } img { max-width: 100%; height: auto } figure { margin: 1rem 0 }
figcaption { color: #555; font-size: .9rem }
"""
_MOST = 200


def page(found: Findings) -> str:
    """All of `report.html`."""
    name = escape(found.name)
    state = "passed" if found.passed else "failed"
    parts = [
        f"<h1>Is the gradient of {name} unbiased?</h1>",
        f'<p class="verdict {state}">{escape(verdict(found))}</p>',
        _rows(table(found)),
        "<h2>Bias of every coordinate</h2>",
        _picture(
            found.check.plot(),
            "Biases with their intervals",
            "The coordinates that stand out most. A bias is "
            "found where its line misses 0; one beyond the grey bar would have been found with probability 0.99.",
        ),
        "<h2>Variance</h2>",
        _picture(
            found.comparison.plot(),
            "Variances with their intervals",
            "The trace of the covariance of one draw, "
            "beside that of independent draws, which have no capacity; and its eigenvalues. Of all here, the time "
            "of a draw alone (diamonds) differs from run to run.",
        ),
        _frame(found.comparison.summary.T),
        "<h2>Weights and load</h2>",
        _picture(
            found.routing.plot(),
            "Weights and load",
            "Left, the weights of the datapoints that are handled; right, how many every expert is sent and handles.",
        ),
        _frame(found.routing.summary),
        "<h2>Arguments and versions</h2>",
        _rows((key, str(value)) for key, value in found.settings.items()),
        "<h2>Coordinates</h2>",
        _coordinates(found.check.summary),
    ]
    head = f'<meta charset="utf-8">\n<title>{name}: {state}</title>\n<style>{_STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width">\n<link rel="icon" href="data:,">'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n{view}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def _picture(figure: Any, title: str, caption: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    data = base64.b64encode(file.getvalue()).decode()
    image = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _coordinates(summary: pd.DataFrame) -> str:
    few = summary.head(_MOST)
    note = "" if len(few) == len(summary) else f"<p>The first {_MOST:,} of {len(summary):,}; report.json has all.</p>"
    return note + _frame(few)


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    lines = (f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in rows)
    return f"<table>{''.join(lines)}</table>"


def _frame(frame: pd.DataFrame) -> str:
    head = "".join(f'<th scope="col">{escape(str(name))}</th>' for name in ("", *frame.columns))
    lines = []
    for name, row in zip(frame.index, frame.itertuples(index=False), strict=True):
        cells = "".join(f"<td>{value:.4g}</td>" for value in row)
        lines.append(f'<tr><th scope="row">{escape(str(name))}</th>{cells}</tr>')
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(lines)}</table></div>'
