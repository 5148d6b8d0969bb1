"""Fuzzers: what a user can hand in, mutated and made up; each ends as accepted or in one line."""
