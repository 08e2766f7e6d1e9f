"""`gumbel-moe diagnose`: verdicts, exit codes and what it writes."""

import json
import re
import sys
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
import xarray
from scipy.special import softmax

from gumbel_moe.cli import _investigation, main
from gumbel_moe.cli._mixture import mixture_of
from tests.cli.browser import BROKEN, BROWSER, PROBE, console

SMALL = ["--n", "12", "--experts", "3", "--draws", "200", "--chains", "2"]


def run(folder, *options):
    return main(["diagnose", *SMALL, *options, "--out", str(folder)])


@pytest.fixture(scope="module")
def skip(tmp_path_factory):
    """One run that passes, looked at by several tests."""
    folder = tmp_path_factory.mktemp("report") / "made" / "by it"
    assert run(folder, "--router", "skip", "--seed", "3") == 0
    return folder


@pytest.fixture(scope="module")
def uncorrected(tmp_path_factory):
    """Skip without its weights."""
    folder = tmp_path_factory.mktemp("report")
    assert run(folder, "--router", "skip", "--estimator", "uncorrected", "--draws", "1000", "--scale", "2") == 1
    return folder


def test_unbiased_router_passes(skip):
    """False-fail rate: 1e-6, the command's own; the next test shows that it can fail."""
    report = json.loads((skip / "report.json").read_text())
    assert report["passed"] is True
    assert report["reasons"] == []
    assert report["max_z"] <= report["limit"]
    assert report["false_fail_rate"] == 1e-6
    assert report["detectable_bias"] > 0
    assert report["variance"] > 0
    assert report["relative_variance"]["value"] > 1  # what skip throws away costs
    assert report["arguments"] == {
        "router": "skip",
        "estimator": "corrected",
        "n": 12,
        "experts": 3,
        "capacity": 4,
        "floor": 0.0,
        "scale": 1.0,
        "draws": 200,
        "chains": 2,
        "false_fail_rate": 1e-6,
        "seed": 3,
    }
    assert {"gumbel_moe", "jax", "numpyro"} <= set(report["versions"])


def test_bias_is_found(uncorrected):
    report = json.loads((uncorrected / "report.json").read_text())
    assert report["passed"] is False
    assert any("bias" in reason for reason in report["reasons"])
    assert "FAILED" in (uncorrected / "report.html").read_text()


@pytest.mark.slow
def test_gated_router_fails_and_says_why(tmp_path, capsys):
    assert run(tmp_path, "--router", "switch") == 1
    out = capsys.readouterr().out
    assert "FAILED" in out
    assert "- bias in" in out
    assert "nan" not in out


@pytest.mark.slow
@pytest.mark.parametrize("router", ["skip", "gumbel-matching"])
def test_two_experts_for_every_datapoint(router, tmp_path):
    """False-fail rate: 1e-6."""
    assert run(tmp_path, "--router", router, "--experts-per-datapoint", "2", "--capacity", "9") == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["arguments"]["experts_per_datapoint"] == 2
    assert (report["weights"]["skipped"] > 0) == (router == "skip")


@pytest.mark.slow
@pytest.mark.parametrize("router", ["skip", "gumbel-matching", "switch", "base"])
def test_biased_ones_of_two_experts_fail(router, tmp_path):
    biased = [] if router in ("switch", "base") else ["--estimator", "uncorrected"]
    assert run(tmp_path, "--router", router, *biased, "--experts-per-datapoint", "2", "--draws", "1000") == 1


@pytest.mark.slow
@pytest.mark.parametrize("router", ["independent", "skip", "gumbel-matching"])
@pytest.mark.parametrize("size", [[], ["--n", "24", "--experts", "4", "--capacity", "8,7,6,6", "--scale", "2"]])
def test_unbiased_routers_pass(router, size, tmp_path, capsys):
    """False-fail rate of all together: 6e-6, the command's own for each; gated routers and the next test fail."""
    assert main(["diagnose", "--router", router, *size, "--out", str(tmp_path)]) == 0
    assert "PASSED" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("router", ["skip", "gumbel-matching"])
def test_biased_ones_fail(router, tmp_path):
    assert main(["diagnose", "--router", router, "--estimator", "uncorrected", "--out", str(tmp_path)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("router", ["switch", "base", "sinkhorn", "loss-free", "quantile-balancing"])
def test_gated_routers_fail(router, tmp_path):
    assert run(tmp_path, "--router", router) == 1


RAW = r"\w+_\w+|\b(?:se|ess|mcse|nan|p|n)\b"


def test_page_speaks_and_agrees_with_the_numbers(skip):
    """The same ratio of variances above, in the table and in the file, and headings in words."""
    page = re.sub(r"base64,[^\"]*", "", (skip / "report.html").read_text())
    numbers = json.loads((skip / "report.json").read_text())
    ratio = numbers["relative_variance"]["value"]
    said = re.search(r"over that of independent draws</th><td>([\d.]+), 95% interval ([\d.]+) to ([\d.]+)", page)
    assert said is not None
    again = re.search(r"over that of independent</th><td>1</td><td>([\d.]+) \(([\d.]+) to ([\d.]+)\)", page)
    assert again is not None
    assert [float(x) for x in again.groups()] == pytest.approx([float(x) for x in said.groups()], abs=6e-4)
    assert float(said[1]) == pytest.approx(ratio, abs=6e-4)
    variance = re.search(r"variance \(trace\)</th><td>([\d.]+)<", page)
    assert variance is not None
    assert float(variance[1]) == pytest.approx(numbers["variance"], rel=1e-3)
    assert numbers["variance"] == numbers["comparison"]["skip"]["trace"]
    headings = re.findall(r"<th[^>]*>([^<]*)</th>", page)
    assert len(headings) > 50
    assert [heading for heading in headings if re.fullmatch(RAW, heading)] == []


def test_mixture_of_given_logits():
    """They are parameters, -inf among them, and their gradient that of the mean over datapoints."""
    logits = np.array([[0.0, 1.0, -np.inf], [1.0, 0.0, 0.5]], np.float32)
    mixture = mixture_of(logits, 0)
    exact = jax.tree.map(np.asarray, mixture.exact())
    p, losses = softmax(logits, axis=1), np.asarray(mixture.all_losses(mixture.params))
    expected = p * (losses - np.sum(p * losses, axis=1, keepdims=True)) / 2
    np.testing.assert_allclose(exact["logits"], expected, atol=1e-6)
    assert exact["experts"]["weight"].shape == (8, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("router", "width"), [("skip", np.float32), ("skip", np.float64), ("gumbel-matching", np.float32)]
)
def test_own_logits(router, width, tmp_path):
    """Of -inf too, in their own precision; without the weights the same draws fail. False-fail rate: 1e-6."""
    logits = np.random.default_rng(0).normal(size=(12, 3)).astype(width)
    logits[:2, 2] = -np.inf
    np.save(tmp_path / "logits.npy", logits)
    words = ["diagnose", "--router", router, "--logits", str(tmp_path / "logits.npy"), "--chains", "2"]
    assert main([*words, "--draws", "200", "--capacity", "6", "--out", str(tmp_path / "a")]) == 0
    numbers = json.loads((tmp_path / "a" / "report.json").read_text())
    assert numbers["arguments"]["logits"] == str(tmp_path / "logits.npy")
    assert (numbers["arguments"]["n"], numbers["arguments"]["experts"]) == (12, 3)
    names = [row["parameter"] for row in numbers["coordinates"]]
    assert {"logits[0,0]", "logits[11,2]", "experts.bias[2]"} <= set(names)
    assert numbers["coordinates"][names.index("logits[0,2]")]["sd"] == 0
    if router == "skip":
        fewer = ["--estimator", "uncorrected", "--capacity", "2", "--draws", "1000", "--out", str(tmp_path / "b")]
        assert main([*words, *fewer]) == 1


@pytest.mark.slow
def test_same_seed_same_bits(skip, tmp_path):
    assert run(tmp_path, "--router", "skip", "--seed", "3") == 0
    assert (tmp_path / "report.json").read_bytes() == (skip / "report.json").read_bytes()


def test_draws_are_read_back_by_arviz(skip):
    tree = xarray.open_datatree(skip / "draws.nc", engine="h5netcdf")
    assert dict(tree["posterior"].sizes)["chain"] == 2
    assert dict(tree["posterior"].sizes)["draw"] == 200
    assert tree.attrs["router"] == "skip"
    assert tree.attrs["capacity"] == 4
    assert "exact" in tree["constant_data"]
    assert tree["routing"]["posterior"]["load"].shape == (1, 400, 3)
    assert tree["variance"]["posterior"]["squared_deviation"].shape == (2, 200, 2)


class Page(HTMLParser):
    """Which tags are open, and what a page asks for."""

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [(tag, value) for name, value in attrs if name in ("src", "href", "srcset", "data")]
        assert tag != "script"
        if tag not in ("meta", "link", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_one_file(skip):
    text = (skip / "report.html").read_text()
    assert text.startswith("<!DOCTYPE html>")
    page = Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert [source[:22] for tag, source in page.sources if tag == "img"] == ["data:image/png;base64,"] * 3
    assert all(source.startswith("data:") for _, source in page.sources)
    assert not re.search(r"https?://|url\(|@import", re.sub(r"base64,[^\"]*", "", text))


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_pictures_are_visible_in_a_browser(skip, tmp_path):
    """Every picture visible, no error on the console."""
    report = (skip / "report.html").read_text()
    assert console(skip / "report.html", tmp_path) == []
    probed = tmp_path / "probed.html"
    probed.write_text(report.replace("</body>", PROBE))
    (line,) = console(probed, tmp_path)
    assert re.search("pictures 3 visible 3", line)
    # The same look finds a picture that is broken and an error on the console.
    probed.write_text(report.replace("</body>", BROKEN + PROBE))
    lines = "\n".join(console(probed, tmp_path))
    assert "pictures 4 visible 3" in lines
    assert "nowhere is not defined" in lines


def test_nothing_else_is_left_in_the_folder(skip):
    assert sorted(path.name for path in skip.iterdir()) == ["draws.nc", "report.html", "report.json"]


def test_crash_is_not_taken_for_a_bias(tmp_path, monkeypatch, capsys):
    def crash(*_):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(_investigation, "investigate", crash)
    (tmp_path / "report.json").write_text("old")
    assert run(tmp_path, "--router", "skip", "--force") == 3
    assert "RuntimeError: the disk is gone" in capsys.readouterr().err
    assert (tmp_path / "report.json").read_text() == "old"


def test_interrupted(tmp_path, monkeypatch, capsys):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_investigation, "investigate", stop)
    assert run(tmp_path / "made", "--router", "skip") == 130
    assert capsys.readouterr().err == "gumbel-moe diagnose: interrupted\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package", ["matplotlib", "tqdm", "h5netcdf", "h5py"])
def test_missing_package_is_one_line(package, tmp_path, monkeypatch, capsys):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    assert run(tmp_path, "--router", "skip") == 2
    needs = f"gumbel-moe diagnose needs {package}: pip install 'gumbel_moe[diagnostics]'"
    assert capsys.readouterr().err == f"gumbel-moe diagnose: error: {needs}\n"
