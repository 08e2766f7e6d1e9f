"""Routers on a command line."""

import argparse

from inference.training.methods import METHODS, Method, find_method


def router(text: str) -> Method:
    """A method by its name."""
    try:
        return find_method(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def routers(text: str) -> list[Method]:
    """Methods by their names, separated by commas; every one once."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"no router named; choose from {', '.join(METHODS)}")
    return list(dict.fromkeys(router(name) for name in names))
