"""The network: embedding, blocks in a loop, and the same embedding again to predict the next byte."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Integer, PRNGKeyArray

from models.transformer._block import Block, BlockRecord
from models.transformer._sharding import Groups
from models.transformer._sizes import Sizes

_SPREAD = 0.02  # of the embedding's first values


class Forward(NamedTuple):
    """What the network returns."""

    logits: Array
    """`(b, t, vocabulary)` float32: of the token after each."""
    record: BlockRecord
    """Of all blocks, stacked: a first axis of size `layers`."""


class LanguageModel(eqx.Module):
    r"""A decoder-only transformer whose feed-forward layers are routed, over bytes or any other small vocabulary.

    With `router` any router of `gumbel_moe.routing`, by `make_router`, each layer routes all `n = b t` tokens of a
    batch together. Blocks are one program that runs `layers` times (`jax.lax.scan`) and is run again for the gradient
    instead of keeping what is inside (`jax.checkpoint`).

    **Arguments:**

    - `key`: of the initial values.
    - `sizes`: a `Sizes`.

    A call takes a JAX `key`, `tokens` `(b, t)` integers, the `router` (None for a dense model), and `router_states` of
    a router that carries a state, one for each layer along a first axis: what `init_states` gives, then
    `record.router_state` of the batch before. With `groups` the tokens are routed in so many batches of neighbouring
    ones, each with the router's capacity, on one device or, inside `on_mesh`, on many.

    **Returns:** a `Forward`.

    ```python
    >>> import jax, jax.numpy as jnp
    >>> from gumbel_moe.routing import load, make_router
    >>> from models.transformer import LanguageModel, Sizes
    >>> model = LanguageModel(jax.random.key(0), Sizes(layers=2, width=8, heads=2, experts=4, expert_width=16))
    >>> tokens = jnp.zeros((2, 6), jnp.uint8)
    >>> logits, record = model(jax.random.key(1), tokens, make_router("gumbel_matching", capacity=3))
    >>> logits.shape, jax.vmap(load)(record.routing).tolist()
    ((2, 6, 256), [[3, 3, 3, 3], [3, 3, 3, 3]])

    ```

    Reference: pre-norm, R. Xiong et al., arXiv 2002.04745 (2020); rotary positions, J. Su et al., arXiv 2104.09864
    (2021); tied embeddings, O. Press, L. Wolf, arXiv 1608.05859 (2017).
    """

    embedding: Array
    blocks: Block
    """Of all layers, stacked: array leaves have a first axis of size `layers`."""
    norm: eqx.nn.RMSNorm
    sizes: Sizes = eqx.field(static=True)

    def __init__(self, key: PRNGKeyArray, sizes: Sizes) -> None:
        for_embedding, for_blocks = jax.random.split(key)
        self.embedding = _SPREAD * jax.random.normal(for_embedding, (sizes.vocabulary, sizes.width))
        self.blocks = eqx.filter_vmap(lambda key: Block(key, sizes))(jax.random.split(for_blocks, sizes.layers))
        self.norm = eqx.nn.RMSNorm(sizes.width, use_bias=False)
        self.sizes = sizes

    def init_states(self, router: Any) -> Any:
        """A state of `router` for every layer, before the first batch; None where it carries none."""
        if not hasattr(router, "update"):
            return None
        state = router.init(self.sizes.experts)
        return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (self.sizes.layers, *leaf.shape)), state)

    def __call__(
        self,
        key: PRNGKeyArray,
        tokens: Integer[Array, "b t"],
        router: Any = None,
        router_states: Any = None,
        *,
        groups: Groups | None = None,
    ) -> Forward:
        """Logits of the next token after each, and what the routers did."""
        arrays, rest = eqx.partition(self.blocks, eqx.is_array)

        @jax.checkpoint
        def block(x: Array, layer: Any) -> tuple[Array, BlockRecord]:
            arrays, key, state = layer
            return eqx.combine(arrays, rest)(key, x, router, state, groups)

        x = self.embedding[tokens].astype(self.sizes.activations)
        keys = jax.random.split(key, self.sizes.layers)
        x, record = jax.lax.scan(block, x, (arrays, keys, router_states))
        return Forward(self.exit(x), record)

    def exit(self, x: Float[Array, "... d"]) -> Float[Array, "... v"]:
        """Logits of the next token, from the residual path after the last block, or from an earlier place of it."""
        normal = jax.vmap(self.norm)(x.reshape(-1, x.shape[-1]).astype(jnp.float32))
        return normal.reshape(x.shape) @ self.embedding.T

    def losses(self, logits: Float[Array, "... v"], targets: Integer[Array, "..."]) -> Float[Array, "..."]:
        """Cross-entropies in nats."""
        # A sum over the vocabulary rather than an index: the gradient of indexing is a scatter, slow on a CPU.
        chosen = jax.nn.one_hot(targets, logits.shape[-1], dtype=logits.dtype)
        return jax.nn.logsumexp(logits, axis=-1) - jnp.sum(logits * chosen, axis=-1)
