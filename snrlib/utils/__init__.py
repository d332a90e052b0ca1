"""What is common to all: checks, files, processes, markup, and how torchvision is imported."""
