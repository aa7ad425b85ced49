"""Strict maps from other frameworks' checkpoints to our models, and our own portable model folders."""
