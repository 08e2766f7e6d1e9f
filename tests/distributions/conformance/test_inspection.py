"""Pictures and tables of a model with a site of assignments."""

import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.infer.inspect import get_dependencies, get_model_relations
from numpyro.util import format_shapes

from tests.distributions.conformance.cases import ALL, BOTH, KEY, LOGITS, VALUE, shared


def model(cls, obs=None):
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("batch", 3):
        z = numpyro.sample("z", cls(LOGITS * scale, 2))
        numpyro.sample("y", dist.Normal(z.astype(LOGITS.dtype), 1.0).to_event(1), obs=obs)


@ALL
def test_format_shapes(cls):
    def program():
        with numpyro.plate("batch", 3):
            numpyro.sample("z", shared(cls), obs=VALUE)

    sites = handlers.trace(handlers.seed(program, KEY)).get_trace()
    rows = [line.split() for line in format_shapes(sites, compute_log_prob=True).splitlines()]
    assert ["batch", "plate", "3", "|"] in rows
    assert ["z", "dist", "3", "|", "4"] in rows
    assert ["value", "3", "|", "4"] in rows
    assert ["log_prob", "3", "|"] in rows


@BOTH
def test_relations(cls):
    relations = get_model_relations(model, (cls,), {"obs": LOGITS[:, :, 0]})
    assert relations["sample_sample"]["z"] == ["scale"]
    assert relations["sample_sample"]["y"] == ["z"]
    assert relations["sample_dist"]["z"] == cls.__name__
    assert relations["plate_sample"] == {"batch": ["z", "y"]}
    assert relations["observed"] == ["y"]


@BOTH
def test_dependencies(cls):
    """The site depends on its logits; the likelihood on the site, so that the posterior of both is entangled."""
    dependencies = get_dependencies(model, (cls,), {"obs": LOGITS[:, :, 0]})
    assert set(dependencies["prior_dependencies"]["z"]) == {"scale", "z"}
    assert set(dependencies["prior_dependencies"]["y"]) >= {"z", "y"}
    assert "z" in dependencies["posterior_dependencies"]["scale"]


@BOTH
def test_render_model(cls):
    """The graph is built by the Python package alone; drawing it would need Graphviz itself."""
    graph = numpyro.render_model(model, (cls,), {"obs": LOGITS[:, :, 0]}, render_distributions=True, render_params=True)
    lines = {line.strip() for line in graph.source.splitlines()}
    assert {"scale -> z", "z -> y"} <= lines
    assert any(line.startswith("z [label=z") for line in lines)
    assert any("label=batch" in line for line in lines)
    assert any(cls.__name__ in line for line in lines)
