"""Losses: pure functions that give a value per example; the caller weighs and reduces."""
