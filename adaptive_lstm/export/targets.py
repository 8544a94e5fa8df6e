"""Processors to export for: their compiler flags, and the machine of QEMU that runs the golden test."""

from __future__ import annotations

from dataclasses import dataclass

from ..codec import brief, is_one_of, short_repr
from ..errors import InputError


@short_repr
@dataclass(frozen=True)
class Target:
    """A processor.

    ``flags``: of the GNU compiler.
    ``compiler``: its prefix; empty: the host's.
    ``emulator``: the command that runs a program; empty: it runs here.
    ``board``: whether the program brings its own start-up code and memory map.
    ``quads``: whether its fastest integer products are the DSP instructions of Armv7E-M, for which weights lie in an
    order of their own.
    """

    flags: tuple[str, ...] = ()
    compiler: str = ""
    emulator: tuple[str, ...] = ()
    board: bool = False
    quads: bool = False

    def toolchain(self) -> str:
        """A toolchain file for CMake."""
        system, processor, linked = "Linux", "aarch64", "-static"
        if self.board:
            system, processor = "Generic", "arm"
            linked = "-T ${CMAKE_CURRENT_LIST_DIR}/board.ld -nostartfiles --specs=rdimon.specs -Wl,--gc-sections"
        lines = [
            f"set(CMAKE_SYSTEM_NAME {system})",
            f"set(CMAKE_SYSTEM_PROCESSOR {processor})",
            f"set(CMAKE_C_COMPILER {self.compiler}gcc)",
            "set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)",
            f'set(CMAKE_C_FLAGS_INIT "{" ".join(self.flags)} -ffunction-sections -fdata-sections")',
            f'set(CMAKE_EXE_LINKER_FLAGS_INIT "{linked}")',
            f"set(CMAKE_CROSSCOMPILING_EMULATOR {';'.join(self.emulator)})",
        ]
        if self.board:
            lines.append('set(ALSTM_BOARD "${CMAKE_CURRENT_LIST_DIR}/board.c")')
        return "".join(f"{line}\n" for line in lines)


def _cortex_m(flags: str, machine: str, *, quads: bool) -> Target:
    emulator = ("qemu-system-arm", "-M", machine, "-nographic", "-semihosting", "-monitor", "none", "-kernel")
    return Target(("-mthumb", *flags.split()), "arm-none-eabi-", emulator, board=True, quads=quads)


TARGETS = {
    "generic": Target(),
    "m4": _cortex_m("-mcpu=cortex-m4 -mfloat-abi=hard -mfpu=fpv4-sp-d16", "mps2-an386", quads=True),
    "m7": _cortex_m("-mcpu=cortex-m7 -mfloat-abi=hard -mfpu=fpv5-d16", "mps2-an500", quads=True),
    "m55": _cortex_m("-mcpu=cortex-m55 -mfloat-abi=hard", "mps3-an547", quads=False),
    "a53": Target(("-mcpu=cortex-a53",), "aarch64-linux-gnu-", ("qemu-aarch64",)),
}


def target_of(name: str) -> Target:
    """The target of a name.

    Raises:
        InputError: there is none.
    """
    if not is_one_of(name, TARGETS):
        raise InputError(f"target: got {brief(name)}, expected one of {', '.join(TARGETS)}")
    return TARGETS[name]
