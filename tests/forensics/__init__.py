"""Tests of forensics: what a bundle says, compared with what was really done."""
