from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_the_workspace_goes_when_the_process_ends_and_not_before(reviews: Path) -> None:
    program = (
        "import os, sys\n"
        "from transferkit.config import DataConfig\n"
        "from transferkit.data import workspace\n"
        "from transferkit.data.preparation import prepare\n"
        "data = prepare(DataConfig(source=sys.argv[1]))\n"
        "if os.fork() == 0:\n"
        "    sys.exit()\n"
        "os.wait()\n"
        "print(workspace.folder(), len(os.listdir(workspace.folder())), len(data.splits['train']['text'][:]))"
    )
    done = subprocess.run([sys.executable, "-c", program, str(reviews)], capture_output=True, text=True, check=True)
    folder, files, rows = done.stdout.split()
    assert int(files) >= 3
    assert int(rows) == 42
    assert not Path(folder).exists()
    assert not done.stderr


def test_forked_processes_have_files_of_their_own() -> None:
    program = (
        "import os\n"
        "from transferkit.data import workspace\n"
        "workspace.folder()\n"
        "child = os.fork()\n"
        "if child:\n"
        "    os.wait()\n"
        "print(workspace.new_file(), flush=True)\n"
        "if not child:\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert len(set(done.stdout.split())) == 2


def test_a_large_file_is_read_without_holding_it(tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    with path.open("w") as file:
        file.write("text,label\n")
        file.writelines(f"{'words and more words ' * 25}{i},{i % 4}\n" for i in range(100_000))
    program = (
        "import sys\n"
        "import pyarrow as pa\n"
        "from transferkit.config import DataConfig\n"
        "from transferkit.data.preparation import prepare\n"
        "before = sys.getallocatedblocks()\n"
        "data = prepare(DataConfig(source=sys.argv[1]))\n"
        "objects = sys.getallocatedblocks() - before\n"
        "print(sum(map(len, data.splits.values())), objects, pa.default_memory_pool().max_memory())"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    rows, objects, most_bytes = map(int, done.stdout.split())
    assert rows == 100_000
    assert objects < rows / 2
    assert most_bytes < path.stat().st_size / 2
