"""Progress of a job in steps: a bar on a terminal, a line for each step in a pipe."""

import shutil
import sys
import time
from contextlib import contextmanager

_BAR_WIDTH = 24
_CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """Tells on standard output how far a job of ``total`` steps is."""

    def __init__(self, total):
        self.total = total
        self.done = 0
        self.name = ""
        self.began = 0.0
        self.on_terminal = sys.stdout.isatty()

    def begin(self, name):
        """The step ``name`` begins."""
        self.name, self.began = name, time.perf_counter()
        if self.on_terminal:
            self._draw()

    def end(self):
        """The step that began last is over."""
        self.done += 1
        if self.on_terminal:
            self._draw()
        else:
            seconds = time.perf_counter() - self.began
            print(f"   {self.done:>2}/{self.total}  {self.name}, {seconds:.2f} s", flush=True)

    @contextmanager
    def step(self, name):
        """The step ``name`` is what happens inside the block."""
        self.begin(name)
        yield
        self.end()

    def close(self):
        """Remove the bar."""
        if self.on_terminal:
            print(_CLEAR_LINE, end="", flush=True)

    def _draw(self):
        full = _BAR_WIDTH * self.done // self.total
        line = f"   [{'#' * full}{'.' * (_BAR_WIDTH - full)}] {self.done}/{self.total}  {self.name}"
        print(_CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1], end="", flush=True)


class SearchProgress:
    """A scikit-learn callback: the fits of a search, and the last one on all the data, are the steps."""

    def __init__(self, progress):
        self.progress = progress

    def setup(self, estimator, context):
        """Nothing to prepare."""

    def teardown(self, estimator, context):
        """The search is over, or failed."""
        self.progress.close()

    def on_fit_task_begin(self, estimator, context):
        """A task of the search begins; those without subtasks are fits."""
        if context.max_subtasks == 0:
            self.progress.begin(self._name(context.task_name))

    def on_fit_task_end(self, estimator, context):
        """A task of the search is over."""
        if context.max_subtasks == 0:
            self.progress.end()

    def _name(self, task_name):
        if self.progress.done == 0:
            return "first fit, compiles new kernels"
        return "best rate, all rows" if "refit" in task_name else "cross-validation"
