"""The command line, run in this process."""

import pytest

from focalis.cli.main import main


@pytest.fixture
def run(capsys):
    """Run the command line; the exit code and what was printed."""

    def call(*words):
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return stopped.value.code or 0, printed.out, printed.err

    return call
