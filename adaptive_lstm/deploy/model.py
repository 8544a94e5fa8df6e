"""A file with weights, loaded without torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .. import strict_json
from ..artifact.machine import tell_of_another_machine
from ..artifact.stacks import read_stacks
from ..errors import InputError, ModelFileError
from ..files import FilePath
from ..policies import Policy
from .lstm import LSTM

MOST = 10**6  # values in a certificate


class Model(Mapping[str, LSTM]):
    """The LSTMs of a file by their names in the model; made by ``load``.

    ``certificate``: what the calibration guaranteed, as ``Certificate.to_json`` says it; None: nothing was certified.
    """

    def __init__(self, lstms: Mapping[str, LSTM], certificate: Mapping[str, Any] | None):
        self._lstms, self.certificate = dict(lstms), certificate

    def __getitem__(self, name: str) -> LSTM:
        return self._lstms[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lstms)

    def __len__(self) -> int:
        return len(self._lstms)

    def __repr__(self) -> str:
        return f"Model({', '.join(map(repr, self._lstms))})"

    @property
    def lstm(self) -> LSTM:
        """The only LSTM.

        Raises:
            InputError: there are several; choose one by its name.
        """
        if len(self._lstms) != 1:
            raise InputError(f"the file holds {len(self._lstms)} LSTMs, expected one; choose by name: {self}")
        return next(iter(self._lstms.values()))


def load(path: FilePath, *, policies: Sequence[type[Policy]] = ()) -> Model:
    """The LSTMs of a file that ``adaptive_lstm.save(model, path, weights=True)`` has written.

    A warning says if the certified policy was timed on another machine.

    Args:
        path: of the file.
        policies: your own classes of policies that the file may hold.

    Raises:
        ModelFileError: the file is missing, damaged, altered, of another kind, of a newer version, or without weights.
        InputError: ``policies`` holds something else than classes of policies.
        UnsupportedError: a policy that is written in Python.
        BackendError: the extension does not load.
    """
    stacks = read_stacks(path, policies=policies)
    certificate = None
    if stacks.certificate is not None:
        try:
            certificate = strict_json.loads(stacks.certificate, MOST)
        except ValueError as error:
            raise ModelFileError(f"{os.fsdecode(path)}: certificate: {error}") from None
        if not isinstance(certificate, dict):
            raise ModelFileError(f"{os.fsdecode(path)}: certificate: got no JSON object")
    model = Model({name: LSTM(stack, name or "the LSTM") for name, stack in stacks.by_name.items()}, certificate)
    if certificate is not None:
        tell_of_another_machine(certificate.get("savings"), stacklevel=2)
    return model
