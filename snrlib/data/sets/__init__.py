"""The data sets, one file each, and the lists that come with them."""
