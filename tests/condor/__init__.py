"""Proof by a real HTCondor pool: workers come, go, are replaced, and nothing is lost."""
