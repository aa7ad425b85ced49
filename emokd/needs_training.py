"""Commands that need the extra `train` import this first: where it is missing, they say so and end with exit code 2."""

import importlib.util
import pathlib
import sys

PACKAGES = ("flax", "grain", "jax", "ml_collections", "optax", "orbax")
"""Of the extra's packages those that show whether it is installed."""

missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
if missing:
    print(
        f"{pathlib.Path(sys.argv[0]).stem}: this command needs packages that are not installed ({', '.join(missing)}). "
        "Install them: pip install emokd[train].",
        file=sys.stderr,
    )
    raise SystemExit(2)
