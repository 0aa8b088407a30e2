"""The checks of the lesson's seven exercises.

Each check takes a learner's function, prints one line (done or not, right or not, and a hint), and returns the function that the
lesson goes on with: the learner's where it is right, the library's own otherwise.
"""

from dynlib.lesson.attack import check_attack_step, check_early_loss, check_slow_loss, check_transfer
from dynlib.lesson.design import check_choice
from dynlib.lesson.network import check_exit_head, check_exit_rule

__all__ = [
    "check_attack_step",
    "check_choice",
    "check_early_loss",
    "check_exit_head",
    "check_exit_rule",
    "check_slow_loss",
    "check_transfer",
]
