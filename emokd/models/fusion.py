"""Fusions of modalities: from one token per modality, some of them absent, to one vector per example.

Examples do not influence each other, except in `Transformer(attend="batch")`. An absent modality has no influence,
whatever its token holds, NaN included. Each example must have at least one modality. A compiled step cannot check
that; where none is present (as in padding rows) the result is finite and meaningless.
Fusions compute in the dtype of the tokens, but norms and softmax in at least float32, which is the result's dtype.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from emokd.errors import InputError, nearest
from emokd.models.convolution import widen
from emokd.models.layers import LayerNorm
from emokd.models.layers import Linear as AnyLinear

ATTEND = ("modalities", "batch")

Linear = functools.partial(AnyLinear, kernel_init=nnx.initializers.lecun_normal())


class Concatenation(nnx.Module):
    """The tokens side by side; each modality has a learned vector, at first zero, for where it is absent. [ours]

    Args:
      modalities: number of tokens M.
      width: size of a token D; the feature size is M * D.
      rngs: not used.
    """

    def __init__(self, modalities: int, width: int, *, rngs: nnx.Rngs):
        self.absent = nnx.Param(jnp.zeros((modalities, width)))
        self.feature_size = modalities * width

    def __call__(self, tokens: Float[Array, "B M D"], present: Bool[Array, "B M"]) -> Float[Array, "B M*D"]:
        tokens = widen(tokens)
        absent = jnp.broadcast_to(self.absent[...].astype(tokens.dtype)[None], tokens.shape)
        return jnp.where(present[..., None], tokens, absent).reshape(tokens.shape[0], -1)


class JointAttention(nnx.Module):
    """One modality's part of joint cross-attention: its features attend by their correlation with the joint ones.

    With X the modality's features, J the joint features, d the size of J (Praveen et al. 2022, arXiv 2203.14779):

        C = tanh(X^T W_j J / sqrt(d)),   H = relu(W X + W_c C^T),   X_att = W_h H + X

    In the paper X and J have a column for each time step, and W_j, W and W_h mix time steps. Here a token is a single
    step, so W_j is a scalar, W and W_h are vectors, and C holds D x d correlations for each example.

    Args:
      width: size of a token D.
      joint: size of the joint representation d.
      hidden: rows of H.
      rngs: source of the fresh parameters.
    """

    def __init__(self, width: int, joint: int, hidden: int, *, rngs: nnx.Rngs):
        self.correlation = nnx.Param(jnp.ones(()))
        self.own = Linear(1, hidden, use_bias=False, rngs=rngs)
        self.attention = Linear(joint, hidden, use_bias=False, rngs=rngs)
        self.out = Linear(hidden, 1, use_bias=False, rngs=rngs)

    def __call__(self, token: Float[Array, "B D"], joint: Float[Array, "B J"]) -> Float[Array, "B D"]:
        scaled = joint * (self.correlation[...] * joint.shape[1] ** -0.5).astype(joint.dtype)
        correlations = jnp.tanh(token[:, :, None] * scaled[:, None, :])
        hidden = jax.nn.relu(self.own(token[:, :, None]) + self.attention(correlations))
        return self.out(hidden)[:, :, 0] + token


class JointCrossAttention(nnx.Module):
    """Recursive joint cross-attention (Praveen et al. 2023, arXiv 2304.07958), without its LSTMs.

    Each modality attends to the concatenation of all modalities; the attended features are the next recursion's input,
    with the same weights. An absent modality's token is zero and stays zero, so its correlations are 0. [ours] The
    memory of a training step grows with B * (M * D)^2.

    Args:
      modalities: number of tokens M.
      width: size of a token D; the feature size is M * D.
      recursions: how often the modalities attend.
      hidden: rows of the attention maps; 32 in the authors' code.
      rngs: source of the fresh parameters.

    Raises:
      InputError: `recursions` or `hidden` is below 1.
    """

    def __init__(self, modalities: int, width: int, recursions: int = 2, hidden: int = 32, *, rngs: nnx.Rngs):
        if recursions < 1 or hidden < 1:
            raise InputError(
                f"joint_cross_attention needs recursions >= 1 and hidden >= 1, not {recursions} and {hidden}."
            )
        self.attentions = nnx.List(
            [JointAttention(width, modalities * width, hidden, rngs=rngs) for _ in range(modalities)]
        )
        self.recursions = recursions
        self.feature_size = modalities * width

    def __call__(self, tokens: Float[Array, "B M D"], present: Bool[Array, "B M"]) -> Float[Array, "B M*D"]:
        tokens = _zero_absent(tokens, present)
        joint = tokens.reshape(tokens.shape[0], -1)
        for _ in range(self.recursions):
            attended = [attend(tokens[:, m], joint) for m, attend in enumerate(self.attentions)]
            tokens = jnp.stack(attended, 1)
            joint = tokens.reshape(joint.shape)
        return widen(joint)


class Attention(nnx.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017); absent keys are masked."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query = Linear(width, width, rngs=rngs)
        self.key = Linear(width, width, rngs=rngs)
        self.value = Linear(width, width, rngs=rngs)
        self.out = Linear(width, width, rngs=rngs)

    def __call__(
        self, queries: Float[Array, "B Q D"], keys: Float[Array, "B K D"], present: Bool[Array, "B K"]
    ) -> Float[Array, "B Q D"]:
        split = (self.heads, queries.shape[2] // self.heads)
        query = self.query(queries).reshape(*queries.shape[:2], *split)
        key, value = (part(keys).reshape(*keys.shape[:2], *split) for part in (self.key, self.value))
        scores = widen(jnp.einsum("bqhc,bkhc->bhqk", query, key)) * split[1] ** -0.5
        scores = jnp.where(present[:, None, None, :], scores, jnp.finfo(scores.dtype).min)
        mixed = jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores).astype(value.dtype), value)
        return self.out(mixed.reshape(queries.shape))


class Block(nnx.Module):
    """A post-norm transformer block: attention, then two linear layers with a ReLU between them."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.attention = Attention(width, heads, rngs=rngs)
        self.norm_1 = LayerNorm(width, rngs=rngs)
        self.expand = Linear(width, width, rngs=rngs)
        self.project = Linear(width, width, rngs=rngs)
        self.norm_2 = LayerNorm(width, rngs=rngs)

    def __call__(
        self, queries: Float[Array, "B Q D"], keys: Float[Array, "B K D"], present: Bool[Array, "B K"]
    ) -> Float[Array, "B Q D"]:
        x = self.norm_1(queries + self.attention(queries, keys, present))
        return self.norm_2(x + self.project(jax.nn.relu(self.expand(x))))


class Transformer(nnx.Module):
    """MT-PKDOT's fusion: a block and a cross-attention for each modality, and a gate between the results.

    h_m = Block_m(x_m), c_m = CrossAttention_m(h_m) and, for two modalities,
    g = sigmoid(Linear([c_1, c_2])), J = g c_1 + (1 - g) c_2. For M modalities the gates are the softmax of M - 1
    learned scores and a zero [ours], which for M = 2 is that sigmoid. Absent modalities have no gate.

    With `attend="modalities"` [ours] the query of modality m's block and cross-attention is m's token, and the keys are
    the tokens of all modalities that the example has, m's among them. So the query has an effect, and an example with
    a single modality works too.

    `attend="batch"` mirrors the authors' release, faults included. The block's self-attention runs over the examples of
    the mini-batch, so an example's output depends on the rest of its batch. The cross-attention of m has a single key,
    m's token, so its query (in the release, the other modality) has no effect.

    Args:
      modalities: number of tokens M.
      width: size of a token D, of the blocks' hidden layer, and of the features.
      heads: of every attention.
      attend: "modalities" or "batch".
      rngs: source of the fresh parameters.

    Raises:
      InputError: there are fewer than two modalities, `heads` does not divide `width`, or `attend` is unknown.
    """

    def __init__(self, modalities: int, width: int, heads: int = 2, attend: str = "modalities", *, rngs: nnx.Rngs):
        if modalities < 2:
            raise InputError(f"The fusion transformer needs at least two modalities, not {modalities}.")
        if heads < 1 or width % heads:
            raise InputError(f"The heads of the fusion transformer ({heads}) must divide its width ({width}).")
        if attend not in ATTEND:
            raise InputError(
                f"The fusion transformer cannot attend over {attend!r}.{nearest(attend, ATTEND)} "
                f"Known: {', '.join(ATTEND)}."
            )
        self.blocks = nnx.List([Block(width, heads, rngs=rngs) for _ in range(modalities)])
        self.cross = nnx.List([Attention(width, heads, rngs=rngs) for _ in range(modalities)])
        self.gate = Linear(modalities * width, modalities - 1, rngs=rngs)
        self.over_batch = attend == "batch"
        self.feature_size = width

    def __call__(self, tokens: Float[Array, "B M D"], present: Bool[Array, "B M"]) -> Float[Array, "B D"]:
        tokens = _zero_absent(tokens, present)
        mixed = self._mix_batch(tokens, present) if self.over_batch else self._mix_modalities(tokens, present)
        mixed = _zero_absent(mixed, present)
        scores = widen(self.gate(mixed.reshape(mixed.shape[0], -1)))
        scores = jnp.concatenate([scores, jnp.zeros_like(scores[:, :1])], 1)
        gates = jax.nn.softmax(jnp.where(present, scores, jnp.finfo(scores.dtype).min))
        return (widen(mixed) * gates[..., None]).sum(1)

    def _mix_modalities(self, tokens: Float[Array, "B M D"], present: Bool[Array, "B M"]) -> Float[Array, "B M D"]:
        parts = [block(tokens[:, m : m + 1], tokens, present) for m, block in enumerate(self.blocks)]
        tokens = jnp.concatenate(parts, 1)
        return jnp.concatenate(
            [attend(tokens[:, m : m + 1], tokens, present) for m, attend in enumerate(self.cross)], 1
        )

    def _mix_batch(self, tokens: Float[Array, "B M D"], present: Bool[Array, "B M"]) -> Float[Array, "B M D"]:
        mixed = []
        for m, (block, attend) in enumerate(zip(self.blocks, self.cross, strict=True)):
            examples = tokens[None, :, m]
            token = block(examples, examples, present[None, :, m])[0][:, None]
            mixed.append(attend(token, token, present[:, m : m + 1]))
        return jnp.concatenate(mixed, 1)


FUSIONS: dict[str, Callable[..., nnx.Module]] = {
    "concatenation": Concatenation,
    "joint_cross_attention": JointCrossAttention,
    "transformer": Transformer,
}


def create_fusion(name: str, modalities: int, width: int, *, rngs: nnx.Rngs, **options) -> nnx.Module:
    """Makes the fusion `name` of M `modalities` of equal `width` D.

    A fusion is an `nnx.Module` with `feature_size: int` and `__call__(tokens [B, M, D], present [B, M]) ->
    [B, feature_size]`. Modalities for which `present` is False have no influence.

    Raises:
      InputError: there is no such fusion, it does not take one of the options, or a size is below 1.
    """
    if name not in FUSIONS:
        raise InputError(f"There is no fusion {name!r}.{nearest(name, FUSIONS)} Known: {', '.join(sorted(FUSIONS))}.")
    if modalities < 1 or width < 1:
        raise InputError(f"A fusion needs modalities >= 1 and width >= 1, not {modalities} and {width}.")
    try:
        return FUSIONS[name](modalities, width, rngs=rngs, **options)
    except TypeError as error:
        raise InputError(f"Fusion {name!r} cannot be made with the options {options}: {error}") from error


def _zero_absent(tokens: Float[Array, "B M D"], present: Bool[Array, "B M"]) -> Float[Array, "B M D"]:
    return jnp.where(present[..., None], tokens, jnp.zeros_like(tokens))
