"""Small tools that the rest of the package shares."""
