"""Notebooks as programs: found, run with parameters, checked, renewed."""
