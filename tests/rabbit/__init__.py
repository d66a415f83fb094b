"""Proof by the real fitter: rabbit-fit fits what is exported, and agrees with the linearised fit."""
