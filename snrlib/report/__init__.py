"""The pages to read and share."""
