"""One HTML page: its pictures are in it, and it needs no script and no network."""

import base64
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from gumbel_moe.diagnostics.pages._words import Word

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem } h2 { font-size: 1.2rem; margin-top: 2.5rem }
.verdict { padding: .8rem 1rem; border-left: .4rem solid; white-space: pre-wrap; background: #f6f6f6 }
.passed { border-color: #0072b2 } .failed { border-color: #d55e00 }
table { border-collapse: collapse; font-size: .9rem } .wide { overflow-x: auto }
th, td { padding: .25rem 1rem .25rem 0; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap }
td { font-variant-numeric: tabular-nums } img { max-width: 100%; height: auto } figure { margin: 1rem 0 }
figcaption, details { color: #555; font-size: .9rem } dt { float: left; clear: left; margin-right: .6rem }
"""
MOST_ROWS = 200


def document(title: str, heading: str, *parts: str) -> str:
    """The whole page."""
    head = f'<meta charset="utf-8">\n<title>{escape(title)}</title>\n<style>{_STYLE}</style>'
    view = '<meta name="viewport" content="width=device-width">\n<link rel="icon" href="data:,">'
    body = "\n".join([f"<h1>{escape(heading)}</h1>", *parts])
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>\n{head}\n{view}\n</head>\n<body>\n{body}\n</body>\n</html>\n'


def verdict(text: str, passed: bool) -> str:
    """What came out, in a box."""
    return f'<p class="verdict {"passed" if passed else "failed"}">{escape(text)}</p>'


def section(title: str) -> str:
    """A heading inside the page."""
    return f"<h2>{escape(title)}</h2>"


def picture(figure: Any, title: str, caption: str) -> str:
    """A matplotlib figure and its caption; `title` is for those who cannot see it."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    data = base64.b64encode(file.getvalue()).decode()
    image = f'<img alt="{escape(title)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def rows(content: Iterable[tuple[str, str]]) -> str:
    """A table of names and what belongs to them."""
    lines = (f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in content)
    return f"<table>{''.join(lines)}</table>"


def frame(table: pd.DataFrame, words: Mapping[str, Word], more: str = "") -> str:
    """A row for each of its rows, at most the first 200; `more` says where the others are."""
    few = table.head(MOST_ROWS)
    note = "" if len(few) == len(table) else f"<p>The first {MOST_ROWS:,} of {len(table):,}{escape(more)}.</p>"
    index = str(table.index.name or "")
    named = [words[name] for name in table.columns]
    content = [[str(name), *map(cell, row)] for name, row in zip(few.index, few.itertuples(index=False), strict=True)]
    return note + grid([index, *(word.heading for word in named)], content) + legend(named)


def grid(head: Sequence[str], content: Iterable[Sequence[str]]) -> str:
    """A table of words, the first of every row its heading."""
    top = "".join(f'<th scope="col">{escape(name)}</th>' for name in head)
    lines = []
    for name, *values in content:
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return f'<div class="wide"><table><tr>{top}</tr>{"".join(lines)}</table></div>'


def legend(words: Iterable[Word]) -> str:
    """What the headings mean, folded away."""
    entries = "".join(f"<dt>{escape(word.heading)}:</dt><dd>{escape(word.meaning)}</dd>" for word in words)
    return f"<details><summary>What these are</summary><dl>{entries}</dl></details>"


def cell(value: Any) -> str:
    """A number, a word, or a dash for what is not known."""
    if isinstance(value, bool | np.bool_):
        return "passed" if value else "FAILED"
    if isinstance(value, str | int | np.integer):
        return str(value)
    return "\N{EN DASH}" if math.isnan(value) else f"{value:.4g}"
