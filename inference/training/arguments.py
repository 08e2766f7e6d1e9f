"""Routers on a command line."""

import argparse

from inference.training.methods import ESTIMATOR_METHODS, METHODS, ROUTER_METHODS, Method

_GROUPS = {"routers": ROUTER_METHODS, "estimators": ESTIMATOR_METHODS, "all": tuple(METHODS)}


def router(text: str) -> Method:
    """A method by its name, with `_` or `-`."""
    name = text.replace("-", "_")
    if name not in METHODS:
        raise argparse.ArgumentTypeError(f"unknown router {name!r}; choose from {', '.join(METHODS)}")
    return METHODS[name]


def routers(text: str) -> list[Method]:
    """Methods by their names or those of groups, separated by commas; every one once."""
    named = [name.strip() for name in text.split(",") if name.strip()]
    names = [member for name in named for member in _GROUPS.get(name, (name,))]
    if not names:
        raise argparse.ArgumentTypeError(f"no router named; choose from {', '.join(METHODS)}")
    return list(dict.fromkeys(router(name) for name in names))
