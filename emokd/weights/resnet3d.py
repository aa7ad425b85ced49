"""torchvision's names of the modules of R3D-18."""

UNITS = {"conv": "0", "norm": "1"}


def foreign_module(path: str) -> str:
    """The module of torchvision's `r3d_18` that is ours at `path`.

    Args:
      path: such as "backbone/stages/0/1/units/0/conv" ("layer1.1.conv1.0") or "heads/actions"; any head is "fc".

    Raises:
      KeyError: torchvision has no such module.
    """
    match path.split("/"):
        case ["heads", _]:
            return "fc"
        case ["backbone", "stem", unit]:
            return f"stem.{UNITS[unit]}"
        case ["backbone", "stages", stage, block, "units", place, unit]:
            return f"layer{int(stage) + 1}.{block}.conv{int(place) + 1}.{UNITS[unit]}"
        case ["backbone", "stages", stage, block, "shortcut", unit]:
            return f"layer{int(stage) + 1}.{block}.downsample.{UNITS[unit]}"
    raise KeyError(path)
