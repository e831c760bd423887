"""Unit tests of `ambassador.policy`."""
