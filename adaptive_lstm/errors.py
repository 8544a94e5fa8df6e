"""Exceptions of the package.

    AdaptiveLSTMError
    ├── InputError (ValueError)        an input, state or option of a run has the wrong shape, dtype, device or value
    │   └── NonFiniteError             NaN or infinity where it would poison a persistent state
    ├── PolicyError (ValueError)       a skip policy does not fit the stack or has impossible settings
    ├── StateError (ValueError)        a stream state of another model, batch size or policy
    ├── UnsupportedError (ValueError)  a combination that cannot work, with the reason
    ├── CalibrationError (ValueError)  calibration cannot start as asked: too few sequences, a loss outside [0, 1]
    ├── BusyError (RuntimeError)       two threads use one stream at the same time
    ├── OverloadError (RuntimeError)   a pool of streams is full, or frames of a stream come faster than they are run
    ├── ModelFileError (ValueError)    a file or factory given to the command line holds no readable LSTM
    └── BackendError (RuntimeError)    the native extension was demanded and is missing or refuses to run

Every message says what was received, what is needed, and how to get there. Nothing is changed before one is raised.
"""

from __future__ import annotations


class AdaptiveLSTMError(Exception):
    """Base of everything that this package raises on purpose."""


class InputError(AdaptiveLSTMError, ValueError):
    """An input, a state or an option of a run has the wrong shape, dtype, device or value."""


class NonFiniteError(InputError):
    """NaN or infinity where it would poison a state that outlives the call."""


class PolicyError(AdaptiveLSTMError, ValueError):
    """A skip policy does not fit the stack, or its settings are impossible."""


class StateError(AdaptiveLSTMError, ValueError):
    """A stream state belongs to another model, batch size or policy."""


class BusyError(AdaptiveLSTMError, RuntimeError):
    """Another thread is advancing, resetting or setting the same stream; the call has changed nothing."""


class OverloadError(AdaptiveLSTMError, RuntimeError):
    """A pool has no room for one more stream, or a stream for one more frame; the call has changed nothing."""


class UnsupportedError(AdaptiveLSTMError, ValueError):
    """A combination that cannot work."""


class CalibrationError(AdaptiveLSTMError, ValueError):
    """Calibration cannot start or certify as asked: too few sequences, a loss outside [0, 1], an impossible level."""


class ModelFileError(AdaptiveLSTMError, ValueError):
    """What was named cannot be read, or holds no LSTM; the message says what was found and what is expected."""


class BackendError(AdaptiveLSTMError, RuntimeError):
    """The native extension was demanded, but it is missing or refuses to run."""
