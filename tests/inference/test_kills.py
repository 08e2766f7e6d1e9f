"""Training that is killed at random moments, also while it saves, ends with the bits of a run that was not."""

import pytest

from tests.inference.kills import KILLS, kill_often


@pytest.mark.slow
def test_twenty_kills_change_no_bit(tmp_path):
    figures = kill_often(tmp_path, 0)
    print(figures)
    assert figures["same bits"]
    assert figures["damaged checkpoints"] == 0  # what was cut short never gets a checkpoint's name
    assert figures["amid a save"] >= KILLS // 4
