"""
The modules of the workers on other machines, behind L{asynqueue.wire}.

What both ends agree on is in C{values}, C{plain}, C{chunks} and C{commands}; what both
ends of a connection do in C{peer}. The server's side of it is C{served}, C{runner} and
C{server}, the client's C{link} and C{client}.

Before there's a connection, each end has a C{gate}, C{servergate} or C{clientgate},
which lets nothing through until the other has proved who it is: by C{private} Unix
sockets, C{keys}, or C{tls} with C{certificates}, which C{making} makes. C{places} and
C{ends} tell what is possible where.

Servers in processes of their own: C{manager}, C{localserver} and C{serverprocess} are
what starts them, C{child} and C{managed} what they run, and C{setup} what is said
between the two. C{command} is the command line, C{tap} the service of C{twist}.
"""
