"""
Child processes: C{framing} cuts what is said on the pipes into frames, C{payloads}
pickles what they hold, C{transport} is the parent's end, C{universe} and C{child} are
what runs in the child.

What the child imports has no part of Twisted in it, so that children start quickly.
"""
