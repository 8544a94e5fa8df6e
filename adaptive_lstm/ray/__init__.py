"""Saved LSTMs over datasets of Ray: ``Scorer`` is what ``Dataset.map_batches`` takes. No torch in the workers.

::

    from adaptive_lstm.ray import Scorer

    scored = ds.map_batches(Scorer, fn_constructor_kwargs={"path": "/shared/model.alstm"}, concurrency=8, num_cpus=1)

Ray itself comes with the extra ``ray``: ``pip install 'adaptive-lstm[ray]'``.
"""

from .scorer import Scorer as Scorer
