"""The report: all records of ``eval/results`` as one page that needs nothing else. ``python -m eval.report``.

``records`` reads, ``races`` compares at equal quality, ``sections`` has a file per question, ``page`` makes HTML,
``eval/plots.py`` draws.
"""
