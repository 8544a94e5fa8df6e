"""Skip policies: frozen settings that say what a run may leave out, one file each.

Imported as ``adaptive_lstm.policies``; the folder lies at the top of the repository and is linked into the package.
"""

if __name__ != "adaptive_lstm.policies":
    raise ImportError("import 'adaptive_lstm.policies', not 'policies': the second name would load a second copy")

from .delta import Delta as Delta
from .dense import Dense as Dense
from .protocol import ColumnScale as ColumnScale
from .protocol import Policy as Policy
from .protocol import Site as Site
from .protocol import sites as sites

__all__ = ["ColumnScale", "Delta", "Dense", "Policy", "Site", "sites"]
