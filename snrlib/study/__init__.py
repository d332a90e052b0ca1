"""This study: its grid of experiments, the tuning before it, the tables and words after it."""
