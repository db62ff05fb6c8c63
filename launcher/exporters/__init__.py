"""Exports a run to other trainers, one module each. Nothing here imports torch or a trainer."""
