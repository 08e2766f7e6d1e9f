"""The site is whole: its pages ask no other host for anything, and their formulas are set without a network."""

import re
import shutil
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files

from tests.cli.browser import BROWSER, shown

ROOT = Path(__file__).parents[2]
PAGE = "# A page\n\nA logit $a_{ij}$, and\n\n$$\n\\mathbb E_q[f] = \\sum_z q(z) f(z) . \\tag{1}\n$$\n"


def one_page(folder, **settings):
    """The site of one short page with all that every page has, in `folder`."""
    docs = folder / "docs"
    for name in ("javascripts", "stylesheets"):
        if (ROOT / "docs" / name).is_dir():
            shutil.copytree(ROOT / "docs" / name, docs / name)
    (docs / "index.md").write_text(PAGE)
    plain = {"docs_dir": str(docs), "site_dir": str(folder / "site"), "nav": None, "plugins": ["search"]}
    build(load_config(str(ROOT / "mkdocs.yml"), **plain, **settings))
    return folder / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return one_page(tmp_path_factory.mktemp("site"))


class Loaded(HTMLParser):
    """What a page loads by itself: addresses of scripts, styles, pictures and frames, not links."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio"):
            self.addresses.append(given.get("src"))
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href"))


def foreign(site):
    """Addresses of other hosts that pages and styles of a site load."""
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text())
        yield from (address for address in loaded.addresses if address and re.match(r"(?:\w+:)?//", address))
    for style in site.rglob("*.css"):
        yield from re.findall(r"(?:url\(|@import)[\s\"']*((?:\w+:)?//[^)\s\"']*)", style.read_text())


def test_pages_load_nothing_from_other_hosts(site):
    assert list(foreign(site)) == []
    scripts = Loaded()
    scripts.feed((site / "index.html").read_text())
    (mathjax,) = (address for address in scripts.addresses if address and "tex-svg" in address)
    assert (site / mathjax).is_file()


def test_a_script_of_another_host_is_noticed(tmp_path):
    address = "https://example.org/x.js"
    assert set(foreign(one_page(tmp_path, extra_javascript=[address]))) == {address}


# No other host is found, as without a network; and the page itself says what it asked for, found or not.
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
  for (const entry of performance.getEntriesByType("resource")) console.log(`asked for <${entry.name}>`)
}, 2000))</script></body>"""


def test_another_mathjax_than_the_one_looked_at_is_refused(tmp_path, monkeypatch):
    config = load_config(str(ROOT / "mkdocs.yml"))
    (hook,) = config.hooks.values()
    monkeypatch.setattr(hook, "_SHA256", "0" * 64)
    with pytest.raises(PluginError, match=r"tex-svg\.js of django-static-mathjax has the SHA-256 2af9"):
        hook.on_files(Files([]), config)


class Served:
    """A site at an address of this machine, and the requests that failed."""

    def __init__(self, site):
        self.failed = failed = []

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def send_error(self, code, *_):
                failed.append(self.path)
                super().send_error(code)

        self.site = site
        for page in site.rglob("*.html"):
            page.write_text(page.read_text().replace("</body>", PROBE))
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site)))
        self.address = f"http://127.0.0.1:{self.server.server_port}/"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def shown(self, name=""):
        """A page in the browser: its text, what else was said on the console, and the requests that cannot be met."""
        page, said = shown(f"{self.address}{name}", self.site.parent, ALONE)
        asked = re.findall("asked for <(.*?)>", "\n".join(said))
        assert any("tex-svg" in address for address in asked)
        wrong = [address for address in asked if not address.startswith((self.address, "data:", "blob:"))]
        return page, [line for line in said if "asked for <" not in line], wrong + self.failed


def raw_formulas(page):
    """Formulas that a reader sees as they were written; code is not looked at."""
    return re.findall(r"\\[(\[].{,60}", re.sub(r"<(script|code|pre|head)\b.*?</\1>", "", page, flags=re.DOTALL))


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_formulas_are_set_without_a_network(site):
    with Served(site) as served:
        page, said, failed = served.shown()
    assert (said, failed, raw_formulas(page)) == ([], [], [])
    assert page.count("<mjx-container") == 2
    assert '<g data-mml-node="merror"' not in page


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_formulas_left_raw_are_noticed(tmp_path):
    """With the script of another host, as the site once had it, and one that is not there."""
    scripts = ["javascripts/mathjax.js", "https://example.org/tex-svg.js", "javascripts/nowhere.js"]
    with Served(one_page(tmp_path, extra_javascript=scripts)) as served:
        page, _, failed = served.shown()
    assert set(failed) == {"https://example.org/tex-svg.js", "/javascripts/nowhere.js"}
    assert len(raw_formulas(page)) == 2


@pytest.mark.slow
def test_all_pages(tmp_path):
    site = tmp_path / "site"
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(site)))
    assert list(foreign(site)) == []
    names = [f"{page.parent.relative_to(site)}/" for page in site.rglob("index.html")]
    assert len(names) >= 20
    with Served(site) as served:
        for name in names if BROWSER else ():
            page, said, failed = served.shown(name)
            assert (name, said, failed, raw_formulas(page)) == (name, [], [], [])
            assert page.count("<mjx-container") == page.count('class="arithmatex"')
            assert '<g data-mml-node="merror"' not in page
