"""Random kills of a service that works, and what they cost: `python tests/chaos/run.py`, or `make chaos`."""
