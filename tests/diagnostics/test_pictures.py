"""Pictures of tables."""

import numpy as np
import pandas as pd
import pytest

from gumbel_moe.diagnostics.pictures import draw_variance, write_png

TABLE = pd.DataFrame(
    [
        {"estimator": name, "capacity_factor": x, "scale": scale, "trace": place * x * scale, "other": 1.0}
        for place, name in enumerate(["skip", "gumbel_matching"], 1)
        for x in (2.0, 1.0, 1.5)
        for scale in (1, 4)
    ]
)


@pytest.mark.parametrize("log", ["", "x", "y", "xy"])
def test_variance_against_a_setting(tmp_path, log):
    banded = TABLE.assign(trace_low=TABLE.trace * 0.9, trace_high=TABLE.trace * 1.1)
    figure = draw_variance(banded, "capacity_factor", tmp_path / "variance.png", panel="scale", log=log)
    assert (tmp_path / "variance.png").read_bytes().startswith(b"\x89PNG")
    assert [ax.get_title() for ax in figure.axes] == ["scale = 1", "scale = 4"]
    for ax, scale in zip(figure.axes, (1, 4), strict=True):
        assert len(ax.collections) == 2  # bands
        for place, line in enumerate(ax.lines, 1):
            np.testing.assert_allclose(line.get_xdata(), [1, 1.5, 2])
            np.testing.assert_allclose(line.get_ydata(), scale * place * np.array([1, 1.5, 2]))
        assert (ax.get_xscale(), ax.get_yscale()) == tuple("log" if axis in log else "linear" for axis in "xy")


def test_another_column_without_bands():
    figure = draw_variance(TABLE[TABLE.scale == 1], "capacity_factor", value="other", ylabel="other")
    (ax,) = figure.axes
    assert len(ax.collections) == 0
    assert ax.get_ylabel() == "other"
    assert ax.get_xlabel() == "capacity factor"


def test_bad_tables():
    with pytest.raises(ValueError, match="table has no column sharpness, only estimator, capacity_factor"):
        draw_variance(TABLE, "sharpness")
    with pytest.raises(ValueError, match="log must be '', 'x', 'y' or 'xy', got 'z'"):
        draw_variance(TABLE, "scale", log="z")


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    class Broken:
        def savefig(self, file, **_):
            file.write_bytes(b"half")
            raise RuntimeError

    (tmp_path / "old.png").write_bytes(b"old")
    with pytest.raises(RuntimeError):
        write_png(Broken(), tmp_path / "old.png")
    assert (tmp_path / "old.png").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
