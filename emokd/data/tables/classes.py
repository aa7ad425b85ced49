"""Class lists of the emotion data sets, in the order of their ids."""

MIKELS = ("amusement", "anger", "awe", "contentment", "disgust", "excitement", "fear", "sadness")
"""Mikels' eight categories, alphabetical: FI."""

EMOSET = ("amusement", "awe", "contentment", "excitement", "anger", "disgust", "fear", "sadness")
"""The same eight in EmoSet-118K's own order."""

EMOTION6 = ("anger", "disgust", "fear", "joy", "sadness", "surprise")
"""Emotion6 (EmotionROI), alphabetical."""

AFFECTNET = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")
"""AffectNet's eight expressions by their codes 0 to 7."""

FERPLUS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
"""FER+'s eight expressions in the order of its columns."""

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
"""FER2013's seven expressions by the codes 0 to 6 of `fer2013.csv`."""

VALENCE_TERCILES = ("negative", "neutral", "positive")
"""Three classes of valence."""
