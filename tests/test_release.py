"""A release says the same of itself everywhere."""

import re
import tomllib
from pathlib import Path

import yaml

from gumbel_moe import __version__

ROOT = Path(__file__).parents[1]


def test_version_and_date_agree():
    """Of the package, its citation, and the first release in the changelog."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    releases = re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert releases[0] == (version, cited["date-released"])
    assert cited["version"] == __version__ == version


def test_release_script_is_executable():
    assert (ROOT / ".ci/release").stat().st_mode & 0o111 == 0o111
