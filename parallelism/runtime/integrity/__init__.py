"""Finds silent data corruption: memory and messages that change without an error."""
