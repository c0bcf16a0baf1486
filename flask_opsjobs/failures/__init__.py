"""Groups failed attempts by what went wrong, and keeps which version of the host was deployed when."""
