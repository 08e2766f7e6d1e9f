"""What a run of a published table was asked for is told as the program takes it."""

import dataclasses

from benchmarks.language_table import flags
from inference.language._program import _parsers
from inference.language._settings import Settings


def test_flags_give_the_settings_back():
    usual = Settings(router="skip")
    asked = Settings(router="gumbel_matching", seed=3, gated=True, critic_sees="input", draws=2, credit=0.5)
    told = flags(asked.as_json(), usual.as_json())
    assert told == "gumbel_matching --credit 0.5 --draws 2 --critic-sees input --gated"
    parser, _ = _parsers()
    given = Settings.given(parser.parse_args(["train", "--router", *told.split()]))
    assert dataclasses.replace(usual, **given) == dataclasses.replace(asked, seed=usual.seed)
