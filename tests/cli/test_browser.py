"""The report in a real browser, where there is one: every picture visible, no error on the console."""

import re
import shutil
import subprocess

import pytest

from gumbel_moe.cli import main

BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
# What the page itself can see of its pictures, told on the console: the script is this copy's, not the report's.
PROBE = """<script>addEventListener("load", () => {
  const seen = [...document.images].filter(image => image.naturalWidth > 0 && image.getClientRects().length > 0)
  console.log(`pictures ${document.images.length} visible ${seen.length}`)
})</script></body>"""
BROKEN = '<img alt="broken" src="data:image/png;base64,AAAA"><script>nowhere()</script>'


def console(page, folder):
    """What the browser says while it shows the page."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "</html>" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_pictures_are_visible(tmp_path):
    small = ["--n", "12", "--experts", "3", "--draws", "50", "--chains", "2"]
    assert main(["diagnose", "--router", "skip", *small, "--out", str(tmp_path)]) == 0
    report = (tmp_path / "report.html").read_text()
    assert console(tmp_path / "report.html", tmp_path) == []
    probed = tmp_path / "probed.html"
    probed.write_text(report.replace("</body>", PROBE))
    (line,) = console(probed, tmp_path)
    assert re.search("pictures 3 visible 3", line)
    # The same look finds a picture that is broken and an error on the console.
    probed.write_text(report.replace("</body>", BROKEN + PROBE))
    lines = "\n".join(console(probed, tmp_path))
    assert "pictures 4 visible 3" in lines
    assert "nowhere is not defined" in lines
