"""Stage 1 (report, section 3.2): the projector alone learns to say in the decoder's words what the tower sees."""

from finetune.errors import FinetuneError
from finetune.recipe import Part
from finetune.stages.reading import Start
from finetune.stages.sft import check, load
from finetune.stages.sft import work as learn
from finetune.training.trainer import Work

__all__ = ["check", "load", "work"]


def work(start: Start, part: Part) -> Work:
    """The next token, by the projector alone. FinetuneError where the part trains anything else."""
    if part.train != ("projector",):
        raise FinetuneError('Stage 1 trains the projector alone; leave train out or give train = ["projector"].')
    return learn(start, part)
