"""What a measured share of the time says, in words: one wording for results, certificates and files."""

from __future__ import annotations

from ..bench import Ratio


def in_words(share: Ratio, where: str = "") -> str:
    """What is left of the time, as a phrase.

    Only what was measured below 1, quartiles and all, reads as a saving.

    Args:
        share: seconds with policies, as a share of those with nothing skipped.
        where: what it holds for, which ends the phrase with the quartiles.
    """
    spread = f"(quartiles {share.p25:.2f} to {share.p75:.2f}{', ' * bool(where)}{where})"
    if share.p25 > 1:
        return f"SLOWER: {share.median:.2f} times as long as with nothing skipped {spread}"
    if not share.meaningful:
        return f"time left not known: the machine was not quiet {spread}"
    if share.p75 >= 1:
        return f"no gain measured: {share.median:.2f} times as long as with nothing skipped {spread}"
    return f"time left: {share.median:.0%}, {1 / share.median:.2f} times as fast as with nothing skipped {spread}"
