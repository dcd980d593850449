"""Tests of the package, for trial."""
