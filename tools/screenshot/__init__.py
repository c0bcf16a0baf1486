"""Takes pictures of all pages of a demo: `make screenshot`."""
