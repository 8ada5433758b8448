"""Texts longer than a model's window: which tokens are predicted from which inputs.

A sequence x_0 .. x_n has x_0 = beginning of sequence; x_1 .. x_n are predicted, x_j from inputs that end with
x_{j-1}. Every scored token is predicted in exactly one window.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """Feed x[start:end]; of the predictions of x[start + 1 : end + 1], keep those of x[first:end + 1]."""

    start: int
    end: int
    first: int

    @property
    def length(self) -> int:
        """Input tokens."""
        return self.end - self.start


def plan_windows(last: int, *, first: int, context_length: int, stride: int) -> list[Window]:
    """Windows that predict x_first .. x_last, each exactly once.

    A window holds at most `context_length` inputs. The first window predicts as many tokens as it can; every
    later one predicts `stride` more (the last one maybe fewer) and ends with its last prediction. So every
    token x_j is predicted from at least min(j, context_length - stride + 1) inputs (sliding-window
    evaluation: Press et al. 2021, "Shortformer", arXiv 2012.15832, section 2).
    """
    windows = []
    position = first
    while position <= last:
        # Everything that fits into one window from the sequence's very start; afterwards `stride` at a time.
        end = min(last, max(position + stride - 1, context_length))
        windows.append(Window(start=max(0, end - context_length), end=end, first=position))
        position = end + 1
    return windows
