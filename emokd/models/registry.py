"""Backbones by name. A new architecture is one file and one line here."""

import importlib

from flax import nnx

from emokd import imports
from emokd.errors import InputError, nearest

BACKBONES = {
    "basic_cnn": "emokd.models.basic_cnn:BasicCNN",
    "resnet18": "emokd.models.resnet:resnet18",
    "resnet50": "emokd.models.resnet:resnet50",
    "mobilenet_v2": "emokd.models.mobilenet_v2:MobileNetV2",
    "efficientnet_b0": "emokd.models.efficientnet:efficientnet_b0",
    "efficientnet_b2": "emokd.models.efficientnet:efficientnet_b2",
    "efficientnet_lite0": "emokd.models.efficientnet:efficientnet_lite0",
    "hsemotion_b0": "emokd.models.efficientnet:efficientnet_b0",
    "hsemotion_b2": "emokd.models.efficientnet:efficientnet_b2",
    "convnext_tiny": "emokd.models.convnext:convnext_tiny",
    "efficientformer_l1": "emokd.models.efficientformer:efficientformer_l1",
    "efficientformer_l3": "emokd.models.efficientformer:efficientformer_l3",
    "efficientformer_l7": "emokd.models.efficientformer:efficientformer_l7",
    "dinov2_small": "emokd.models.dinov2:dinov2_small",
    "clip_vit_b32": "emokd.models.clip:clip_vit_b32",
    "mini_xception": "emokd.models.mini_xception:MiniXception",
    "emonet": "emokd.models.emonet:EmoNet",
    "face_api_expression": "emokd.models.face_api_expression:FaceApiExpression",
    "face_api_age_gender": "emokd.models.face_api_age_gender:FaceApiAgeGender",
    "face_api_identity": "emokd.models.face_api_identity:FaceApiIdentity",
    "r3d18": "emokd.models.resnet3d:R3D18",
    "frames": "emokd.models.frames:FrameEncoder",
    "spectrogram_resnet18": "emokd.models.spectrogram:SpectrogramResNet18",
    "conv1d": "emokd.models.conv1d:Conv1d",
    "mlp": "emokd.models.mlp:MLP",
}


def create_backbone(name: str, *, rngs: nnx.Rngs, **options) -> nnx.Module:
    """Makes the backbone `name`, or that of a user's own factory at the import path "package.module:factory".

    A backbone is an `nnx.Module` with `feature_size: int` and `__call__(inputs normalised) -> Signals` holding features
    [B, feature_size]. A backbone for pictures [B, H, W, C] or videos [B, T, H, W, C] has a `preprocessing:
    Preprocessing`; for videos it also has `takes_videos = True`. Any other has an option `shape`, that of one example.

    Raises:
      InputError: there is no such backbone, or it does not take one of the options.
    """
    if imports.is_path(name):
        factory = imports.load(name, "The backbone")
    elif name in BACKBONES:
        module, attribute = BACKBONES[name].split(":")
        factory = getattr(importlib.import_module(module), attribute)
    else:
        raise InputError(
            f"There is no model {name!r}.{nearest(name, BACKBONES)} Known: {', '.join(sorted(BACKBONES))}, or "
            "package.module:factory of your own."
        )
    try:
        return factory(rngs=rngs, **options)
    except TypeError as error:
        raise InputError(f"Model {name!r} cannot be made with the options {options}: {error}") from error
