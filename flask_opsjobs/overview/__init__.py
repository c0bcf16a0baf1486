"""The numbers of the first page, and the one sentence above them."""
