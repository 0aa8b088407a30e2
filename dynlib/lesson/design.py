"""Exercise 6: the rule by which a design is chosen."""

from collections.abc import Callable

import pandas as pd

from dynlib.lesson.exercise import exercise

TWO_POINTS = 0.02 + 1e-9  # of accuracy; shares of images are rarely exact


def _choice(table: pd.DataFrame, start: pd.Series) -> pd.Series:
    allowed = table[(table.clean >= start.clean - TWO_POINTS) & (table.macs <= start.macs)]
    return allowed.loc[allowed.robust.idxmax()]


@exercise(6, _choice)
def check_choice(answer: Callable[[pd.DataFrame, pd.Series], pd.Series]) -> str | None:
    """Exercise 6: from a table of designs and the default among them to the row that is chosen."""
    rows = {
        20: (0.82, 0.60, 50e6, "it is more than 2 points less accurate than the default"),
        30: (0.80, 0.50, 60e6, "it is more than 2 points less accurate than the default"),
        40: (0.85, 0.30, 70e6, "it is the default; others may lose up to 2 points, which is 0.02 of a share"),
        10: (0.86, 0.55, 90e6, "it costs more than the default"),
        60: (0.95, 0.20, 65e6, "it is the most accurate one; look for the most robust one"),
        70: (0.84, 0.35, 20e6, "it is a cheap one; look for the most robust one"),
        50: (0.84, 0.40, 60e6, "another one is more robust; to be more accurate or cheaper than the default is no fault"),
        80: (0.90, 0.45, 69e6, ""),
    }
    table = pd.DataFrame.from_dict({k: row[:3] for k, row in rows.items()}, "index", columns=["clean", "robust", "macs"])
    for best, given in ((80, table), (50, table.drop(80))):  # the best is more accurate than the default, then it is less
        found = answer(given, table.loc[40])
        if not (isinstance(found, pd.Series) and found.name in given.index):
            return "return one row of the table, such as table.loc[label]"
        if found.name != best:
            return f"the design that you choose is not the best: {rows[found.name][3]}"
    return None
