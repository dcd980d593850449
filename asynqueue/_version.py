"""The version of the package, in the one place that everything else reads it from."""

__version__ = "1.0.0rc1"
