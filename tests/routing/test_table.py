"""One table of routers: every one is there, and what it says of them is so."""

import inspect

import jax.numpy as jnp
import pytest

from gumbel_moe import routing
from gumbel_moe.routing import ROUTERS, Router, Routing, make_router
from tests.routing import routers


def test_every_router_is_there():
    public = {name for name in routing.__all__ if name.endswith("Router") and name != "Router"}
    assert {entry.made_by for entry in ROUTERS.values()} == public


@pytest.mark.parametrize("name", ROUTERS)
def test_entries(name):
    entry = ROUTERS[name]
    router = make_router(name.replace("_", "-"), 2)
    assert type(router).__name__ == entry.made_by
    assert router.weighted == (entry.kind == "weighted")
    assert router == make_router(name, 2)
    assert entry.stateful == hasattr(router, "init") == hasattr(router, "update")
    assert entry.limited == ("capacity" in inspect.signature(type(router)).parameters)
    assert isinstance(router, Router)
    state = (router.init(3),) if entry.stateful else ()
    found = router(routers.KEY, routers.logits(6, 3), *state)
    assert isinstance(found, Routing) == entry.one_expert
    batch = routing.as_one_batch(router)
    assert batch.weighted == router.weighted


def test_uncorrected_draws_have_no_weights():
    logits = routers.logits(40, 3)
    for name in ("skip", "gumbel_matching"):
        found = make_router(f"{name}_uncorrected", 14)(routers.KEY, logits)
        assert set(found.weight.tolist()) <= {0.0, 1.0}
        assert not jnp.all(make_router(name, 14)(routers.KEY, logits).weight == found.weight)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"unknown router 'skpi'; choose from independent, skip, "):
        make_router("skpi", 2)
    with pytest.raises(ValueError, match="capacity must be given for the router 'base', got None"):
        make_router("base")
    with pytest.raises(ValueError, match="capacity must be at least 1"):
        make_router("base", 0)
    assert make_router("independent") == make_router("independent", 3)
    assert make_router("sinkhorn", 2, iterations=3).iterations == 3
