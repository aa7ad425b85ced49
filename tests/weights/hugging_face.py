"""Small networks of transformers with random weights, and their files."""

from lazily import Lazily

torch = Lazily("torch")
safetensors_torch = Lazily("safetensors.torch")


def randomise(model, seed=0):
    """Random parameters under which activations stay of order one, and no normalisation or scale is the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.ndim == 1 and name.endswith(("weight", "lambda1")):
            tensor.copy_(1 + 0.3 * noise)
        elif tensor.ndim > 1 and name.endswith("weight") and "position" not in name:
            tensor.copy_(1.5 * noise / tensor[0].numel() ** 0.5)
        else:
            tensor.copy_(0.5 * noise)
    return model.eval()


def save(model, path, **more):
    """Writes a model's state, and further arrays, as safetensors."""
    safetensors_torch.save_file({**{k: v.contiguous() for k, v in model.state_dict().items()}, **more}, str(path))
    return path


def as_torch(images):
    """Pictures with the channels first."""
    return torch.from_numpy(images).permute(0, 3, 1, 2)
