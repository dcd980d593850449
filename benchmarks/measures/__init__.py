"""The measures, one module each. Each has a function C{run}."""
