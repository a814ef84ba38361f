"""The command line, called as a user calls it."""

from __future__ import annotations

from vitrify.cli.main import main


def vitrify(capsys, *arguments, code=0):
    """Exit code checked; returns stdout (success) or the one line on stderr (failure)."""
    found = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert found == code, err
    if code:
        assert err.count("\n") == 1, err
        assert err.startswith("vitrify: ")
        assert "Traceback" not in err
        return err
    return out
