"""
Benchmarks: this library beside its peers and the floors of the machine.

C{python -m benchmarks} takes all measures, C{python -m benchmarks noop single} some,
and C{python -m benchmarks --list} says what there is. Each figure is taken in a fresh
interpreter, the contenders one after the other in each round, so that what else the
machine does hurts all alike. Contenders that aren't installed are left out. One that
hangs, fails or loses calls is reported as that.

A floor isn't a library, but the least that the machine, or the reactor, can do the work
with: pipes and pickles and nothing else.
"""
