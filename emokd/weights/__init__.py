"""Maps from foreign checkpoints to our models, strict both ways, and our own portable model folders."""
