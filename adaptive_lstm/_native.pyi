"""The compiled core (native/bind). Weights come in as numpy arrays; runs pass addresses that Python has checked."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

compiler: str

def isa() -> str: ...
def usable_isas() -> list[str]: ...

class _Constants:
    """A submodule: numbers that Python and C++ share."""

    GATE_STRIP: int
    ROW_BLOCK: int
    CHUNK_ROWS: int
    LONGEST: int
    MOST_KEPT: int
    RACE_ROUNDS: int
    MAX_LEVELS: int
    MIN_CHANGE: float
    MIN_DYNAMIC_RANGE: float

constants: _Constants

class Matrix:
    def __init__(
        self,
        values: npt.NDArray[np.float32] | npt.NDArray[np.uint16] | npt.NDArray[np.int8],
        scale: npt.NDArray[np.float32] | None = None,
        *,
        levels: int = 0,
        column_scale: npt.NDArray[np.float32] | None = None,
        dynamic: bool = False,
        gates: bool = True,
        columns: bool = False,
        live: npt.NDArray[np.bool_] | None = None,
        zeros: bool = True,
        bitmask: Literal["auto", "always", "never"] = "auto",
    ) -> None: ...
    @property
    def bytes(self) -> int: ...
    @property
    def form(self) -> str: ...
    @property
    def columns(self) -> int: ...

class Cell: ...

def cell(
    w_ih: Matrix,
    w_hh: Matrix,
    bias: npt.NDArray[np.float32],
    w_hr: Matrix | None = None,
    *,
    live: npt.NDArray[np.bool_] | None = None,
    constant: npt.NDArray[np.float32] | None = None,
) -> Cell: ...

class Plan:
    def __init__(self, layers: list[list[Cell]]) -> None: ...
    @property
    def bytes(self) -> int: ...

class Thresholds: ...

def thresholds(x: npt.NDArray[np.float32] | None, h: npt.NDArray[np.float32] | None) -> Thresholds: ...

class Hold: ...

def hold(x: float | None, h: float | None, cap: int, action: str) -> Hold: ...

class Affine: ...

def affine(weight: npt.NDArray[np.float32], bias: npt.NDArray[np.float32]) -> Affine: ...

class Head: ...

def head(sigmoid: bool, measure: str) -> Head: ...

class TimeExit: ...

def time_exit(
    every: int,
    patience: int,
    window: int,
    head: Head | None,
    threshold_starts: list[int],
    thresholds: list[float],
    map_starts: list[int],
    translations: list[Affine],
    logits: list[Affine],
) -> TimeExit: ...

class DepthExit: ...

def depth_exit(
    sequence: bool,
    head: Head | None,
    checks: list[bool],
    thresholds: list[float],
    steps: list[Affine],
    finals: list[Affine],
    logits: list[Affine],
) -> DepthExit: ...

class Policy: ...

def policy(
    columns: list[list[Thresholds]],
    hold: list[Hold | None] = ...,
    time_exit: TimeExit | None = None,
    depth_exit: DepthExit | None = None,
) -> Policy: ...

class Contents:
    def __init__(self, regions: Sequence[tuple[int, int]], always: bool = False) -> None: ...
    @property
    def looks(self) -> int: ...
    def look(self, timesteps: int) -> bool: ...
    def whole(self) -> bool: ...
    def moved(self, regions: Sequence[tuple[int, int]], counted: Sequence[bool]) -> Contents | None: ...
    def doubt(self) -> None: ...
    @staticmethod
    def doubt_all() -> None: ...

class Counted:
    def __call__(self) -> Any: ...

class Torch:
    def __init__(
        self,
        *,
        tensor: type,
        parameter: type,
        exchange: object,
        empty: Callable[..., Any],
        float32: object,
        intervenes: list[Callable[[], Any]],
        grad: Callable[[], bool],
        threads: Callable[[], int],
        forward_ad: object,
        version: object,
        requires_grad: object,
        is_neg: object,
    ) -> None: ...

class Bypassed:
    def __init__(
        self, of: type, *, absent: list[str], empty: list[Any], methods: list[tuple[Any, str, Any]]
    ) -> None: ...

class DirectCall:
    def __init__(
        self,
        torch: Torch,
        bypassed: Bypassed,
        plan: Plan,
        *,
        idle: list[State],
        most_idle: int,
        most_bytes: int,
        weights: list[tuple[str, Any, int, int]],
        contents: Contents | None,
        contested: int,
        check: bool,
        states: bool,
        one_step: bool,
        together: Callable[..., Any] | None,
        race: ThreadRace | None,
        most_threads: Callable[[], int],
        route: object,
        policy: object,
        monitor: object,
    ) -> None: ...
    def serve(self, lstm: object, x: Any, hx: Any = None) -> Any: ...

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]
_Hold = tuple[_Floats | None, _Floats | None, _Ints, _Floats, _Floats | None, _Ints | None]
_Exit = tuple[_Ints, npt.NDArray[np.bool_], _Floats, _Ints, _Floats]

class ThreadRace:
    def __init__(self) -> None: ...
    def turn(self, rows: int, steps: int, most: int) -> int: ...
    def served(self, rows: int, steps: int, threads: int, seconds: float) -> None: ...

class State:
    def __init__(self, plan: Plan, policy: Policy, batch: int) -> None: ...
    def reset(self, batch: int) -> None: ...
    def read(
        self,
        h: _Floats,
        c: _Floats,
        sent_x: list[_Floats | None],
        sent_h: list[_Floats | None],
        hold: list[_Hold],
        time_exit: _Exit | None,
    ) -> bool: ...
    def write(
        self,
        h: _Floats,
        c: _Floats,
        sent_x: list[_Floats | None],
        sent_h: list[_Floats | None],
        hold: list[_Hold],
        time_exit: _Exit | None,
    ) -> None: ...
    def forward(
        self,
        rows: int,
        x: int,
        x_time: int,
        x_row: int,
        y: int,
        y_time: int,
        y_row: int,
        steps: int,
        sizes: int,
        check: bool,
        h_n: int,
        c_n: int,
        h_0: int = 0,
        h_cell: int = 0,
        h_row: int = 0,
        c_0: int = 0,
        c_cell: int = 0,
        c_row: int = 0,
        block: int = 0,
        threads: int = 1,
        race: ThreadRace | None = None,
    ) -> bool: ...
    def run(
        self,
        x: int,
        x_time: int,
        x_row: int,
        y: int,
        y_time: int,
        y_row: int,
        steps: int,
        sizes: int = 0,
        *,
        check: bool,
        open_ended: bool,
        threads: int = 1,
    ) -> bool: ...
    def run_starting(
        self,
        x: int,
        x_time: int,
        x_row: int,
        y: int,
        y_time: int,
        y_row: int,
        steps: int,
        starts: int,
        fresh: State,
    ) -> bool: ...
    def step(self, x: int, y: int) -> bool: ...
    def ahead(self) -> None: ...
    def step_rows(self, rows: int, n: int, x: int, y: int) -> bool: ...
    def take_rows(self, to: _Ints, other: State, from_: _Ints) -> None: ...
    def store_h(self, h: _Floats) -> None: ...
    def leave(self, rows: _Ints, h: _Floats) -> None: ...
    def counters(self) -> tuple[list[tuple[int, int, int, int]], tuple[int, int, list[int], list[int]], int]: ...
    def counted(self, together: Callable[..., Any], timesteps: int) -> Counted: ...
    def clear_counters(self) -> None: ...
    def exited(self) -> list[bool]: ...
    @property
    def bytes(self) -> int: ...
    @property
    def threads(self) -> int: ...
    @property
    def batch(self) -> int: ...
