"""Policies are compiled in threads, several at once, also as the first thing that a process does."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, threading
from importlib import resources
from shared.policy.compiling import compile_policy

folder = resources.files("shared.policy").joinpath("templates")
texts = [each.read_text(encoding="utf-8") for each in folder.iterdir() if each.name.endswith(".yaml")][:4]
compiled = []
sys.setswitchinterval(1e-6)
threads = [threading.Thread(target=lambda text=text: compiled.append(compile_policy(text))) for text in texts]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(0 if len(compiled) == len(texts) > 1 else 1)
"""


def test_the_first_policies_of_a_process_can_be_compiled_at_the_same_time() -> None:
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr or f"ended by signal {-ended.returncode}"
