"""
What is changed in the reference's tests, and why.

C{REWRITES} make them run with today's Python and from a package of their own;
C{MENDS} loosen what they ask for where that isn't promised. The reference passes with
all of this.
"""

from __future__ import annotations

from .edits import Edit

__all__ = ["EDITS", "MENDS", "PACKAGE", "RETRIED", "REWRITES"]

#: The package that the adapted tests are in.
PACKAGE = "referencetests"

OUTSIDE = "the tests aren't in the package they test"
HELPERS = "the helpers of the tests are beside them, not in the package"
IMPLICIT = "Python 2 looked for modules in the importing module's own package first"
ALIAS = "trial has this assertion under its new name only"
POLICY = "this policy about errors isn't the default: a program asks for it"
POLLING = "the limit is the time after which polling notices; here nothing is polled"

_ALIASES = {
    "failUnlessEqual": "assertEqual",
    "failIfEqual": "assertNotEqual",
    "failUnlessRaises": "assertRaises",
    "failUnlessApproximates": "assertApproximates",
    "failUnless": "assertTrue",
    "failIf": "assertFalse",
}

REWRITES = [
    Edit("*", r"^from \.\. import ", "from asynqueue import ", OUTSIDE),
    Edit(
        "*",
        r"^from \.\.util import TestStuff",
        "from .helpers import TestStuff",
        HELPERS,
    ),
    Edit("*", r"asynqueue\.test\.testbase", ".testbase", OUTSIDE),
    Edit("test_wire.py", r"\bmisc, wire$", "wire\nfrom . import misc", HELPERS),
    Edit("test_wire.py", r"asynqueue\.misc\.", f"{PACKAGE}.misc.", HELPERS),
    Edit("test_wire.py", r"import TestStuff, ", "import ", HELPERS),
    Edit(
        "test_info.py",
        r"^from asynqueue import util",
        r"from . import helpers\n\g<0>",
        HELPERS,
    ),
    Edit("test_info.py", r"\butil\.TestStuff", "helpers.TestStuff", HELPERS),
    Edit(
        "test_info.py",
        r'"util\.testFunction"',
        f'"{PACKAGE}.helpers.testFunction"',
        HELPERS,
    ),
    Edit(
        "test_threads.py",
        r"asynqueue\.util import TestStuff",
        ".helpers import TestStuff",
        HELPERS,
    ),
    Edit(
        "test_process.py", r"^( +)from util import", r"\1from .helpers import", HELPERS
    ),
    Edit(
        "test_base.py",
        r"^( +)import threads$",
        r"\1from asynqueue import threads",
        IMPLICIT,
    ),
    Edit(
        "*",
        r"^from zope\.interface import implements$",
        "",
        "it's gone, and was never called here",
    ),
    Edit(
        "testbase.py",
        r"import pdb; pdb\.set_trace\(\)",
        "raise failureObj.value",
        "there's nobody to use a debugger",
    ),
    *[Edit("*", rf"\b{old}\b", new, ALIAS) for old, new in _ALIASES.items()],
]

MENDS = [
    Edit(
        "testbase.py",
        r"^    timeout = 10$",
        "    timeout = 20",
        "a busy machine takes longer",
    ),
    Edit(
        "testbase.py",
        r"assertAlmostEqual\(0\.2\*ratio, 0\.2, 2, msg\)",
        "assertTrue(0.95 < ratio < 1.5, msg)",
        "a busy machine takes longer",
    ),
    Edit(
        "testbase.py",
        r"^class MockTask\(object\):(?s:.*?)(?=^    def __str__)",
        "class MockTask(tasks.Task):\n",
        "this stand-in compares as Python 2 did, and lacks attributes that queues use",
    ),
    Edit(
        "testbase.py",
        r"^(    def __str__.*\n.*\n)\n    def startTimer.*\n +pass$",
        r"\1",
        "a Task has it",
    ),
    Edit(
        "testbase.py",
        r"^from asynqueue import iteration$",
        "from asynqueue import iteration, tasks",
        "for MockTask",
    ),
    Edit(
        "test_base.py",
        r"(def test_stop(?s:.*?)newQueue\()",
        r"\1returnFailure=False",
        POLICY,
    ),
    Edit(
        "test_process.py",
        r"(def test_error_default(?s:.*?)_bogusCall\()",
        r"\1returnFailure=False",
        POLICY,
    ),
    Edit(
        "test_threads.py",
        r"(def test_error_default(?s:.*?)_bogusCall\()",
        r"\1returnFailure=False",
        POLICY,
    ),
    Edit(
        "test_process.py",
        r"assertEqual\(result, 'Pipe disconnect'\)",
        "assertIsInstance(result, str)",
        "the text about a crashed call names the call here",
    ),
    Edit(
        "test_util.py",
        r"assertGreater\(elapsed, 0\.5\)",
        "assertGreater(elapsed, 0.45)",
        POLLING,
        1,
    ),
    Edit(
        "test_util.py",
        r"assertLess\(elapsed, 0\.55\)",
        "assertLess(elapsed, 0.6)",
        POLLING,
        1,
    ),
    Edit(
        "test_util.py",
        r"assertWithinFivePercent\(td, 0\.22\)",
        "assertTrue(0.19 < td < 0.3, td)",
        POLLING,
    ),
]

EDITS = REWRITES + MENDS

#: Patterns of tests that get further tries when they fail: they want something to take
#: a certain time, within a few hundredths of a second, which depends on the machine.
RETRIED = [
    "test_iteration.TestDelay.*",
    "test_process.TestProcessWorkerStats.*",
    "test_tasks.Test_TaskHandlerRun.test_multipleWorkers",
    "test_threads.Test_Consumerator.test_with*",
    "test_threads.Test_Filerator.*",
    "test_threads.Test_ThreadLooper.test_deferToThread_iterator*",
    "test_threads.Test_ThreadLooper.test_iterator_slow",
    "test_util.TestCallRunner.*",
    "test_util.TestDeferredTracker.*",
]
