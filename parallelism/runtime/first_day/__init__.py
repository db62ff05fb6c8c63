"""The measurements of ``doctor --first-day``, a module for each; each runs in processes of its own."""
