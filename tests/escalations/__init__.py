"""Tests of escalations: the quiet rules, the child of a call, the loop, and what kills them."""
