"""Signals: what a network gives, and what is said of what it does not give."""

import numpy as np
import pytest

from emokd.errors import InputError
from emokd.signals import Signals


def test_an_output_is_given_as_it_is_or_missed_by_name():
    signals = Signals(features=np.ones((2, 3)), valence_arousal=np.zeros((2, 2)))
    assert signals.require("features") is signals.features
    assert signals.require("valence_arousal") is signals.valence_arousal  # all zeros are given too
    with pytest.raises(InputError, match="gives no logits.* it gives features, valence_arousal"):
        signals.require("logits")
    with pytest.raises(InputError, match="gives no features.* it gives none"):
        Signals().require("features")
