"""Servers as users start them, in processes of their own, and what is asked of them over HTTP."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0  # seconds, on a busy machine
WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "scipy", "tqdm")))
from adaptive_lstm.serve.command import main
sys.exit(main())
"""


class Reply(NamedTuple):
    """Of HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """``python -m adaptive_lstm.serve``, warnings being errors and torch missing; as a context it is killed."""

    def __init__(self, *arguments: str):
        command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *arguments, "--port", "0"]
        paths = [str(ROOT), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe that nobody reads would fill)
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True, env=env)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(self.log)
        self.address, _, path = line.split("http://")[1].strip().partition("/")
        self.name = path.rpartition("/")[2]
        self.path = f"/v2/models/{self.name}"
        self.stream = f"ws://{self.address}{self.path}/stream"

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()
        said = self.log
        self._log.close()
        assert "Traceback" not in said, said

    @property
    def log(self) -> str:
        """What it has written to stderr."""
        self._log.seek(0)
        return self._log.read()

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Reply:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        try:
            told = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, told)
            reply = connection.getresponse()
            return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        """A figure of /metrics."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        (value,) = [line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == f"adaptive_lstm_{name}"]
        return float(value)

    @property
    def megabytes(self) -> float:
        """Of memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        (line,) = [line for line in status.splitlines() if line.startswith("VmRSS")]
        return int(line.split()[1]) / 1024
