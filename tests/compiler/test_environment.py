"""What must be right before TVM starts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest

from burnish.compiler import environment
from burnish.compiler.environment import set_threads
from burnish.runtime.pins import PINS, check_versions
from support import ROOT


def test_the_installed_pair_is_the_pinned_one():
    check_versions()


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"apache-tvm-ffi": "0.1.15"}, "found apache-tvm 0.27.0.post1, apache-tvm-ffi 0.1.15."),
        ({"apache-tvm": "0.26.0"}, "found apache-tvm 0.26.0, apache-tvm-ffi 0.1.14.post1."),
        ({"apache-tvm": None}, "found apache-tvm missing, apache-tvm-ffi 0.1.14.post1."),
    ],
)
def test_another_pair_is_refused_with_the_command_that_helps(monkeypatch, found, said):
    def version(name: str) -> str:
        answer = {**PINS, **found}[name]
        if answer is None:
            raise metadata.PackageNotFoundError(name)
        return answer

    monkeypatch.setattr(metadata, "version", version)
    with pytest.raises(ImportError, match=re.escape(said)) as caught:
        check_versions()
    want = "apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1"
    assert str(caught.value).startswith(f"burnish needs {want}: other pairs crash")
    assert str(caught.value).endswith(f"Run: pip install {want}")


def test_the_import_of_burnish_checks_before_tvm_is_there():
    code = (
        "import sys; from importlib import metadata; metadata.version = lambda name: '9.9'\n"
        "try:\n    import burnish\n"
        "except ImportError as error:\n    print(error); print('tvm' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "found apache-tvm 9.9, apache-tvm-ffi 9.9" in done.stdout
    assert done.stdout.strip().endswith("False")


def test_threads_are_every_core_this_process_may_use(monkeypatch):
    for name in ("TVM_NUM_THREADS", "TVM_BIND_THREADS"):
        monkeypatch.delenv(name, raising=False)
    set_threads()
    assert os.environ["TVM_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))
    assert os.environ["TVM_BIND_THREADS"] == "0"


def test_threads_set_by_the_user_win(monkeypatch):
    monkeypatch.setenv("TVM_NUM_THREADS", "7")
    monkeypatch.setenv("TVM_BIND_THREADS", "1")
    set_threads()
    assert (os.environ["TVM_NUM_THREADS"], os.environ["TVM_BIND_THREADS"]) == ("7", "1")


def test_threads_where_the_system_has_no_affinity(monkeypatch):
    monkeypatch.delenv("TVM_NUM_THREADS", raising=False)
    monkeypatch.delattr(environment.os, "sched_getaffinity")
    monkeypatch.setattr(environment.os, "cpu_count", lambda: None)
    set_threads()
    assert os.environ["TVM_NUM_THREADS"] == "1"


def test_an_import_of_tvm_changes_nothing_and_first_use_sets_the_threads():
    code = (
        "import json, os, sys; before = dict(os.environ)\n"
        "import tvm\n"
        "from importlib.metadata import EntryPoint\n"
        "EntryPoint('opencl', sys.argv[1], 'tvm.backends').load()()\n"
        "assert dict(os.environ) == before\n"
        "print(json.dumps([name for name in sys.modules if name.startswith('burnish')]))\n"
        "import burnish, torch\n"
        "assert dict(os.environ) == before\n"
        "net = torch.nn.ReLU()\n"
        "burnish.compile(net, (torch.ones(4),), do_no_harm=False, cache=False)\n"
        "print(os.environ['TVM_BIND_THREADS'], int(os.environ['TVM_NUM_THREADS']) > 0)\n"
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (entry,) = project["entry-points"]["tvm.backends"].values()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TVM_")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, entry],
        capture_output=True,
        text=True,
        env=clean,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    few = {"targets", "targets.native", "targets.opencl", "targets.opencl.autoload"}
    few |= {"runtime", "runtime.errors", "runtime.opencl_libraries", "runtime.pins"}
    assert set(json.loads(first)) == {"burnish", *(f"burnish.{name}" for name in few)}
    assert second == "0 True"
