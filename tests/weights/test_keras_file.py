"""Reading Keras HDF5 files."""

import h5py
import jax
import numpy as np
import pytest
from lazily import Lazily

from emokd.errors import InputError
from emokd.weights.keras_file import read_keras

torch = Lazily("torch")
F = Lazily("torch.nn.functional")


def write(path, arrays, root=""):
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file[root + name] = value
        file.attrs["model_config"] = '{"class_name": "Lambda", "config": {"function": "not even looked at"}}'


@pytest.mark.parametrize("root", ["", "model_weights/"])
def test_names_are_layer_and_array(tmp_path, root):
    value = np.arange(4, dtype=np.float32)
    write(
        tmp_path / "x.h5",
        {"bn_1/bn_1_1/beta:0": value, "conv/conv/bias:0": value + 1, "bn_1/bn_1_1/gamma:0": value},
        root,
    )
    found = read_keras(tmp_path / "x.h5")
    assert found.keys() == {"bn_1/bias", "conv/bias", "bn_1/gamma"}
    np.testing.assert_array_equal(found["bn_1/bias"], value)
    np.testing.assert_array_equal(found["conv/bias"], value + 1)


@pytest.mark.parametrize("multiplier", [1, 2])
def test_depthwise_kernels_are_grouped_convolutions(tmp_path, multiplier):
    """Keras: output channel c * M + m is input channel c under depthwise_kernel[..., c, m]."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 3, 4, multiplier)).astype(np.float32)
    write(tmp_path / "x.h5", {"s/s/depthwise_kernel:0": kernel, "s/s/pointwise_kernel:0": np.ones((1, 1, 4, 2))})
    found = read_keras(tmp_path / "x.h5")
    assert found.keys() == {"s/depthwise/kernel", "s/pointwise/kernel"}
    x = random.normal(size=(1, 5, 6, 4)).astype(np.float32)
    ours = jax.lax.conv_general_dilated(
        x,
        found["s/depthwise/kernel"],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=4,
    )
    for c in range(4):
        for m in range(multiplier):
            expected = F.conv2d(torch.tensor(x[None, ..., c]), torch.tensor(kernel[None, None, ..., c, m]))[0, 0]
            np.testing.assert_allclose(ours[0, ..., c * multiplier + m], expected, rtol=1e-4, atol=1e-5)


def test_files_that_are_not_such_are_refused(tmp_path):
    (tmp_path / "x.h5").write_bytes(b"hello")
    with pytest.raises(InputError, match="cannot be read as HDF5"):
        read_keras(tmp_path / "x.h5")
    write(tmp_path / "three.h5", {"layers/conv2d/vars/0": np.ones(3)})
    with pytest.raises(InputError, match="Keras 3"):
        read_keras(tmp_path / "three.h5")
    write(tmp_path / "nested.h5", {"model/a/kernel:0": np.ones(3), "model/b/kernel:0": np.ones(3)})
    with pytest.raises(InputError, match="'model/kernel' twice"):
        read_keras(tmp_path / "nested.h5")


def test_depthwise_kernels_of_another_rank_are_refused(tmp_path):
    write(tmp_path / "x.h5", {"s/s/depthwise_kernel:0": np.ones((3, 4))})
    with pytest.raises(InputError, match=r"x.h5: 's/depthwise_kernel' has shape \(3, 4\)"):
        read_keras(tmp_path / "x.h5")


def test_model_weights_that_are_no_group_are_refused(tmp_path):
    write(tmp_path / "x.h5", {"model_weights": np.ones(3)})
    with pytest.raises(InputError, match="x.h5: 'model_weights' is no group"):
        read_keras(tmp_path / "x.h5")


@pytest.mark.parametrize("count", [1, 30])
def test_arrays_that_a_file_cannot_hold_are_refused_before_they_are_read(tmp_path, count):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for i in range(count):
            shape = (1024,) * 4 if count == 1 else (1024, 1024)
            file.create_dataset(f"a{i}/a{i}/kernel:0", shape, np.float32, chunks=True)
    with pytest.raises(InputError, match=r"x.h5: .*which the file cannot hold.*fetch or write it again"):
        read_keras(tmp_path / "x.h5")


def test_what_is_no_array_of_numbers_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/a/kernel:0"] = "text"
    with pytest.raises(InputError, match="'a/a/kernel:0' is no array of numbers"):
        read_keras(tmp_path / "x.h5")
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(InputError, match="empty.h5 holds no arrays"):
        read_keras(tmp_path / "empty.h5")


def test_flipped_bits_are_read_or_refused(tmp_path):
    """Never another kind of error, wherever the bit is."""
    write(tmp_path / "x.h5", {f"l{i}/l{i}/{leaf}:0": np.ones(4) for i in range(3) for leaf in ("kernel", "bias")})
    whole, random = (tmp_path / "x.h5").read_bytes(), np.random.default_rng(0)
    refused = 0
    for place in random.integers(0, len(whole), 300):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(random.integers(8))
        (tmp_path / "y.h5").write_bytes(damaged)
        try:
            read_keras(tmp_path / "y.h5")
        except InputError as error:
            refused += 1
            assert "y.h5" in str(error)
    assert refused > 3
