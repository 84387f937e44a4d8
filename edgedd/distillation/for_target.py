"""Options of a distillation for a board: what is not said comes from the plan, what is said is held against it."""

from dataclasses import replace

from edgedd.distillation.methods import method_named
from edgedd.distillation.options import Options
from edgedd.labelled_images import LabelledImages
from edgedd.planning.plan import planned
from edgedd.planning.question import FORM_OPTIONS, Question, Wanted
from edgedd.planning.target import training_target
from edgedd.students import default_student


def for_target(options: Options, data: LabelledImages) -> Options:
    """The same options with form and bytes of the plan for `options.target`; unchanged where there is no target.

    Raises TargetError, and BudgetError for options that do not fit the board.
    """
    if options.target is None:
        return options
    method = method_named(options.method) if isinstance(options.method, str) else options.method
    asked = {name: getattr(options, name) for name in (*FORM_OPTIONS, "bytes", "ipc")}
    asked["parameterization"] = options.parameterization or getattr(method, "parameterization", None)
    asked["half"] = options.half or None
    board = training_target(options.target)
    wanted = Wanted(**asked, recipe=options.recipe)
    question = Question(board, data.shape, data.classes, default_student(data.shape), "full", wanted)
    form = planned(question).parameterization.as_dict()
    chosen = {name: form[name] for name in FORM_OPTIONS if name in form}
    return replace(options, **chosen, parameterization=form["kind"], bytes=question.budget_bytes)
