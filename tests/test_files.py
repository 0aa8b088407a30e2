import subprocess
import sys

import pytest

from dynlib.files import atomic

WRITER = """
import sys
from pathlib import Path
from dynlib.files import atomic
for number in range(300):
    with atomic(Path(sys.argv[1]) / f"{sys.argv[2]}-{number}") as temporary:
        temporary.write_text("done")
"""


def test_processes_may_write_side_by_side(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, name]) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert len(list(tmp_path.iterdir())) == 900


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")

    def dies():
        with atomic(path) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        dies()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
