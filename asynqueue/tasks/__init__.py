"""Tasks, and the handler that has workers run them."""

from ._assignment import Assignment, AssignmentFactory
from ._factory import TaskFactory
from ._handler import TaskHandler
from ._task import Task

__all__ = ["Assignment", "AssignmentFactory", "Task", "TaskFactory", "TaskHandler"]
