"""Regular expressions of strangers, some of which take longer to match than anyone lives.

Which ones do depends on the texts as well, so that no look at an expression tells. It is matched in a process of its
own, which can be ended.
"""

import json
import subprocess
import sys
from collections.abc import Sequence

from pet_cifar.errors import InputError

SECONDS = 10.0
"""The time that an expression has to be read."""
SECONDS_EACH = 0.001
"""The time that it has for each text beside that, hundreds of times what it takes."""
_PROGRAM = """
import json, re, sys
pattern, texts = json.load(sys.stdin)
answer = {"first": []}
try:
    compiled = re.compile(pattern)
    if not compiled.groups:
        answer["first"] = None
    for text in texts if compiled.groups else ():
        found = compiled.search(text)
        if found is None:
            answer["without"] = text
            break
        answer["first"].append(found[1] or "")
except (re.error, RecursionError, OverflowError, MemoryError) as error:
    answer = {"fault": str(error) or type(error).__name__}
json.dump(answer, sys.stdout)
"""


def first_groups(pattern: str, texts: Sequence[str], name: str) -> list[str] | None:
    """What the first group of a regular expression matches in each text.

    Args:
        pattern: The regular expression.
        texts: The texts, in each of which it must be found somewhere.
        name: The argument that it was given for.

    Returns:
        A text each, empty where the group takes no part; None where the expression has no group.

    Raises:
        InputError: It is none, does not match a text, or takes too long.
    """
    shown = pattern if len(pattern) <= 200 else f"{pattern[:200]}..."
    seconds = SECONDS + SECONDS_EACH * len(texts)
    try:
        # It imports nothing but the standard library, and starts in a hundredth of a second.
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROGRAM],
            input=json.dumps([pattern, list(texts)]),
            capture_output=True,
            encoding="ascii",
            timeout=seconds,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(
            f"{name} is {shown}, which takes more than {seconds:.0f} s to match {len(texts)} paths; write it without "
            "repetitions within repetitions"
        ) from error
    except subprocess.CalledProcessError as error:
        raise InputError(
            f"{name} is {shown}, with which Python has ended ({error}); write it in another way"
        ) from error
    answer = json.loads(done.stdout)
    if "fault" in answer:
        raise InputError(f"{name} is {shown}, which is no regular expression: {answer['fault']}")
    if "without" in answer:
        raise InputError(f"{name} is {shown}, which does not match {answer['without']}")
    found: list[str] | None = answer["first"]
    return found
