"""The page on exit codes."""

from __future__ import annotations

#: What each code means, and what to do; the codes are a contract.
CODES = {
    0: ("done", "nothing"),
    1: (
        "the work failed: a training, a job, a site that does not answer, a finding of `doctor`",
        "read the message on stderr; a failed run keeps tracebacks in `errors/` and stacks in `stacks/`",
    ),
    2: (
        "the request is wrong: a key, an option, a file",
        "change what the message names; trying again without a change ends alike",
    ),
    75: (
        "stopped on request, after a checkpoint; to be continued",
        "`frontrunner train RUN_DIR` goes on; in a job the next segment does it",
    ),
    130: ("interrupted by Ctrl-C", "nothing; a run goes on from its newest checkpoint"),
}


def page() -> str:
    rows = [f"| {code} | {meaning} | {what} |" for code, (meaning, what) in CODES.items()]
    return "\n".join(
        [
            "# Exit codes\n",
            "All commands use the same codes.\n",
            "| code | meaning | what to do |",
            "|---|---|---|",
            *rows,
            "",
            "With `--json`, a command that fails still prints one object on stdout. For code 2 it holds "
            "`valid` and `violations[]`; for the others `error`, the message.",
            "",
        ]
    )
