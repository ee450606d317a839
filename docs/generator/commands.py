"""The reference of the command line, from the commands themselves: every command with every option."""

import inspect
import re
from collections.abc import Iterator

import click

from dnsblock.cli.common import EXIT_CODES

from .text import definition, escaped

CODE = re.compile(r"^  (\d+)  (.+)$", re.MULTILINE)
HELP = ["-h", "--help"]
COMMON = ("config_path", "as_json", "help")  # the options of every command, by their names in click


def reference(main: click.Group) -> str:
    """The section of each command, in Markdown."""
    return "\n".join(_section(name, command) for name, command in sorted(commands(main)))


def common_options(main: click.Group) -> str:
    """The options of every command, as a definition list."""
    _, command = next(commands(main))
    context = click.Context(command, info_name=main.name, help_option_names=HELP)
    return "\n".join(_option(one, context) for one in command.get_params(context) if one.name in COMMON)


def exit_codes() -> str:
    """The exit codes of every command, as a definition list."""
    return "\n".join(definition(f"`{code}`", escaped(text)) for code, text in CODE.findall(EXIT_CODES))


def commands(group: click.Group, *before: str) -> Iterator[tuple[str, click.Command]]:
    """Every command by all of its words; groups are not commands."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield " ".join([*before, name]), command


def _section(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"dnsblock {name}", help_option_names=HELP)
    params = [one for one in command.get_params(context) if one.name not in COMMON]
    options = [_option(one, context) for one in params if isinstance(one, click.Option)]
    usage = " ".join(["dnsblock", name, *command.collect_usage_pieces(context)])
    summary, *details = _paragraphs(inspect.cleandoc(command.help or ""))
    return "\n".join([f"### dnsblock {name}\n", summary, f"```text\n{usage}\n```\n", *details, *options])


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a help text. Click keeps the lines of a paragraph that begins with \\b."""
    for paragraph in text.split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield f"```text\n{inspect.cleandoc(paragraph[2:])}\n```\n"
        else:
            yield escaped(" ".join(paragraph.split())) + "\n"


def _option(option: click.Parameter, context: click.Context) -> str:
    names, text = option.get_help_record(context) or ("", "")
    return definition(f"`{names}`", escaped(text))
