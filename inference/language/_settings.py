"""What a run was asked for: all that its result depends on, as flags on the command line and as JSON."""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from gumbel_moe.routing import capacity_for
from inference.language._methods import METHODS, Method
from inference.shared.arguments import Parser, not_negative, positive
from models.transformer import Sizes


def _option(default: Any, help: str, parse: Callable[[str], Any] | None = None, **more: Any) -> Any:
    """A field with what its flag says of itself."""
    return field(default=default, metadata={"help": help, "type": parse or type(default), **more})


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0 to 1, got {text!r}")
    return value


def _credit(text: str) -> float | None:
    return None if text == "batch" else _fraction(text)


def _method(text: str) -> str:
    name = text.replace("-", "_")
    if name not in METHODS:
        raise argparse.ArgumentTypeError(f"unknown router {name!r}; choose from {', '.join(METHODS)}")
    return name


class UnreadableError(ValueError):
    """A file whose settings are not those of this version."""


@dataclass(frozen=True)
class Settings:
    """Of one run."""

    router: str = _option("switch", f"one of {', '.join(METHODS)}", _method, metavar="NAME")
    seed: int = _option(0, "of everything random")
    steps: int = _option(2000, "training steps", positive)
    corpus: str | None = _option(None, "a file or folder of text (default: the Python standard library)", str)
    batch: int = _option(16, "sequences in a batch", positive)
    context: int = _option(128, "bytes in a sequence", positive)
    layers: int = _option(4, "blocks of the network", positive)
    width: int = _option(160, "of the residual path", positive)
    heads: int = _option(5, "of attention", positive)
    experts: int = _option(8, "of every layer", positive)
    expert_width: int = _option(480, "hidden units of an expert", positive)
    activations: str = _option("float32", "their type", str, choices=("float32", "bfloat16"))
    capacity_factor: float = _option(1.0, "room of an expert, in shares of the batch", float)
    groups: int = _option(1, "of a batch's tokens, each routed by itself, under a capacity of its own", positive)
    rate: float = _option(2e-3, "of Adam, for all but the routers", float)
    clip: float = _option(1.0, "largest norm of the gradient of all but the routers", float)
    router_rate: float = _option(1e-3, "of Adam, for the routers", float)
    router_clip: float = _option(1.0, "largest norm of the routers' gradient", float)
    warmup: int = _option(100, "steps of growing rates", positive)
    decay: float = _option(0.1, "weight decay of all but the routers", float)
    credit: float | None = _option(
        0.0, "discount of later losses in a route's credit, 0 to 1, or 'batch' for the loss of the whole batch", _credit
    )
    draws: int = _option(
        1, "of a batch, for routers that draw; by the score each is a baseline of the others", positive
    )
    critic: int = _option(0, "hidden units of the critic of a token's credit, which has a linear way too", not_negative)
    critic_sees: str = _option(
        "exit",
        "a router's input, beside it the byte to be predicted, or both and the loss if this layer were the last",
        str,
        choices=("input", "byte", "exit"),
    )
    student: int = _option(
        0,
        "rank of a network that predicts the outputs of the last layer's experts, for its baseline; 0: none",
        not_negative,
    )
    score: str = _option("first-order", "of Gumbel-Matching", str, choices=("first-order", "whole"))
    score_scale: float = _option(0.3, "factor of the score term, after its advantages have unit variance", float)
    score_from: int = _option(0, "first step of the score term; with --gated the routers learn before it too", int)
    gated: bool = _option(
        False,
        "multiply the outputs of draws that learn by the score by their probability, through which routers learn too",
        bool,
        action="store_true",
    )
    floor: float = _option(0.0, "under the routers' probabilities, for those that learn by the score", _fraction)
    sharpness: float | None = _option(
        None, "factor of the routers' logits (default: 4 for routers that draw, 1 for others)", float
    )
    entropy: float = _option(0.0, "factor of a bonus for the entropy of the routers' probabilities, in nats", float)
    through_router: bool = _option(
        False, "let the score term reach what is below a router, not the router alone", bool, action="store_true"
    )
    every: int = _option(250, "steps between evaluations and checkpoints", positive)
    windows: int = _option(128, "held-out sequences of an evaluation", positive)

    @property
    def tokens(self) -> int:
        """`n`, of a batch."""
        return self.batch * self.context

    @property
    def tokens_of_group(self) -> int:
        """Of those that are routed together."""
        return self.tokens // self.groups

    @property
    def capacity(self) -> int:
        """Of an expert, in a group of a batch of training; raises as `capacity_for` does."""
        return capacity_for(self.tokens_of_group, self.experts, self.capacity_factor)

    @property
    def draws_of_batch(self) -> int:
        """By routers that draw; others would do the same again."""
        return self.draws if self.method.random else 1

    @property
    def credit_by_token(self) -> float | None:
        """The discount of a token's credit; None where the loss of the whole batch is everybody's, as for the score of
        an assignment as a whole.
        """
        whole = self.router == "gumbel_matching" and self.score == "whole"
        return None if whole else self.credit

    @property
    def method(self) -> Method:
        """Of the router, with the gate that was asked for."""
        method = METHODS[self.router]
        return replace(method, gate="softmax") if self.gated and method.learns == "score" else method

    @property
    def sizes(self) -> Sizes:
        """Of the network that the method trains."""
        learns = self.method.learns
        sizes = Sizes(
            self.layers,
            self.width,
            self.heads,
            self.experts,
            self.expert_width,
            floor=self.floor if learns == "score" else 0.0,
            sharpness=self.method.sharpness if self.sharpness is None else self.sharpness,
            activations=self.activations,  # pyright: ignore[reportArgumentType]
        )
        return sizes.dense_twin() if learns == "dense" else sizes

    def as_json(self) -> dict[str, Any]:
        """For `run.json`."""
        return asdict(self)

    @classmethod
    def read(cls, path: Path) -> "Settings":
        """Those of a `run.json`; raises as `from_json` does."""
        return cls.from_json(json.loads(path.read_text()), path)

    @classmethod
    def from_json(cls, found: dict[str, Any], where: Path) -> "Settings":
        """Those of a file; `UnreadableError` unless it has each by its name, and no other.

        What a file does not say is not known: it need not have been what is usual now.
        """
        names = {each.name for each in fields(cls)}
        lacking, unknown = sorted(names - found.keys()), sorted(found.keys() - names)
        if lacking or unknown:
            wrong = f"lacks {', '.join(lacking)}" if lacking else f"has {', '.join(unknown)}, unknown here"
            raise UnreadableError(f"{where} {wrong}: another version of the program wrote it")
        return cls(**found)

    @classmethod
    def add_to(cls, parser: Parser, *, without: tuple[str, ...] = ()) -> None:
        """A flag for every field; one that is not given is absent from the namespace."""
        for each in fields(cls):
            if each.name in without:
                continue
            told = dict(each.metadata)
            if told.get("action"):
                told.pop("type")
            shown = "batch" if each.default is None and each.name == "credit" else each.default
            hint = "" if each.default is None or told.get("action") else f" (default: {shown})"
            told["help"] = f"{told['help']}{hint}"
            parser.add_argument(f"--{each.name.replace('_', '-')}", default=argparse.SUPPRESS, **told)

    @classmethod
    def given(cls, args: argparse.Namespace) -> dict[str, Any]:
        """Those that were on the command line."""
        return {each.name: getattr(args, each.name) for each in fields(cls) if hasattr(args, each.name)}
