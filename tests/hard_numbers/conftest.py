"""Hypothesis draws the same examples in every run, few by default; EMOKD_EXAMPLES=N asks for more of the same kind."""

import os
import tempfile

from hypothesis import HealthCheck, configuration, settings

EXAMPLES = int(os.environ.get("EMOKD_EXAMPLES", "12"))

configuration.set_hypothesis_home_dir(os.path.join(tempfile.gettempdir(), f"hypothesis-{os.getuid()}"))
settings.register_profile(
    "emokd",
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors],
)
settings.load_profile("emokd")
