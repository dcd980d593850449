"""
What runs in child interpreters, and much of it in the program as well: the standard
library and these modules, nothing else.
"""
