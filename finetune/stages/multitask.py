"""Stage 2 (report, section 3.2): everything learns from every kind of data, by the next token.

Its parts run one after the other, cheap ones first: pictures, then videos, then the tower with them."""

from finetune.stages.sft import check, load, work

__all__ = ["check", "load", "work"]
