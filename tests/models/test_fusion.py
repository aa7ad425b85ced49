"""Fusions against PyTorch and NumPy written from the formulas, absent modalities, and costs counted by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from lazily import Lazily

from emokd.errors import InputError
from emokd.models.fusion import create_fusion
from emokd.models.macs import count_macs
from emokd.models.network import count_parameters

torch = Lazily("torch")
torch_fusion = Lazily("torch_fusion")


BATCH, MODALITIES, WIDTH = 5, 3, 8
CASES = {
    "concatenation": {},
    "joint_cross_attention": {"recursions": 2, "hidden": 4},
    "transformer": {},
}
# Each example misses other modalities; the first misses none.
PRESENT = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 1], [1, 0, 0]], bool)


@functools.cache
def make(name, modalities=MODALITIES, **options):
    """The fusion, with random parameters of order one, as a compiled function of tokens and presence."""
    fusion = create_fusion(name, modalities, WIDTH, rngs=nnx.Rngs(0), **{**CASES[name], **options})
    graph, params = nnx.split(fusion)
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.5 * random.normal(size=leaf.shape), leaf.dtype), params)
    fusion = nnx.merge(graph, params)
    return fusion, jax.jit(lambda tokens, present: fusion(tokens, present))


def draw(modalities=MODALITIES, seed=0):
    return np.random.default_rng(seed).normal(size=(BATCH, modalities, WIDTH)).astype(np.float32)


@pytest.mark.parametrize("name", CASES)
def test_an_example_does_not_see_its_batch_mates(name):
    fusion, fuse = make(name)
    tokens, others = draw(), draw(seed=1)
    others[0] = tokens[0]
    presence = PRESENT[[0, 3, 4, 1, 2]]
    found = fuse(tokens, PRESENT)
    assert found.shape == (BATCH, fusion.feature_size)
    np.testing.assert_allclose(fuse(others, presence)[0], found[0], rtol=1e-5, atol=1e-6)
    assert not np.allclose(found[1:], fuse(others, presence)[1:])


def test_over_the_batch_it_does_as_in_the_release():
    _, fuse = make("transformer", attend="batch")
    tokens, others = draw(), draw(seed=1)
    others[0] = tokens[0]
    assert np.abs(fuse(tokens, PRESENT)[0] - fuse(others, PRESENT)[0]).max() > 1e-2


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in CASES), ("transformer", {"attend": "batch"})])
def test_an_absent_modality_has_no_influence(name, options):
    _, fuse = make(name, **options)
    tokens = draw()
    expected = fuse(tokens, PRESENT)
    assert np.isfinite(expected).all()
    for value in (7.0, np.nan, np.inf):
        np.testing.assert_array_equal(fuse(np.where(PRESENT[..., None], tokens, np.float32(value)), PRESENT), expected)
    assert np.abs(fuse(tokens, np.ones_like(PRESENT)) - expected)[1:].max(1).min() > 1e-3


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_and_none_goes_to_an_absent_modality(name):
    fusion, _ = make(name)
    tokens = np.where(PRESENT[..., None], draw(), np.float32(np.nan))
    present = np.concatenate([PRESENT, np.zeros((1, MODALITIES), bool)])
    tokens = np.concatenate([tokens, tokens[-1:]])
    graph, params = nnx.split(fusion)
    gradients, by_tokens = jax.jit(
        jax.grad(lambda params, tokens: (nnx.merge(graph, params)(tokens, present) ** 2).sum(), (0, 1))
    )(params, tokens)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    assert (np.abs(by_tokens).max(2) > 0).tolist() == present.tolist()


def test_concatenation_puts_a_learned_vector_in_the_gap():
    fusion, fuse = make("concatenation")
    tokens, absent = draw(), np.asarray(fusion.absent[...])
    expected = np.where(PRESENT[..., None], tokens, absent[None]).reshape(BATCH, -1)
    np.testing.assert_array_equal(fuse(tokens, PRESENT), expected)
    assert fusion.feature_size == MODALITIES * WIDTH


@pytest.mark.parametrize("recursions", [1, 3])
def test_joint_cross_attention_by_the_published_formulas(recursions):
    """One example after the other, with the matrices as in the paper: a column of X and J for the one time step."""
    fusion, fuse = make("joint_cross_attention", recursions=recursions)
    tokens = draw()
    expected = []
    for token, present in zip(tokens.astype(np.float64), PRESENT, strict=True):
        x = [part[None] * there for part, there in zip(token, present, strict=True)]
        for _ in range(recursions):
            joint = np.concatenate(x, 1)
            attended = []
            for part, own in zip(x, fusion.attentions, strict=True):
                scale = np.asarray(own.correlation[...]).reshape(1, 1)
                correlation = np.tanh(part.T @ scale @ joint / np.sqrt(joint.shape[1]))
                hidden = (
                    np.asarray(own.own.kernel[...]).T @ part + np.asarray(own.attention.kernel[...]).T @ correlation.T
                )
                attended.append(np.asarray(own.out.kernel[...]).T @ np.maximum(hidden, 0) + part)
            x = attended
        expected.append(np.concatenate(x, 1)[0])
    np.testing.assert_allclose(fuse(tokens, PRESENT), expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def gate_of_two(gate, first, second):
    """The paper's: g = sigmoid(Linear([c_1, c_2])), J = g c_1 + (1 - g) c_2."""
    g = torch.sigmoid(torch_fusion.linear(gate, torch.cat([first, second], 1)))
    return g * first + (1 - g) * second


def test_the_release_with_two_modalities():
    """Tokens [B, 1, D] in attention that takes the sequence first; then one example, one key, asked by the other."""
    fusion, fuse = make("transformer", modalities=2, attend="batch")
    tokens = draw(2)
    with torch.no_grad():
        v, p = (
            torch_fusion.Block(block, batch_first=False)(x, x)
            for block, x in zip(fusion.blocks, torch.tensor(tokens)[:, None].unbind(2), strict=True)
        )
        first = torch_fusion.attention(fusion.cross[0], batch_first=True)(p, v, v)[0][:, 0]
        second = torch_fusion.attention(fusion.cross[1], batch_first=True)(v, p, p)[0][:, 0]
        expected = gate_of_two(fusion.gate, first, second).numpy()
    np.testing.assert_allclose(fuse(tokens, np.ones((BATCH, 2), bool)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modalities", [2, 3])
def test_tokens_of_modalities_by_pytorch(modalities):
    fusion, fuse = make("transformer", modalities=modalities)
    tokens, present = draw(modalities), PRESENT[:, -modalities:].copy()
    present[-1, -1] = True
    with torch.no_grad():
        absent = ~torch.tensor(present)
        x = torch.tensor(tokens)
        x = torch.cat([torch_fusion.Block(b, True)(x[:, m : m + 1], x, absent) for m, b in enumerate(fusion.blocks)], 1)
        mixed = torch.cat(
            [
                torch_fusion.attention(part, True)(x[:, m : m + 1], x, x, key_padding_mask=absent)[0]
                for m, part in enumerate(fusion.cross)
            ],
            1,
        )
        mixed[absent] = 0
        scores = torch_fusion.linear(fusion.gate, mixed.flatten(1))
        scores = torch.cat([scores, torch.zeros(BATCH, 1)], 1).masked_fill(absent, -torch.inf)
        expected = (scores.softmax(1)[..., None] * mixed).sum(1)
        if modalities == 2:
            both = present.all(1)
            np.testing.assert_allclose(gate_of_two(fusion.gate, *mixed.unbind(1))[both], expected[both], rtol=1e-5)
            assert both.any()
    np.testing.assert_allclose(fuse(tokens, present), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("modalities", [2, 3])
def test_cost_of_the_transformer_by_hand(modalities):
    width, batch, m = 512, 4, modalities
    graph, params = nnx.split(nnx.eval_shape(lambda: create_fusion("transformer", m, width, rngs=nnx.Rngs(0))))
    attention = 4 * (width * width + width)
    block = attention + 2 * (width * width + width) + 2 * 2 * width
    gate = (m * width + 1) * (m - 1)
    assert count_parameters(nnx.to_pure_dict(params)) == m * (block + attention) + gate
    tokens = jax.ShapeDtypeStruct((batch, m, width), jnp.float32)
    present = jax.ShapeDtypeStruct((batch, m), bool)
    # One query: it and the output are projected once, each of m keys twice, scored and mixed.
    attention = (2 + 2 * m) * width**2 + 2 * m * width
    macs = batch * (m * (2 * attention + 2 * width**2) + m * width * (m - 1))
    assert count_macs(lambda p, t, q: nnx.merge(graph, p)(t, q), params, tokens, present) == macs


@pytest.mark.parametrize(
    ("name", "modalities", "options", "message"),
    [
        ("transformr", 2, {}, "Did you mean 'transformer'"),
        ("transformer", 1, {}, "at least two modalities, not 1"),
        ("transformer", 2, {"heads": 3}, r"heads of the fusion transformer \(3\) must divide its width \(8\)"),
        ("transformer", 2, {"attend": "bach"}, "Did you mean 'batch'"),
        ("transformer", 2, {"recursions": 2}, "recursions"),
        ("joint_cross_attention", 2, {"recursions": 0}, "recursions >= 1"),
        ("concatenation", 0, {}, "modalities >= 1"),
    ],
)
def test_what_cannot_be_is_refused(name, modalities, options, message):
    with pytest.raises(InputError, match=message):
        create_fusion(name, modalities, WIDTH, rngs=nnx.Rngs(0), **options)
