"""The program of the language model: exact resume, signals, damage, NaN, and what it prints. A tiny network is trained;
every router by its name is a slow test.
"""

import dataclasses
import json
import os
import shutil
import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from gumbel_moe.estimators import shared_network
from gumbel_moe.routing import SkipRouter
from inference.language import _devices, _run
from inference.language import _program as program
from inference.language._baseline import Known, expected, first_baseline, known_before, learn
from inference.language._curves import Run, read_run, rows_of
from inference.language._forward import by_group
from inference.language._generate import load_state
from inference.language._methods import METHODS
from inference.language._optimiser import is_router
from inference.language._settings import Settings
from inference.language._step import first_state, train_step
from models.transformer import AXES, BlockRecord

TINY = {"batch": 2, "context": 8, "layers": 2, "width": 8, "heads": 2, "experts": 2, "expert_width": 8, "windows": 2}
FLAGS = [part for name, value in TINY.items() for part in (f"--{name.replace('_', '-')}", str(value))]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    for number in range(60):
        (folder / f"{number}.txt").write_text(f"the number of this file is {number}, and that is all it says\n" * 3)
    return folder


def run(folder, text, *more, router="skip"):
    given = ["--router", router, "--corpus", str(text), "--out", str(folder), *FLAGS]
    return program.main(["train", *given, *more])


def lines(folder, name="metrics"):
    """All but the times."""
    found = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in found]


@pytest.fixture(
    scope="module",
    params=["dense", *(pytest.param(name, marks=pytest.mark.slow) for name in ("skip", "gumbel_matching"))],
)
def whole(request, tmp_path_factory, text):
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert run(folder, text, "--steps", "6", "--every", "2", router=request.param) == 0
    return folder


def last_state(folder):
    return load_state(read_run(folder).settings, folder)


def same(first, second):
    assert lines(first) == lines(second)
    assert lines(first, "evaluations") == lines(second, "evaluations")
    assert eqx.tree_equal(last_state(first), last_state(second))


def test_metrics_and_evaluations(whole):
    assert [line["step"] for line in lines(whole)] == [1, 2, 3, 4, 5, 6]
    method = METHODS[read_run(whole).settings.router]
    wanted = {"loss", "bits_per_byte", "gradient_of_routers", "gradient_of_rest"}
    routed = {"entropy", "max_violation", "skipped", "effective_sample_size"}
    assert wanted | (set() if method.learns == "dense" else routed) <= lines(whole)[0].keys()
    if method.keeps_prices:
        assert all(line["skipped"] == line["max_violation"] == 0 for line in lines(whole))
    last = lines(whole, "evaluations")[-1]
    assert {key.partition("/")[0] for key in last} == {"step", *method.ways()}
    np.testing.assert_allclose(lines(whole)[0]["bits_per_byte"], 8, atol=0.5)
    assert sorted(int(path.name) for path in (whole / "checkpoints").iterdir()) == [2, 4, 6]


def test_a_run_that_was_told_to_end_goes_on_bit_by_bit(whole, text, tmp_path, monkeypatch, capsys):
    folder, add, router = tmp_path / "run", _run.Journal.add, read_run(whole).settings.router

    def told(journal, step, metrics):
        if step == 3 and len(metrics) > 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return add(journal, step, metrics)

    monkeypatch.setattr(_run.Journal, "add", told)
    assert run(folder, text, "--steps", "6", "--every", "2", router=router) == 128 + signal.SIGTERM
    assert f"SIGTERM: saved; --resume --out {folder} carries on" in capsys.readouterr().err
    monkeypatch.undo()
    assert int(last_state(folder).step) == 3
    # A process that was killed in the middle of a line, and whose newest checkpoint is damaged.
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "loss')
    (folder / "checkpoints" / "3" / "default" / "_METADATA").write_text("")
    assert run(folder, text, "--resume", router=router) == 0
    assert "the checkpoint of step 3 is damaged" in capsys.readouterr().err
    same(whole, folder)


@pytest.mark.slow
def test_a_number_that_is_none_ends_the_run_and_saves_nothing(whole, text, tmp_path, monkeypatch, capsys):
    folder, measured = tmp_path / "run", _run.measured

    def fails(*given):
        state, line = measured(*given)
        return state, {**line, "loss": float("nan")} if state.step == 5 else line

    monkeypatch.setattr(_run, "measured", fails)
    assert run(folder, text, "--steps", "6", "--every", "2", router=read_run(whole).settings.router) == 1
    assert "step 5 gave numbers that are not finite (loss)" in capsys.readouterr().err
    assert int(last_state(folder).step) == 4
    # Not bit by bit: slow tests are compiled with more optimisation than those that may have made `whole`.
    losses, expected = ([line["loss"] for line in lines(of)] for of in (folder, whole))
    assert losses == pytest.approx(expected[:4], rel=1e-5)


@pytest.mark.slow
def test_generated_text_and_pictures(whole, capsys):
    given = ["generate", "--out", str(whole), "--prompt", "the ", "--bytes", "3"]
    assert program.main(given) == 0
    first = capsys.readouterr().out
    assert first.startswith("the ")
    assert program.main(given) == 0
    assert capsys.readouterr().out == first
    assert program.main(["plot", "--out", str(whole)]) == 0
    assert (whole / "curves.png").stat().st_size > 10_000
    assert "bits per byte" in capsys.readouterr().out


def test_refusals(whole, text, tmp_path, capsys):
    def refused(*given):
        with pytest.raises(SystemExit) as stop:
            program.main(list(given))
        assert stop.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    out = ["--out", str(whole)]
    assert "already holds a run; continue it with --resume" in refused("train", *out)
    assert "holds no run" in refused("train", "--resume", "--out", str(tmp_path))
    assert "sharpness must be positive" in refused("train", "--sharpness", "0", "--out", str(tmp_path / "a"))
    assert "has --width 8, not 16" in refused("train", "--resume", "--width", "16", *out)
    assert "has --credit 0.0, not None" in refused("train", "--resume", "--credit", "batch", *out)
    assert "unknown router 'nobody'" in refused("train", "--router", "nobody")
    assert "must be from 0 to 1" in refused("train", "--credit", "2")
    assert "no file or folder" in refused("train", "--corpus", "nowhere", "--out", str(tmp_path / "a"))
    heads = refused("train", "--heads", "3", "--corpus", str(text), "--out", str(tmp_path / "b"))
    assert "heads must divide the width" in heads
    began = ["train", "--corpus", str(text), "--out", str(tmp_path / "b"), *FLAGS]
    assert "divide the 16 tokens of a batch, got 3" in refused(*began, "--groups", "3")
    assert "must be 1 for expert_choice" in refused(*began, "--router", "expert-choice", "--groups", "2")
    assert "must be below the" in refused(*began, "--context", "100000")
    assert "capacity" in refused(*began, "--router", "base", "--capacity-factor", "0.5")
    assert "got the axis 'model'" in refused(*began, "--mesh", "model=2")
    assert "must give data a whole number" in refused(*began, "--mesh", "data=x,expert=2")
    assert "a mesh of 1 x 64 needs 64 devices" in refused(*began, "--mesh", "expert=64")
    student = ("--student", "4")
    assert "--student needs --credit 0" in refused(*began, "--router", "skip", *student, "--credit", "0.5")
    assert "--student needs --credit 0" in refused(*began, "--router", "skip", *student, "--gated")
    whole_score = ("--router", "gumbel-matching", "--score", "whole")
    assert "--student needs --credit 0" in refused(*began, *whole_score, *student)
    assert "needs --num-processes and --process-id" in refused(*began, "--coordinator", "localhost:1")
    assert "need --coordinator" in refused(*began, "--process-id", "0")
    assert "must be from 0 to 1" in refused(*began, "--coordinator", "h:1", "--num-processes", "2", "--process-id", "2")
    assert not (tmp_path / "b" / "run.json").exists()
    assert "not bias" in refused("generate", "--way", "bias", *out)
    assert "holds no run" in refused("plot", "--out", str(tmp_path))
    assert "unknown router 'x'" in refused("compare", "--routers", "x", "--out", str(tmp_path))


def test_settings_of_another_version_are_told_of(whole, text, tmp_path, capsys):
    folder = tmp_path / "switch-0"
    shutil.copytree(whole, folder)
    began = json.loads((folder / "run.json").read_text())

    def refused(settings, *given):
        (folder / "run.json").write_text(json.dumps(settings))
        with pytest.raises(SystemExit) as stop:
            program.main([*given, "--out", str(folder)])
        assert stop.value.code == 2
        return capsys.readouterr().err

    older = {name: value for name, value in began.items() if name not in ("critic_sees", "corpus")}
    for command in (["train", "--resume"], ["generate"], ["plot"]):
        assert "run.json lacks corpus, critic_sees" in refused(older, *command)
    assert "run.json has depth, unknown here" in refused({**began, "depth": 3}, "generate")
    shutil.rmtree(folder)
    results = {"runs": [{"settings": older, "evaluations": [], "curve": []}]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(SystemExit):
        program.main(["compare", "--out", str(tmp_path), "--corpus", str(text), *FLAGS])
    assert "results.json lacks corpus, critic_sees" in capsys.readouterr().err
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_what_is_no_argument_s_fault_is_not_told_as_one(text, tmp_path, monkeypatch):
    def broken(*_):
        raise ValueError("a shape that nobody asked for")

    monkeypatch.setattr(program, "train", broken)
    with pytest.raises(ValueError, match="nobody asked for"):
        run(tmp_path / "run", text)


@pytest.mark.parametrize(
    ("sizes", "changed", "says"),
    [
        ((8, 1), {"batch": 12}, "batch must be a multiple of the 8 devices of --mesh data=8,expert=1, got 12"),
        ((2, 4), {"groups": 4}, "groups must be 1 or a multiple of the 8 devices of --mesh data=2,expert=4, got 4"),
        (
            (1, 2),
            {"router": "skip", "draws": 3},
            "a multiple of the 2 devices of .* several --draws, got 1",
        ),
        ((1, 4), {"experts": 6}, "experts must be a multiple of expert in --mesh data=1,expert=4, got 6"),
        ((1, 4), {"router": "dense"}, "experts must be a multiple of expert in --mesh data=1,expert=4, got 1"),
        ((2, 4), {"router": "expert_choice"}, "expert_choice runs on one device"),
    ],
)
def test_a_mesh_that_does_not_fit(sizes, changed, says, monkeypatch):
    monkeypatch.setattr(_devices, "make_mesh", lambda data, expert: AbstractMesh((data, expert), AXES))
    with pytest.raises(ValueError, match=says):
        _devices.mesh_for(Settings(**changed), sizes)


def test_results_of_groups_are_stacked():
    values = np.arange(12.0).reshape(12, 1)
    for groups in (1, 4):
        found = by_group(Settings(batch=3, context=4, groups=groups), None, lambda group: {"sum": group.sum()}, values)
        np.testing.assert_array_equal(found["sum"], values.reshape(groups, -1).sum(axis=1))
    twice = by_group(Settings(batch=3, context=4, groups=2), None, np.sum, np.concatenate([values, values]))
    np.testing.assert_array_equal(twice, [15, 51, 15, 51])  # the second draw of a batch has groups of its own


def test_routers_have_an_optimiser_of_their_own():
    model = jax.eval_shape(lambda: first_state(Settings(router="skip", **TINY)).model)
    marked, leaves = jax.tree.leaves(is_router(model)), jax.tree.leaves(model)
    assert [leaf.shape for leaf, own in zip(leaves, marked, strict=True) if own] == [(2, 2, 8)]


def test_results_outlive_the_folders_of_their_runs(whole, text, tmp_path, monkeypatch, capsys):
    name = read_run(whole).settings.router
    shutil.copytree(whole, tmp_path / f"{name}-0")
    monkeypatch.setattr(program, "train", lambda *_: None)  # the run is finished: this is what training does
    given = ["compare", "--routers", name, "--out", str(tmp_path), "--corpus", str(text), *FLAGS]
    steps = ["--steps", "6", "--every", "2"]
    assert program.main([*given, *steps]) == 0
    results = (tmp_path / "results.json").read_text()
    told = capsys.readouterr().out
    shutil.rmtree(tmp_path / f"{name}-0")
    monkeypatch.setattr(program, "train", None)  # not called
    assert program.main([*given, *steps]) == 0
    assert (tmp_path / "results.json").read_text() == results
    assert capsys.readouterr().out == told[told.rindex("\nheld-out") :]
    with pytest.raises(SystemExit):
        program.main([*given, "--steps", "7", "--every", "2"])
    assert f"argument --out: the run in {tmp_path} has --steps 6, not 7" in capsys.readouterr().err


def test_what_was_reached_in_equal_time():
    def run(router, speed, bits):
        settings = Settings(router=router, steps=100)
        ways = settings.method.ways()
        evaluations = [
            {"step": step, **{f"{way}/bits_per_byte": bit for way in ways}}
            for step, bit in zip((50, 100), bits, strict=True)
        ]
        curve = [{"step": step, "seconds": step / speed, "bits_per_byte": 3.0} for step in (25, 50, 75, 100)]
        return Run(settings, evaluations, curve)

    quick, slow, slowest = run("dense", 10, (4.0, 3.0)), run("base", 8, (4.0, 2.0)), run("switch", 4, (3.0, 1.0))
    found = {row["router"]: row["at_equal_time"] for row in rows_of([quick, slow, slowest])}
    # After the dense model's ten seconds the second is at step 80, and the third, at step 40, has not been evaluated.
    assert found == {"dense": 3.0, "base": pytest.approx(4.0 - 2.0 * 30 / 50), "switch": None}


WAYS_TO_SCORE = [
    {"floor": 0.05, "gated": True, "sharpness": 4.0, "score_from": 2, "draws": 2, "critic": 4, "critic_sees": "exit"},
    {"critic_sees": "byte"},
    {"credit": None},
    {"credit": None, "draws": 2},
    {"student": 3, "draws": 2},
    {"score": "whole", "draws": 2},
    {"credit": 0.9, "through_router": True},
    {"score": "whole", "entropy": 0.01},
]


@pytest.mark.parametrize(
    "more",
    [pytest.param(more, marks=[] if number == 0 else pytest.mark.slow) for number, more in enumerate(WAYS_TO_SCORE)],
)
def test_a_step_of_draws_keeps_the_state_as_it_is(more):
    """Traced alone: that it trains is a slow test."""
    settings = Settings(router="gumbel_matching", **TINY, **more)
    state = jax.eval_shape(lambda: first_state(settings))
    text = jax.ShapeDtypeStruct((100,), np.uint8)
    after, metrics = jax.eval_shape(lambda state, text: train_step(settings, state, text), state, text)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), state
    )
    assert all(metric.shape == () for metric in metrics.values())


@pytest.mark.parametrize("credit", [0.5, None])
def test_what_is_subtracted_of_a_draw_is_what_the_others_tell(credit):
    settings = Settings(router="skip", credit=credit, draws=3, critic=4, critic_sees="input", **TINY)
    record, losses = some_batch(settings)
    baseline = first_baseline(settings)
    params = jax.tree.map(lambda leaf: leaf + 0.1, baseline.critic.params)
    baseline = baseline._replace(critic=baseline.critic._replace(params=params))

    def found(draws, losses=losses):
        given = dataclasses.replace(settings, draws=draws)
        return expected(given, baseline, record.routing, Known(record.router_input, None), losses)

    together, apart = found(3), found(1)
    if credit:
        alone = apart.advantage[0].reshape(2, 3, 16).swapaxes(0, 1)
    else:
        alone = losses.reshape(3, 16).mean(axis=1) - np.log(256)
    others = (alone.sum(axis=0) - alone) / 2
    np.testing.assert_allclose(together.advantage, alone - others, rtol=1e-5, atol=1e-5)
    told = apart.subtracted[0].reshape(2, 3, 16, 2).swapaxes(0, 1) if credit else np.log(256)
    np.testing.assert_allclose(together.subtracted, told + (others[..., None] if credit else others), rtol=1e-5)
    # Nothing of it depends on the draw itself.
    change = found(3, losses=losses.at[:2].add(1.0)).subtracted - together.subtracted
    np.testing.assert_allclose(change[0], 0, atol=1e-5)
    assert (change[1:] > 0.4).all()


def some_batch(settings):
    """Random losses and routings of all draws."""
    tokens, keys = settings.draws * settings.tokens, jax.random.split(jax.random.key(0), 3)
    seen = jax.random.normal(keys[0], (settings.layers, tokens, settings.width))
    router = SkipRouter(settings.tokens)
    logits = jnp.zeros((tokens, settings.experts))
    routing = jax.vmap(lambda key: router(key, logits))(jax.random.split(keys[1], settings.layers))
    losses = jax.random.normal(keys[2], (settings.draws * settings.batch, settings.context))
    return BlockRecord(routing, None, seen, seen, seen, None), losses


@pytest.mark.parametrize("router", ["skip", pytest.param("gumbel_matching", marks=pytest.mark.slow)])
def test_where_experts_do_nothing_baselines_know_the_loss(router):
    """A second draw of a batch has the loss of the first; and a network of one layer gives what it would without its
    experts, which is what a new critic predicts.
    """
    text = jax.random.randint(jax.random.key(1), (300,), 0, 256).astype(jnp.uint8)

    def gradient_of_router(**more):
        settings = Settings(**(TINY | {"router": router, "groups": 2, "layers": 1} | more))
        state = first_state(settings)
        down = state.model.blocks.experts.experts.down.weight
        state = eqx.tree_at(lambda state: state.model.blocks.experts.experts.down.weight, state, 0 * down)
        if settings.student:
            state = eqx.tree_at(lambda state: state.baseline.student.params, state, replace_fn=zeros)
        return jax.jit(train_step, static_argnums=0)(settings, state, text)[1]["gradient_of_routers"]

    noisy = gradient_of_router(critic_sees="input")
    assert noisy > 1e-3
    assert gradient_of_router(critic_sees="input", draws=2) < 1e-4 * noisy
    assert gradient_of_router(critic_sees="exit") < 1e-2 * noisy
    assert gradient_of_router(critic_sees="input", student=3) < 1e-4 * noisy


def zeros(params):
    """Of a student that predicts them."""
    return jax.tree.map(jnp.zeros_like, params)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_student_s_losses_are_those_of_its_outputs(factor):
    """And of none, for the part of an expert's tokens that its capacity leaves out, of equally many for each here."""
    settings = Settings(router="skip", student=8, capacity_factor=factor, **TINY)
    record, _ = some_batch(settings)
    state = first_state(settings)
    outputs = np.random.default_rng(0).normal(size=(settings.experts, settings.width)).astype(np.float32)
    params = zeros(state.baseline.student.params)
    params["head"]["bias"], params["decoder"]["weight"] = jnp.asarray(outputs), jnp.eye(8)  # the same of every token
    baseline = state.baseline._replace(student=state.baseline.student._replace(params=params))
    targets = np.arange(settings.tokens).reshape(settings.batch, -1)
    known = known_before(settings, baseline, state.model, record, jnp.asarray(targets))
    after = np.asarray(record.residual[-1])[:, None] + np.concatenate([outputs, np.zeros((1, settings.width))])
    after /= np.sqrt(np.mean(after**2, axis=-1, keepdims=True) + 1e-5)
    logits = after @ np.asarray(state.model.embedding).T
    each = np.log(np.exp(logits).sum(axis=-1)) - logits[np.arange(settings.tokens), :, np.arange(settings.tokens)]
    np.testing.assert_allclose(known.last, factor * each[:, :2] + (1 - factor) * each[:, 2:], rtol=1e-4)
    # They are subtracted in the last layer, and nowhere else.
    losses = jnp.zeros((settings.batch, settings.context))
    found, without = (
        expected(settings, baseline, record.routing, each, losses).subtracted[0]
        for each in (known, known._replace(last=None))
    )
    np.testing.assert_array_equal(found[-1], known.last)
    np.testing.assert_array_equal(found[:-1], without[:-1])


def test_a_student_learns_the_outputs_of_who_was_kept():
    settings = Settings(router="skip", student=4, critic_sees="input", **TINY)
    record, losses = some_batch(settings)
    expert, kept = record.routing.expert, record.routing.kept.at[:, 0].set(False)
    outputs = jnp.where(kept[..., None], 1.0 + expert[..., None], jnp.nan) * jnp.ones(settings.width)
    record = record._replace(outputs=outputs, routing=record.routing._replace(kept=kept))
    baseline = first_baseline(settings)
    known = Known(record.router_input, jnp.zeros((settings.tokens, settings.experts)))
    step = jax.jit(lambda baseline: learn(settings, baseline, record, known, losses))
    for _ in range(300):
        baseline = step(baseline)
    network = shared_network(settings.experts, settings.width, hidden=(256,), rank=4)
    codes = network.apply(baseline.student.params, record.router_input[-1])
    drawn = jnp.take_along_axis(codes, expert[-1][:, None, None], axis=1)[:, 0]
    errors = jnp.abs(network.decode(baseline.student.params, drawn) - 1 - expert[-1][:, None])
    assert errors[1:].max() < 0.2


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_router_trains_and_is_compared(name, text, tmp_path, capsys):
    given = ["--corpus", str(text), "--out", str(tmp_path), *FLAGS, "--steps", "4", "--every", "2"]
    assert program.main(["compare", "--routers", name, "--seeds", "2", *given]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["way"] for row in rows] == list(METHODS[name].ways())
    assert all(np.isfinite(row["bits_per_byte"]) and row["seeds"] == 2 for row in rows)
    # Nothing is left to do, and nothing is done twice.
    before = (tmp_path / f"{name}-0" / "metrics.jsonl").read_bytes()
    assert program.main(["compare", "--routers", name, "--seeds", "2", *given]) == 0
    assert (tmp_path / f"{name}-0" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("router", ["dense", "switch", "skip", "gumbel_matching"])
def test_the_loss_falls(router, text, tmp_path):
    """The text is nearly always the same: two bits are gained at once."""
    more = ["--steps", "150", "--every", "150", "--rate", "0.01", "--warmup", "10"]
    assert run(tmp_path / "run", text, *more, router=router) == 0
    found = [line["bits_per_byte"] for line in lines(tmp_path / "run")]
    assert np.mean(found[-10:]) < np.mean(found[:10]) - 2
