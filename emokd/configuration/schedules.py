"""Learning-rate schedules of a phase, from its own step 0."""

import optax

from emokd.errors import InputError, nearest


def learning_rate_schedule(peak: float, steps: int, warmup_steps: int, kind: str) -> optax.Schedule:
    """Linear warm-up to `peak`, then "cosine" to zero, "linear" to zero, or "constant".

    Args:
      peak: the highest learning rate, reached at the last step of the warm-up.
      steps: length of the phase, the warm-up included.
      warmup_steps: length of the warm-up; 0 for none.
      kind: what follows the warm-up.

    Raises:
      InputError: the warm-up does not fit in the phase, or the kind is unknown.
    """
    if warmup_steps >= max(steps, 1) and warmup_steps > 0:
        raise InputError(f"A warm-up of {warmup_steps} steps does not fit in a phase of {steps}; shorten the warm-up.")
    rest = max(steps - warmup_steps, 1)
    kinds = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
        "constant": lambda: optax.constant_schedule(peak),
    }
    if kind not in kinds:
        raise InputError(f"There is no learning-rate schedule {kind!r}.{nearest(kind, kinds)} Known: {sorted(kinds)}.")
    warmup = optax.linear_schedule(peak / max(warmup_steps, 1), peak, max(warmup_steps - 1, 1))
    return optax.join_schedules([warmup, kinds[kind]()], [warmup_steps]) if warmup_steps else kinds[kind]()
