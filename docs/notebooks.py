"""Makes notebooks of the tutorials, so that their code runs when the site is built.

In the repository a tutorial is plain Markdown. Its blocks and notes are those of `tests/pages.py`.
"""

from __future__ import annotations

import logging
import re
from functools import partialmethod

from nbclient import NotebookClient
from pages import FENCE, as_block

logging.getLogger("traitlets").setLevel(logging.WARNING)  # not a line for each notebook
# A kernel may take a minute to start on a machine that has other work. It need not warn about ports, which
# nobody but this process knows.
NotebookClient.__init__ = partialmethod(
    NotebookClient.__init__, startup_timeout=300, extra_arguments=["--log-level=ERROR"]
)
HEAD = "---\nfile_format: mystnb\nkernelspec: {name: python3, display_name: Python, language: python}\n---\n"
# Without this a figure that is not of pyplot is shown as text.
INLINE = "```{code-cell}\n:tags: [remove-cell]\n%matplotlib inline\n```\n\n"
# What commands say, in the order in which they say it. One that ends with 1 found a check that fails.
RUN = """import subprocess
done = subprocess.run(["bash", "-e", "-c", r'''{}'''], stdout=-1, stderr=-2, text=True)
print(done.stdout, end="")
assert done.returncode in (0, 1), done
"""


def notebook(page: str) -> str:
    """A page whose blocks of Python and of the shell are cells."""
    title, gap, text = page.partition("\n\n")
    return HEAD + title + gap + INLINE + FENCE.sub(cell, text)


def cell(found: re.Match[str]) -> str:
    """A block with its output; a block that needs a missing package stays as it is."""
    code = as_block(found)
    if code.missing:
        return found[0]
    if code.language == "python":
        return f"```{{code-cell}}\n{code.text}```\n"
    if code.language == "sh":
        return f"{found[0]}\n```{{code-cell}}\n:tags: [remove-input]\n{RUN.format(code.text)}```\n"
    return found[0]
