"""The pages have all of what they are for: every public name, every column."""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

import pytest

from gumbel_moe.diagnostics import AssignmentReport, RoutingReport, UnbiasedReport, _variance_table
from gumbel_moe.matching import Matching
from gumbel_moe.routing import ExpertChoiceRouting, Routing
from inference.compare import _table
from inference.latent_routing import _summary

DOCS = Path(__file__).parents[2] / "docs"
ROOMS = ("matching", "distributions", "mcmc", "routing", "estimators", "diagnostics")


@pytest.mark.parametrize("room", ROOMS)
def test_reference_and_overview_have_every_public_name(room):
    public = set(importlib.import_module(f"gumbel_moe.{room}").__all__)
    page = (DOCS / "api" / f"{room}.md").read_text()
    assert sorted(re.findall(r"^        - (\w+)$", page, re.MULTILINE)) == sorted(public)
    overview = (DOCS / "api/index.md").read_text()
    assert set(re.findall(rf"\[gumbel_moe\.{room}\.(\w+)\]", overview)) == public


def keys_of(source):
    """Names that a function gives to columns, as keys of dictionaries or in lists of names."""
    return set(re.findall(r'"([a-z_]+(?:_\d+%)?)"', inspect.getsource(source)))


def test_glossary_has_every_column_of_reports():
    page = (DOCS / "glossary.md").read_text()
    named = set(re.findall(r"`([\w%]+)`", page))
    fields = {field.name for report in (UnbiasedReport, RoutingReport) for field in dataclasses.fields(report)}
    fields |= {field for record in (Routing, ExpertChoiceRouting, Matching) for field in record._fields}
    assert fields <= named
    for report in (UnbiasedReport, RoutingReport, AssignmentReport):
        columns = keys_of(report.summary.func) - {"parameter", "expert", "datapoint", "ignore"}
        assert columns
        assert columns <= named
    columns = keys_of(_variance_table.row) | keys_of(_variance_table.bias_row)
    columns |= set(re.findall(r'"(\w+)"', inspect.getsource(_variance_table.relate).partition("order = ")[2]))
    assert {"trace", "mse", "rank"} <= columns <= named


def test_glossary_has_every_column_of_programs():
    page = (DOCS / "glossary.md").read_text()
    cells = {cell.strip() for row in re.findall(r"^\| (.*?) \|", page, re.MULTILINE) for cell in row.split(",")}
    for table in (_table, _summary):
        assert {heading for _, heading, _ in table._COLUMNS} <= cells
