"""
The modules of the workers on other machines, behind L{asynqueue.wire}.

What both ends agree on is in C{values}, C{plain}, C{chunks} and C{commands}; what both
ends of a connection do in C{peer}. The server's side of it is C{served}, C{runner} and
C{server}, the client's C{client} and C{calls}.
"""
