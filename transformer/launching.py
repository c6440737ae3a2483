"""Start a script in several processes on this machine: torchrun for a notebook.

`torchrun` is a command, and takes some seconds to start itself. This sets the same variables, so a
script that runs here also runs under torchrun.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch.distributed as dist


def launch(script: str, world: int = 2) -> str:
    """Run a script in `world` processes with a thread each, and return what rank 0 printed.

    Raises RuntimeError, with what it wrote to standard error, if one of them fails; the others are
    then ended.
    """
    store = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    shared = {
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "WORLD_SIZE": str(world),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([os.getcwd(), *filter(None, sys.path)]),
        "PYTHONIOENCODING": "utf-8",
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "script.py"
        path.write_text(script, encoding="utf-8")
        started = [
            subprocess.Popen(
                [sys.executable, str(path)],
                env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
            for rank in range(world)
        ]
        try:
            written = [process.communicate() for process in started]
        finally:
            for process in started:
                process.kill()
    for rank, (process, (_, errors)) in enumerate(zip(started, written, strict=True)):
        if process.returncode:
            raise RuntimeError(f"process {rank} failed:\n{errors}")
    return written[0][0]
