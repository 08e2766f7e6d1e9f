"""A real browser, where there is one, that shows a page."""

import shutil
import subprocess

BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
# What the page itself can see of its pictures, told on the console: the script is this copy's, not the report's.
PROBE = """<script>addEventListener("load", () => {
  const seen = [...document.images].filter(image => image.naturalWidth > 0 && image.getClientRects().length > 0)
  console.log(`pictures ${document.images.length} visible ${seen.length}`)
})</script></body>"""
BROKEN = '<img alt="broken" src="data:image/png;base64,AAAA"><script>nowhere()</script>'


def shown(address, folder, *options):
    """The page as the browser has it in the end, and what it says meanwhile on the console."""
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}"]
    command += ["--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom", *options, address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "</html>" in done.stdout
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def console(page, folder):
    """What the browser says while it shows the page."""
    return shown(page.as_uri(), folder)[1]
