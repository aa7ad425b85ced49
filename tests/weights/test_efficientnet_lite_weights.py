"""EfficientNet-Lite0 files against a PyTorch network written from its description.

Table 1 of EfficientNet (Tan and Le 2019) without squeeze-excite, with ReLU6 and TensorFlow's padding; the blocks are
numbered in one row.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lazily import Lazily

from emokd.models.network import functional
from emokd.weights.importing import import_file

nn = Lazily("torch.nn")
torch = Lazily("torch")
torch_efficientnet_lite = Lazily("torch_efficientnet_lite")


def check_parity(reference, path) -> None:
    """The imported file answers as the reference does, at rtol 1e-4 of the largest logit."""
    reference.eval()
    model = import_file("efficientnet_lite0", path)
    head = next(iter(model.spec.heads))
    images = np.random.default_rng(1).normal(size=(2, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        expected = reference(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    signals, _ = jax.jit(functional(model.spec))(model.params, model.stats, jnp.asarray(images))
    found = signals.logits if head == "expression" else signals.intermediates[head]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * abs(expected).max())


def test_parity_on_random_weights(tmp_path):
    torch.manual_seed(0)
    reference = torch_efficientnet_lite.Lite0(5)
    with torch.no_grad():
        for module in reference.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    torch.save(reference.state_dict(), tmp_path / "lite0.pth")
    check_parity(reference, tmp_path / "lite0.pth")


@pytest.mark.parametrize("name", ["weights/efficientnet-lite0-57934424.pth"])
def test_parity_on_the_real_file(data_directory, name):
    reference = torch_efficientnet_lite.Lite0(1000)
    reference.load_state_dict(torch.load(data_directory / name, weights_only=True))
    check_parity(reference, data_directory / name)
