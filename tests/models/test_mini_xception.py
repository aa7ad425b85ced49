"""mini-Xception against a NumPy/PyTorch network written from the Keras description, and on real faces."""

import csv
import io
import os
import pathlib
import zipfile

import h5py
import jax
import numpy as np
import pytest
from lazily import Lazily
from PIL import Image
from small_jobs import paint

from emokd.configuration import defaults
from emokd.jobs import job
from emokd.models.mini_xception import window_means
from emokd.models.network import NetworkSpec, functional
from emokd.recipes import supervised
from emokd.weights.importing import import_file
from emokd.weights.mini_xception import CLASSES

torch = Lazily("torch")
F = Lazily("torch.nn.functional")


def random_keras_file(path, seed=0):
    """A file with the layer names, shapes and nesting of the published one, and random numbers."""
    random = np.random.default_rng(seed)
    shapes, norms = {}, {}
    for number, (inputs, outputs) in enumerate([(1, 8), (8, 8)], 1):
        shapes[f"conv2d_{number}", "kernel"] = (3, 3, inputs, outputs)
        norms[number] = outputs
    for block, (inputs, outputs) in enumerate([(8, 16), (16, 32), (32, 64), (64, 128)]):
        shapes[f"conv2d_{block + 3}", "kernel"] = (1, 1, inputs, outputs)
        for number, channels in ((2 * block + 1, inputs), (2 * block + 2, outputs)):
            shapes[f"separable_conv2d_{number}", "depthwise_kernel"] = (3, 3, channels, 1)
            shapes[f"separable_conv2d_{number}", "pointwise_kernel"] = (1, 1, channels, outputs)
        for number in range(3):
            norms[3 * block + 3 + number] = outputs
    shapes["conv2d_7", "kernel"], shapes["conv2d_7", "bias"] = (3, 3, 128, 7), (7,)
    for number, channels in norms.items():
        for array in ("gamma", "beta", "moving_mean", "moving_variance"):
            shapes[f"batch_normalization_{number}", array] = (channels,)
    arrays = {}
    with h5py.File(path, "w") as file:
        for (layer, array), shape in shapes.items():
            fan = np.prod(shape[:-1]) if array.endswith("kernel") and "depthwise" not in array else 9
            value = random.normal(0, 1.5 / np.sqrt(fan), shape)
            if array in ("gamma", "moving_variance"):
                value = random.uniform(0.5, 1.5, shape)
            arrays[f"{layer}/{array}"] = value.astype(np.float32)
            file[f"model_weights/{layer}/{layer}_1/{array}:0"] = arrays[f"{layer}/{array}"]
    return arrays


def same(x, size, stride, value=0.0):
    """TensorFlow's padding: what is uneven goes to the right and below."""
    pads = []
    for length in (x.shape[3], x.shape[2]):
        total = max((-(-length // stride) - 1) * stride + size - length, 0)
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads, value=value)


def reference(arrays, images):
    """Logits of the Keras network, in PyTorch, float64, from its description alone."""
    w = {name: torch.tensor(value, dtype=torch.float64) for name, value in arrays.items()}

    def conv(x, name, stride=1, pad=True):
        kernel = w[name].permute(3, 2, 0, 1)
        return F.conv2d(same(x, kernel.shape[2], stride) if pad else x, kernel, stride=stride)

    def separable(x, number):
        depthwise = w[f"separable_conv2d_{number}/depthwise_kernel"].permute(2, 3, 0, 1)
        x = F.conv2d(same(x, 3, 1), depthwise, groups=x.shape[1])
        return conv(x, f"separable_conv2d_{number}/pointwise_kernel")

    def norm(x, number):
        parts = [w[f"batch_normalization_{number}/{p}"] for p in ("moving_mean", "moving_variance", "gamma", "beta")]
        return F.batch_norm(x, *parts, eps=1e-3)

    x = torch.tensor(images, dtype=torch.float64).permute(0, 3, 1, 2)
    x = F.relu(norm(conv(x, "conv2d_1/kernel", pad=False), 1))
    x = F.relu(norm(conv(x, "conv2d_2/kernel", pad=False), 2))
    for block in range(4):
        shortcut = norm(conv(x, f"conv2d_{block + 3}/kernel", stride=2), 3 * block + 3)
        x = F.relu(norm(separable(x, 2 * block + 1), 3 * block + 4))
        x = norm(separable(x, 2 * block + 2), 3 * block + 5)
        x = F.max_pool2d(same(x, 3, 2, value=-torch.inf), 3, 2) + shortcut
    maps = conv(x, "conv2d_7/kernel") + w["conv2d_7/bias"][None, :, None, None]
    return maps.mean((2, 3)).numpy()


def test_agrees_with_the_keras_description(tmp_path):
    arrays = random_keras_file(tmp_path / "weights.hdf5")
    model = import_file("mini_xception", tmp_path / "weights.hdf5", head="expression", classes=CLASSES)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 64, 64, 1)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    expected = reference(arrays, images)
    np.testing.assert_allclose(signals.logits, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())
    assert np.abs(expected).max() > 0.1
    assert signals.features.shape == (2, 1152)
    assert model.spec.classes == {"expression": CLASSES}


@pytest.mark.parametrize("first", [0, 11])
def test_layers_that_keras_counted_otherwise_are_counted_anew(tmp_path, first):
    """ "conv2d", "conv2d_1", ... in a new session of later versions; conv2d_11, ... after other models."""
    arrays = random_keras_file(tmp_path / "weights.hdf5")

    def renamed(layer):
        kind, number = layer.rsplit("_", 1)
        return f"{kind}_{int(number) - 1 + first}" if first + int(number) > 1 else kind

    with h5py.File(tmp_path / "other.h5", "w") as file:
        for name, value in arrays.items():
            layer, array = name.split("/")
            file[f"{renamed(layer)}/{array}"] = value
        assert ("conv2d" in file) == (first == 0)
    one, two = (import_file("mini_xception", tmp_path / name) for name in ("weights.hdf5", "other.h5"))
    for ours, copy in zip(
        jax.tree.leaves((one.params, one.stats)), jax.tree.leaves((two.params, two.stats)), strict=True
    ):
        np.testing.assert_array_equal(ours, copy)


def read_arrays(path):
    """The arrays of a Keras file by layer and array, read without our reader."""
    arrays = {}

    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            arrays["/".join([name.split("/")[0], name.split("/")[-1].removesuffix(":0")])] = item[()]

    with h5py.File(path) as file:
        file["model_weights"].visititems(visit)
    return arrays


def test_the_published_file_agrees_with_the_keras_description(data_directory):
    path = data_directory / "weights/fer_mini_xception_fer2013.hdf5"
    model = import_file("mini_xception", path, head="expression", classes=CLASSES)
    images = np.random.default_rng(4).uniform(-1, 1, (3, 64, 64, 1)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    expected = reference(read_arrays(path), images)
    np.testing.assert_allclose(signals.logits, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert np.ptp(expected) > 0.1


def test_a_student_starts_from_the_numbers_in_a_keras_file(tmp_path):
    arrays = random_keras_file(tmp_path / "weights.hdf5")
    config = paint(supervised.default_config(), steps=1)
    config.student = defaults.network("mini_xception")
    config.student.init = str(tmp_path / "weights.hdf5")
    state = job.create_job(config.lock(), train_teacher=None).programs.create(jax.random.key(0))
    params, stats = state.params["student"]["backbone"], state.stats["student"]["backbone"]
    last = params["blocks"][3]["separables"][1]
    for found, expected in (
        (params["stem"]["convs"][0]["kernel"], arrays["conv2d_1/kernel"]),
        (params["stem"]["norms"][1]["scale"], arrays["batch_normalization_2/gamma"]),
        (last["depthwise"]["kernel"], arrays["separable_conv2d_8/depthwise_kernel"].transpose(0, 1, 3, 2)),
        (last["pointwise"]["kernel"], arrays["separable_conv2d_8/pointwise_kernel"]),
        (stats["blocks"][0]["shortcut_norm"]["var"], arrays["batch_normalization_3/moving_variance"]),
    ):
        np.testing.assert_array_equal(found, expected)


def test_padding_is_tensorflows_at_odd_sizes(tmp_path):
    arrays = random_keras_file(tmp_path / "weights.h5")
    model = import_file("mini_xception", tmp_path / "weights.h5", head="expression")
    images = np.random.default_rng(2).uniform(-1, 1, (1, 47, 52, 1)).astype(np.float32)
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, images)
    expected = reference(arrays, images)
    np.testing.assert_allclose(signals.logits, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_window_means_make_a_convolution_linear():
    random = np.random.default_rng(3)
    maps, kernel = random.normal(size=(2, 4, 5, 3)).astype(np.float32), random.normal(size=(3, 3, 3, 2))
    convolved = F.conv2d(
        torch.tensor(maps).double().permute(0, 3, 1, 2), torch.tensor(kernel).permute(3, 2, 0, 1), padding=1
    )
    np.testing.assert_allclose(
        np.asarray(window_means(maps)) @ kernel.reshape(27, 2), convolved.mean((2, 3)), rtol=1e-5, atol=1e-6
    )


def test_preprocessing_is_x_over_127_5_minus_1():
    preprocessing = functional(NetworkSpec("mini_xception")).module.backbone.preprocessing
    grey = np.full((1, 1, 1, 3), 51 / 255, np.float32)
    np.testing.assert_allclose(preprocessing(grey), [[[[51 / 127.5 - 1]]]], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif("EMOKD_DATA" not in os.environ, reason="EMOKD_DATA is not set: no real faces or weights")
def test_published_weights_recognise_ferplus():
    """72.6% is known on the faces of the test split that most raters agree on; 500 of them give +-4 points."""
    data = pathlib.Path(os.environ["EMOKD_DATA"])
    order = ("neutral", "happy", "surprise", "sad", "angry", "disgust", "fear")
    model = import_file(
        "mini_xception", data / "weights" / "fer_mini_xception_fer2013.hdf5", head="expression", classes=CLASSES
    )
    images, labels = [], []
    with (data / "ferplus" / "fer2013new.csv").open() as file:
        rows = [row for row in csv.reader(file) if row[0] == "PrivateTest"]
    with zipfile.ZipFile(data / "ferplus" / "images.zip") as archive:
        for row in rows:
            votes = np.array(row[2:], int)
            if len(labels) == 500:
                break
            if votes.argmax() >= 7 or 2 * votes.max() <= votes.sum():
                continue
            picture = Image.open(io.BytesIO(archive.read(f"FER2013Test/{row[1]}"))).resize((64, 64), Image.BILINEAR)
            images.append(np.asarray(picture, np.float32)[..., None] / 127.5 - 1)
            labels.append(CLASSES.index(order[votes.argmax()]))
    network = functional(model.spec)
    signals, _ = jax.jit(network)(model.params, model.stats, np.stack(images))
    accuracy = np.mean(np.asarray(signals.logits).argmax(-1) == np.array(labels))
    print(f"accuracy on {len(labels)} faces: {accuracy:.3f}")
    assert 0.66 <= accuracy <= 0.80
