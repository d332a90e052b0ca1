"""What is common to all: checks, files, locks, processes, provenance, markup, and how torchvision is imported."""
