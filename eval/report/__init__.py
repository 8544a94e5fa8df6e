"""The report: all records of ``eval/results`` as one page that needs nothing else. ``python -m eval.report``.

``records`` reads, ``races`` compares at equal quality, ``sections`` has a file per question and says it in the blocks
of ``blocks``; ``page`` turns blocks into HTML, ``measurements`` into Markdown; ``plots`` draws.
"""
