"""The one exception that a user of finetune can cause."""

from __future__ import annotations


class FinetuneError(Exception):
    """Something the user can mend. The message is one sentence that says what is wrong and what to do;
    it is shown as it is, on the page and in the shell (exit code 2), never with a traceback."""
