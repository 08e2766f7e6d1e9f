"""`gumbel-moe sample`: draws for a user's own logits."""

import jax
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from gumbel_moe.cli import main
from gumbel_moe.distributions import GumbelMatching, SkipAssignment, enumerate_assignments
from tests.full_disk import full_disk
from tests.randomness import z_limit

LOGITS = np.add(np.random.default_rng(0).normal(size=(6, 2)), [1, 0]).astype(np.float32)


def draw(folder, router, logits=LOGITS, **options):
    """The arrays of the file."""
    np.save(folder / "logits.npy", logits)
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    path = folder / "draws.npz"
    assert (
        main(
            [
                "sample",
                "--router",
                router,
                "--logits",
                str(folder / "logits.npy"),
                "--out",
                str(path),
                "--force",
                *words,
            ]
        )
        == 0
    )
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("router", ["independent", "skip", "gumbel-matching"])
def test_weights_are_unbiased(router, tmp_path):
    """False-fail rate: 1e-6 for each router, Bonferroni over 12 means. Without the weights skip and Gumbel-Matching
    must be rejected."""
    drawn = draw(tmp_path, router, draws=4000, capacity=3)
    hit = drawn["assignment"][..., None] == np.arange(2)

    def worst(weight):
        each = weight[..., None] * hit
        return np.max(np.abs(each.mean(axis=0) - softmax(LOGITS, axis=1)) / (each.std(axis=0) / np.sqrt(4000)))

    limit = z_limit(12)
    assert worst(drawn["weight"]) < limit
    if router != "independent":
        assert worst(drawn["kept"].astype(float)) > limit


def test_independent(tmp_path):
    drawn = draw(tmp_path, "independent", draws=5)
    assert drawn["kept"].all()
    assert (drawn["weight"] == 1).all()
    log_p = log_softmax(LOGITS, axis=1)
    np.testing.assert_allclose(
        drawn["log_prob"], log_p[np.arange(6), drawn["assignment"]].sum(axis=1), rtol=1e-5, atol=1e-5
    )
    assert (drawn["log_prob_error"] == 0).all()


def test_skip(tmp_path):
    drawn = draw(tmp_path, "skip", draws=40, capacity="2,3")
    skip = SkipAssignment(LOGITS, np.array([2, 3]))
    value = np.where(drawn["kept"], drawn["assignment"], ~drawn["assignment"])
    assert not drawn["kept"].all()
    assert (drawn["weight"][~drawn["kept"]] == 0).all()
    np.testing.assert_allclose(drawn["log_prob"], skip.log_prob(value), rtol=1e-5)
    np.testing.assert_allclose(drawn["weight"], skip.importance_weights(value), rtol=1e-6)
    assert drawn["capacity"].tolist() == [2, 3]


def test_gumbel_matching(tmp_path):
    """The probabilities of all outcomes sum to 1, so that of a draw is one of them."""
    drawn = draw(tmp_path, "gumbel-matching", draws=40, capacity=3)
    assert (np.sum(drawn["assignment"] == 0, axis=1) == 3).all()
    every = GumbelMatching(LOGITS, 3).log_prob(enumerate_assignments(6, (3, 3)))
    assert np.exp(every).sum() == pytest.approx(1, abs=1e-4)
    assert np.abs(drawn["log_prob"][:, None] - np.asarray(every)).min(axis=1).max() < 1e-4
    assert (drawn["log_prob_error"] < 1e-3).all()


@pytest.mark.parametrize("router", ["independent", "skip", "gumbel-matching"])
def test_a_floor_changes_the_process_and_the_weights(router, tmp_path):
    floor = 0.4
    drawn = draw(tmp_path, router, draws=40, capacity=3, floor=floor)
    p = np.exp(log_softmax(LOGITS, axis=1))
    mixed = (1 - floor) * p + floor / 2
    if router == "independent":
        expected = np.log(mixed)[np.arange(6), drawn["assignment"]].sum(axis=1)
        plain = 1.0
    elif router == "skip":
        skip = SkipAssignment(np.log(mixed), 3)
        value = np.where(drawn["kept"], drawn["assignment"], ~drawn["assignment"])
        expected, plain = skip.log_prob(value), skip.importance_weights(value)
    else:
        expected, plain = GumbelMatching(np.log(mixed), 3).log_prob(drawn["assignment"]), None
    np.testing.assert_allclose(drawn["log_prob"], expected, rtol=1e-4)
    if plain is not None:
        ratio = (p / mixed)[np.arange(6), drawn["assignment"]]
        np.testing.assert_allclose(drawn["weight"], plain * ratio, rtol=1e-5)
    else:
        assert (drawn["weight"] > 0).all()


def test_keys_and_shapes(tmp_path):
    drawn = draw(tmp_path, "skip", draws=70, seed=5)
    shapes = {name: array.shape for name, array in drawn.items()}
    by_datapoint = dict.fromkeys(["assignment", "kept", "weight"], (70, 6))
    assert shapes == {**by_datapoint, "log_prob": (70,), "log_prob_error": (70,), "capacity": (2,), "seed": ()}
    assert drawn["seed"] == 5
    assert drawn["capacity"].tolist() == [3, 3]  # a fair share
    assert drawn["assignment"].dtype == np.int32
    assert drawn["kept"].dtype == bool


def test_draws_depend_on_their_number_alone(tmp_path):
    long, short, other = (draw(tmp_path, "skip", draws=d, seed=s) for d, s in ((70, 0), (3, 0), (70, 1)))
    for name in ("assignment", "kept", "weight", "log_prob"):
        np.testing.assert_array_equal(long[name][:3], short[name])
    assert (long["assignment"] != other["assignment"]).any()
    assert len(np.unique(long["log_prob"])) > 20


@pytest.mark.parametrize("width", [np.float16, np.float32, np.float64])
def test_precision_is_the_file_s(width, tmp_path):
    before = jax.numpy.zeros(()).dtype
    drawn = draw(tmp_path, "skip", LOGITS.astype(width), draws=2)
    assert drawn["log_prob"].dtype == (np.float64 if width is np.float64 else np.float32)
    assert jax.numpy.zeros(()).dtype == before


def test_forbidden_experts(tmp_path, capsys):
    barred = LOGITS.copy()
    barred[:3, 0] = -np.inf
    assert (draw(tmp_path, "gumbel-matching", barred, draws=5, capacity=3)["assignment"][:, :3] == 1).all()
    np.save(tmp_path / "logits.npy", np.where(np.arange(2) == 0, -np.inf, LOGITS))
    command = ["sample", "--router", "gumbel-matching", "--capacity", "3", "--logits", str(tmp_path / "logits.npy")]
    capsys.readouterr()
    assert main([*command, "--out", str(tmp_path / "new.npz")]) == 2
    said = "argument --logits: forbids (-inf) so much that no assignment within --capacity is left"
    assert capsys.readouterr().err == f"gumbel-moe sample: error: {said}\n"
    assert not (tmp_path / "new.npz").exists()


def test_full_disk_is_one_line_and_keeps_the_older_file(tmp_path, capsys):
    np.save(tmp_path / "logits.npy", LOGITS)
    path = tmp_path / "draws.npz"
    path.write_text("old")
    logits = str(tmp_path / "logits.npy")
    with full_disk(2000):
        assert (
            main(
                [
                    "sample",
                    "--router",
                    "independent",
                    "--logits",
                    logits,
                    "--out",
                    str(path),
                    "--draws",
                    "64",
                    "--force",
                ]
            )
            == 2
        )
    assert capsys.readouterr().err == f"gumbel-moe sample: error: argument --out: cannot write {path}: File too large\n"
    assert path.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draws.npz", "logits.npy"]


def test_name_of_the_file_is_kept(tmp_path):
    np.save(tmp_path / "logits.npy", LOGITS)
    logits = str(tmp_path / "logits.npy")
    assert main(["sample", "--router", "skip", "--logits", logits, "--out", str(tmp_path / "draws")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["draws", "logits.npy"]
