"""Losses: pure functions that return one value per example; the caller weights and averages them."""
