"""
Tasks, and the handler that has workers run them.
"""

from ._assignment import Assignment, AssignmentFactory
from ._handler import TaskHandler
from ._task import Task, TaskFactory

__all__ = ["Assignment", "AssignmentFactory", "Task", "TaskFactory", "TaskHandler"]
