"""A baseline for every expert, from a small network that predicts the experts' outputs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gumbel_moe._arrays import as_array
from gumbel_moe._checks import check_positive_int
from gumbel_moe.estimators._learned import (
    LearnedState,
    Optimiser,
    first_state,
    kept_rows,
    mean_of_kept,
    present_rows,
    step,
)
from gumbel_moe.estimators._score_function import score_function_loss
from gumbel_moe.routing import Routing

_TOGETHER = 2**22  # numbers of predicted outputs at a time


@dataclass(frozen=True)
class StudentExperts:
    r"""A small shared network that predicts every expert's *output*, $s_j(x_i) \approx h_j(x_i)$.

    The baseline is the caller's own loss of the prediction, $b_{ij} = \mathrm{loss}(s_j(x_i), y_i)$. It follows the
    loss through every change of targets and parameters that the student need not know of, and with the exact
    correction of [`score_function_loss`][gumbel_moe.estimators.score_function_loss] the gradient is unbiased whatever
    the student says. It is trained by regression on the outputs of the experts that were drawn: no expert is evaluated
    for it.

    *Use first, update then*: a student that has learned from a draw is biased for that draw. `loss` keeps the order.

    **Arguments:**

    - `apply`: from parameters and `x` `(n, ...)` to `(n, k, ...)`: for every expert its predicted output, or a code of
      it; differentiable in the parameters. [`shared_network`][gumbel_moe.estimators.shared_network] makes one.
    - `optimiser`: an optax `GradientTransformation`, or any pair of functions like it.
    - `decode`: from parameters and codes `(m, ...)`, one a row, to outputs `(m, ...)`, for experts with large outputs;
      None where `apply` gives the outputs themselves. Codes are decoded for some experts at a time: no array has
      datapoints, experts and outputs.
    - `most`: the number of experts of a datapoint, the most probable ones, whose outputs are predicted; the others get
      the mean of their baselines. None: all.
    - `learn_from`: the number of datapoints of a batch, evenly spaced, that the student learns from. Of a large batch a
      part will do, and most of the student's cost is in learning. None: all.

    **Raises:** `ValueError` when `most` or `learn_from` is no positive int; later, when `outputs` have not the shape of
    what is predicted, or `logits` are missing where `most` needs them.

    ```python
    >>> import jax, jax.numpy as jnp, optax
    >>> from gumbel_moe.estimators import StudentExperts, shared_network
    >>> from gumbel_moe.routing import SkipRouter
    >>> network = shared_network(num_experts=2, num_outputs=1)
    >>> student = StudentExperts(network.apply, optax.adam(3e-3), network.decode)
    >>> state = student.init(network.init(jax.random.key(0), num_inputs=3))
    >>> x, y = jnp.ones((4, 3)), jnp.zeros(4)
    >>> def loss(params, state, key):
    ...     routing = SkipRouter(capacity=2)(key, x @ params["router"])
    ...     outputs = jnp.einsum("nd,ndo->no", x, params["experts"][routing.expert])
    ...     return student.loss(state, routing, outputs, x, lambda outputs: (outputs[:, 0] - y) ** 2)
    >>> params = {"router": jnp.zeros((3, 2)), "experts": jnp.ones((2, 3, 1))}
    >>> gradient, state = jax.jit(jax.grad(loss, has_aux=True))(params, state, jax.random.key(1))

    ```

    The idea and its measurements are on the documentation's page *Which estimator*.
    """

    apply: Callable[[Any, Array], Array]
    optimiser: Optimiser
    decode: Callable[[Any, Array], Array] | None = None
    most: int | None = None
    learn_from: int | None = None

    def __post_init__(self) -> None:
        for name in ("most", "learn_from"):
            if getattr(self, name) is not None:
                check_positive_int(name, getattr(self, name))

    def init(self, params: Any) -> LearnedState:
        """The state before the first batch, from the network's parameters."""
        return first_state(self.optimiser, params)

    def baseline(
        self, state: LearnedState, x: ArrayLike, loss: Callable[[Array], Array], logits: ArrayLike | None = None
    ) -> Array:
        """`(n, k)` to give to [`score_function_loss`][gumbel_moe.estimators.score_function_loss].

        `loss` gives the losses `(n,)` of one output for every datapoint, `(n, ...)`; `logits` `(n, k)` say which
        experts are the most probable ones, where not all are asked for.
        """
        params, x = jax.lax.stop_gradient((state.params, as_array("x", x)))
        return self._losses(params, self.apply(params, x), loss, logits)

    def update(self, state: LearnedState, routing: Routing, outputs: ArrayLike, x: ArrayLike) -> LearnedState:
        """The state after a step towards the outputs, `(n, ...)` or of several experts `(n, m, ...)`: no longer for the
        draw that made them.
        """
        learned = routing, as_array("outputs", outputs), as_array("x", x)
        if (rows := self._rows(learned[2].shape[0])) is not None:
            learned = jax.tree.map(lambda a: a[rows], learned)
        routing, towards, inputs = learned
        state, inputs = jax.lax.stop_gradient((state, present_rows(routing, inputs)))
        return self._step(state, routing, towards, *jax.vjp(lambda params: self.apply(params, inputs), state.params))

    def loss(
        self,
        state: LearnedState,
        routing: Routing,
        outputs: ArrayLike,
        x: ArrayLike,
        loss: Callable[[Array], Array],
    ) -> tuple[Array, LearnedState]:
        """`score_function_loss` with the baseline of `state`, and the state after this batch, for the next one.

        `outputs` `(n, ...)` are those of the experts that were drawn, as `combine` gives them, differentiable; of
        several experts per datapoint `(n, m, ...)`, as `combine(..., each=True)` does, and `loss` is still of one
        output for every datapoint. The same as `baseline`, `score_function_loss` and `update`, but the network runs
        once if it learns from all of them.
        """
        state, x = jax.lax.stop_gradient((state, present_rows(routing, as_array("x", x))))
        if self._rows(x.shape[0]) is None:
            codes, pull = jax.vjp(lambda params: self.apply(params, x), state.params)
            baseline = self._losses(state.params, codes, loss, routing.log_probs)
            later = self._step(state, routing, outputs, codes, pull)
        else:
            baseline = self.baseline(state, x, loss, routing.log_probs)
            later = self.update(state, routing, outputs, x)
        of_experts = loss if routing.experts_per_datapoint is None else jax.vmap(loss, 1, 1)
        return score_function_loss(routing, of_experts(jnp.asarray(outputs)), baseline), later

    def _rows(self, n: int) -> np.ndarray | None:
        """Which of `n` datapoints to learn from; None for all."""
        if self.learn_from is None or self.learn_from >= n:
            return None
        return np.arange(self.learn_from) * n // self.learn_from

    def _losses(self, params: Any, codes: Array, loss: Callable[[Array], Array], logits: ArrayLike | None) -> Array:
        """`(n, k)`, of predictions decoded for a few experts at a time."""
        n, k = codes.shape[:2]
        chosen = None
        if self.most is not None and self.most < k:
            if logits is None:
                raise ValueError(f"logits must be given where most is {self.most} of {k} experts, got None")
            chosen = jax.lax.top_k(jax.lax.stop_gradient(as_array("logits", logits)), self.most)[1]
            codes = jnp.take_along_axis(codes, chosen.reshape(n, self.most, *([1] * (codes.ndim - 2))), axis=1)
        one = jax.eval_shape(self._decode, params, codes[:, 0])
        together = min(max(1, _TOGETHER // max(1, math.prod(one.shape))), codes.shape[1])
        losses = jax.lax.map(
            lambda code: loss(self._decode(params, code)), jnp.moveaxis(codes, 1, 0), batch_size=together
        ).T
        losses = jax.lax.stop_gradient(losses)
        if chosen is None:
            return losses
        others = jnp.broadcast_to(jnp.mean(losses, axis=1, keepdims=True), (n, k))
        return others.at[jnp.arange(n)[:, None], chosen].set(losses)

    def _step(
        self, state: LearnedState, routing: Routing, outputs: ArrayLike, codes: Array, pull: Callable[..., Any]
    ) -> LearnedState:
        """After one step towards the outputs; `pull` takes a gradient in the codes to one in the parameters."""
        outputs = kept_rows(routing, as_array("outputs", outputs))
        n, k, *trailing = codes.shape
        shape = routing.expert.shape
        expert = jnp.clip(routing.expert, 0, k - 1).reshape(n, -1 if n else 1, *([1] * len(trailing)))

        def error(params: Any, codes: Array) -> Array:
            own = jnp.take_along_axis(codes, expert, axis=1)
            predicted = self._decode(params, own.reshape(math.prod(shape), *trailing))
            predicted = predicted.reshape(*shape, *predicted.shape[1:])
            if predicted.shape != outputs.shape:
                raise ValueError(
                    f"outputs must have the shape of what is predicted, {predicted.shape}, got {outputs.shape}"
                )
            squares = (predicted - outputs) ** 2
            return mean_of_kept(routing, jnp.mean(squares.reshape(*shape, -1), axis=-1))

        of_decoder, of_codes = jax.grad(error, (0, 1))(state.params, codes)
        return step(self.optimiser, state, jax.tree.map(jnp.add, of_decoder, pull(of_codes)[0]))

    def _decode(self, params: Any, codes: Array) -> Array:
        return codes if self.decode is None else self.decode(params, codes)
