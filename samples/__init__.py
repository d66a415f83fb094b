"""Simulated NanoAOD with a known truth: Pythia 8 collisions, a parametric detector, and the demo's data sets."""
