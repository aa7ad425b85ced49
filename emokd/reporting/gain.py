"""What distillation gave: the student beside the same network on labels alone, in a sentence."""

import math
from collections.abc import Mapping
from typing import Any

from emokd.reporting.scoreboard import column_name, headline_scores, higher_is_better


def gain_of_distillation(scores: Mapping[str, Any]) -> str:
    """The difference in every headline score that both networks have; empty where they share none.

    It is of one run, and says nothing of what another seed would give.

    Args:
      scores: the content of scores.json, with `student`, `baseline` and `baseline_training`.
    """
    own, alone = (headline_scores(scores.get(name) or {}) for name in ("student", "baseline"))
    differences = {name: value - alone[name] for name, value in own.items() if name in alone}
    differences = {name: value for name, value in differences.items() if math.isfinite(value)}
    if not differences:
        return ""
    several = len({name.split(".")[0] for name in differences} - {"valence_arousal"}) > 1
    told = [
        f"{value:+.4f} {column_name(name, with_target=several)}{'' if higher_is_better(name) else ' (lower is better)'}"
        for name, value in differences.items()
    ]
    steps = (scores.get("baseline_training") or {}).get("steps")
    trained = f", trained for {steps} steps" if steps is not None else ""
    return f"Distillation gave {', '.join(told)} over the same network on labels alone{trained}; one run."
