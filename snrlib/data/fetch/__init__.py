"""From an address to a folder: find, download, unpack, verify."""
