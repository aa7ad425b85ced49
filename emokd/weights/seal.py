"""A description's own hash, which shows whether it was changed after it was written, but not by intent."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "description_sha256"
"""The key of the hash."""


def sealed(description: Mapping[str, Any]) -> dict[str, Any]:
    """The description with its own hash, which replaces an older one."""
    content = {name: value for name, value in description.items() if name != SEAL}
    return {**content, SEAL: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}
