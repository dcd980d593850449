"""
What runs in child interpreters: the standard library and these modules, nothing else.
"""
