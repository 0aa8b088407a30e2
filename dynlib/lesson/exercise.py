"""What an exercise is: a check of a learner's function that says in one line what is wrong with it."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

Answer = Callable[..., Any]  # a function of a learner, or the one that it is compared with


class NotDoneError(Exception):
    """The function returns nothing: it is as the lesson left it, or its ``return`` is missing."""


def exercise(number: int, library: Answer) -> Callable[[Callable[[Answer], str | None]], Callable[[Answer], Answer]]:
    """Makes a check of a function from an answer to what is wrong with it, or None; ``library`` is a right answer."""

    def decorate(fault: Callable[[Answer], str | None]) -> Callable[[Answer], Answer]:
        @wraps(fault)
        def check(answer: Answer) -> Answer:
            def asked(*given: Any) -> Any:
                found = answer(*given)
                if found is None or found is ...:
                    raise NotDoneError
                return found

            try:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)  # an answer may draw numbers, such as a head's weights
                    hint = fault(asked)
            except NotDoneError:
                print(f"exercise {number}: not done yet (it returns nothing); until then the lesson goes on with the library's own")
                return library
            except Exception as error:  # whatever a learner's function dies of, the lesson goes on
                hint = f"it stops with {type(error).__name__}: {error}"
            print(f"exercise {number}: {f'not right yet: {hint}' if hint else 'right'}")
            return library if hint else answer

        return check

    return decorate
