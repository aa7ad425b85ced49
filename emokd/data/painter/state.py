"""The emotional state behind a synthetic example: what picture, physiology and sound all express.

The class means lie where the circumplex of affect puts the eight expressions; every number here is our own
choice [ours], none is measured on people.
"""

import dataclasses

from emokd.data.painter.random import Purpose, Stream

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
SCENES = ("sky", "sea", "forest", "mountain", "desert", "room", "city", "night")
IDENTITIES = tuple(f"person_{i:02d}" for i in range(16))

# Mean and standard deviation of valence, then of arousal, by expression.
_CIRCUMPLEX = (
    (0.00, 0.10, -0.05, 0.12),
    (0.65, 0.16, 0.30, 0.20),
    (-0.60, 0.16, -0.30, 0.20),
    (0.15, 0.22, 0.65, 0.15),
    (-0.45, 0.18, 0.65, 0.16),
    (-0.60, 0.16, 0.30, 0.18),
    (-0.50, 0.18, 0.60, 0.18),
    (-0.40, 0.16, 0.05, 0.16),
)
# How much likelier than at valence 0 each scene is at valence 1; at valence -1 as much less likely.
_SCENE_PLEASANTNESS = (0.5, 0.4, 0.2, 0.1, -0.1, -0.2, -0.4, -0.5)


@dataclasses.dataclass(frozen=True)
class State:
    """Who feels what, and where.

    Attributes:
      expression: position in EXPRESSIONS.
      valence: in [-1, 1].
      arousal: in [-1, 1].
      identity: position in IDENTITIES.
      scene: position in SCENES; only weakly related to the emotion.
    """

    expression: int
    valence: float
    arousal: float
    identity: int
    scene: int

    @property
    def intensity(self) -> float:
        """How strongly the expression shows, in [0.5, 1.4]; 1 at its class mean, more with more valence and arousal."""
        mean_valence, _, mean_arousal, _ = _CIRCUMPLEX[self.expression]
        usual = max(mean_valence * mean_valence + mean_arousal * mean_arousal, 0.1)
        relative = (self.valence * self.valence + self.arousal * self.arousal) / usual
        return 0.5 + 0.9 * relative / (relative + 0.8)


def sample_state(seed: int, index: int) -> State:
    """Draws the state of example `index` from a random stream that nothing else reads. Expressions are equally likely.

    A picture, a physiological trace and a sound of the same (seed, index) therefore share their state, and none
    of them depends on how many random numbers another needs.
    """
    stream = Stream(seed, index, Purpose.STATE)
    expression = stream.choice([1.0] * len(EXPRESSIONS))
    identity = stream.choice([1.0] * len(IDENTITIES))
    mean_valence, valence_deviation, mean_arousal, arousal_deviation = _CIRCUMPLEX[expression]
    valence = min(max(mean_valence + stream.normal(valence_deviation), -1.0), 1.0)
    arousal = min(max(mean_arousal + stream.normal(arousal_deviation), -1.0), 1.0)
    scene = stream.choice([1.0 + valence * pleasantness for pleasantness in _SCENE_PLEASANTNESS])
    return State(expression, valence, arousal, identity, scene)
