"""
The threads behind L{asynqueue.threads}.

L{loop<asynqueue._threads.loop>} has one thread and the way back to the reactor;
C{call} and C{iteration} are what is done there, and C{looper} is who asks for it.
C{worker} makes a worker of that. C{pool} has a number of threads. C{channel}, C{getter}
and its kinds C{consumerator} and C{filerator}, and C{ordered}, are the streams from the
reactor to blocking code.
"""
