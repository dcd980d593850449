"""
Checks this library against AsynQueue 0.9.9, the reference, whose API it has.

C{python -m compat suite} runs the reference's own tests with a checkout, and C{python
-m compat programs} those of programs that were written for the reference. Their sources
are downloaded for each run and adapted to today's Python, and nothing of them is kept
here. C{expected.json} says which tests may fail, and why.

    - C{download}, C{environment}: sources from the package index, virtual environments
    - C{edits}: changes to those sources as tables; C{suiteedits}, C{programedits}: the
      tables; C{python3}: from Python 2 to 3
    - C{record}: runs tests in such an environment; C{processes}, C{running}: starts
      that, ends what hangs, and reads what came of the tests
    - C{suite}, C{programs}: prepare and run; C{expected}: compares
    - C{jobs}: tests of our own of the programs
"""
