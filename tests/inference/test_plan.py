"""What a comparison says before it starts: settings beside those of the README, and a time."""

import re
from pathlib import Path

import pytest

from inference.compare._plan import Part, Plan, duration
from inference.training.tasks import digits_task, regions_task, toy_task


def test_published_settings_are_those_of_the_readme():
    text = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    said = re.search(
        r"the toy with ([\d,]+) starts and ([\d,]+) steps, the digits \(.*?\) with ([\d,]+) starts and ([\d,]+) steps",
        text,
    )
    assert said is not None
    numbers = [int(number.replace(",", "")) for number in said.groups()]
    assert [toy_task(0).published, digits_task(0).published] == [tuple(numbers[:2]), tuple(numbers[2:])]


def test_what_it_says():
    toy, regions = toy_task(0), regions_task(0)
    lines = str(Plan([Part(toy, 12, 10, 10_000), Part(toy, 1, 100, 10_000), Part(regions, 10, 4, 1000)])).splitlines()
    readme = "(README's table: 100 starts of 10,000 steps, --data toy --starts 100 --steps 10000)"
    assert lines[0] == f"toy: 12 methods, 10 starts of 10,000 steps {readme}"
    assert lines[1] == "toy: 1 methods, 100 starts of 10,000 steps"
    assert lines[2] == "regions: 10 methods, 4 starts of 1,000 steps"
    # 12 (4 + 100 0.05) + (4 + 1000 0.05) + 10 (5 + 4 0.7) = 240 seconds.
    assert lines[3] == "about 4 minutes on two cores; what has finished is kept on Ctrl-C"


def test_the_estimate_follows_what_was_seen(monkeypatch):
    """Half of the work took a hundred seconds; so will the other."""
    part = Part(toy_task(0), 2, 10, 10_000)
    monkeypatch.setattr("inference.compare._plan.time.perf_counter", iter([100.0]).__next__)
    plan = Plan([part], began=0.0)
    assert plan.finished(part) == "; about 2 minutes left"
    assert plan.finished(part) == ""


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(1, "5 seconds"), (44, "45 seconds"), (58, "a minute"), (400, "7 minutes"), (9000, "2.5 hours")],
)
def test_durations(seconds, said):
    assert duration(seconds) == said
