"""The pages about the command line and the configuration say what the code does.

`python tests/cli/test_reference_pages.py` writes the commands into `docs/reference/cli.md` again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vrag.backends import SEAMS
from vrag.backends.local import backend
from vrag.cli.app import EXIT_CODES, app
from vrag.compose.configuration import SCALARS, read_configuration

DOCS = Path(__file__).parents[2] / "docs" / "reference"
PAGE = DOCS / "cli.md"
MARK = "<!-- commands -->\n"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the documentation is not here")


def _helps(command: click.Command, name: str, parent: click.Context | None = None) -> Iterator[str]:
    # The widths of the machine must not change the page.
    command._help_option = None  # click keeps the first that it made, perhaps for a test that went without the group
    context = command.make_context(name, [], parent, resilient_parsing=True, terminal_width=100)
    yield f"### `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n"
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            yield from _helps(command.commands[below], below, context)


def _rendered() -> str:
    return "\n" + "\n".join(_helps(app, "vrag"))


def test_the_page_has_what_help_prints() -> None:
    found = PAGE.read_text(encoding="utf-8").partition(MARK)[2]
    assert found == _rendered(), "write it again: python tests/cli/test_reference_pages.py"


def test_the_page_has_every_exit_code() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text


def test_the_configuration_page_has_every_setting_with_its_default() -> None:
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    for key, (_, default) in SCALARS.items():
        shown = "none" if default is None else f"`{default}`"
        assert f"| `{key}` | `VRAG_{key.replace('.', '_').upper()}` | {shown} |" in text
    for seam in SEAMS:
        for name in backend.get(seam, {}):
            assert f"`{name}`" in text


def test_every_example_of_the_configuration_page_is_read(tmp_path: Path) -> None:
    examples = re.findall(r"```toml\n(.*?)```", (DOCS / "configuration.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(examples) >= 2
    for number, example in enumerate(examples):
        file = tmp_path / f"{number}.toml"
        file.write_text(example, encoding="utf-8")
        read_configuration(file, environ={})


if __name__ == "__main__":
    codes = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    head = re.sub(r"(\| --- \| --- \|\n).*?(\n\n)", lambda m: m[1] + codes + m[2], head, count=1, flags=re.DOTALL)
    PAGE.write_text(head + MARK + _rendered(), encoding="utf-8")
