"""What is common to all and imports nothing else here: checks, files, locks, caches, provenance, markup, torchvision."""
