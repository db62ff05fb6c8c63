"""Checkpoints of a run: each rank writes boxes of whole tensors, and any layout can read them."""
