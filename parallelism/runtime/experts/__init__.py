"""Mixtures of experts on one rank: router, messages of tokens, and the experts' products."""
