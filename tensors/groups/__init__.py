"""Variation groups, one file each: the columns that an event adds to, and their expansion into nuisances."""
