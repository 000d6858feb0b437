"""The entry point `lab`, also `python -m lab`: every command under one name, with completions for the shell.

`lab NAME` is `python -m lab.NAME`. A command's module is imported only when it is used or listed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from lab.cli.command import HELP, Version
from lab.errors import meant

if TYPE_CHECKING:
    from typer._click import Command, Context

COMMANDS = ("init", "tune", "studies", "show", "play", "compare", "report", "export", "check", "doctor")
"""Modules of `lab/`, each with an `app` of one command."""


class _Commands(TyperGroup):
    def list_commands(self, ctx: "Context") -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: "Context", cmd_name: str) -> "Command | None":  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: Any = typer.main.get_command(import_module(f"lab.{cmd_name}").app)
        command.name = cmd_name
        return command  # type: ignore[no-any-return]

    def resolve_command(
        self, ctx: "Context", args: list[str]
    ) -> "tuple[str | None, Command | None, list[str]]":
        if args and args[0] not in COMMANDS and not ctx.resilient_parsing:
            otherwise = f"use one of {', '.join(COMMANDS)}."
            ctx.fail(f"Unknown command {args[0]!r}: {meant(args[0], COMMANDS, otherwise)}")
        return super().resolve_command(ctx, args)


app = typer.Typer(cls=_Commands, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback(context_settings=HELP)
def lab(version: Version = False) -> None:  # its callback prints it
    """Tune, show, play and compare the prompts of an agent that acts in an OpenEnv environment."""


def main() -> None:
    """Run the command that the arguments name."""
    app(prog_name="lab")


if __name__ == "__main__":
    main()
