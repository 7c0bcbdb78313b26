"""Simulation and deployment: real SuperLink, SuperNodes, TLS, node authentication."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.federated.bits import same_bits

from surefoot.cli import main
from surefoot.errors import SurefootError
from surefoot.federated import federate
from surefoot.federated._processes import descendants
from surefoot.federated.keys import make_node_key, make_tls_files
from surefoot.federated.launcher import Federation, FederationError, environment
from surefoot.reparam.doors.flower import repopt_task

APP = Path(__file__).parents[2] / "apps" / "repopt"
CONFIG = {"data": "digits", "examples": 150, "depths": "1", "widths": "4", "alpha": 10.0}


def reference(rounds, partitions, **more):
    task = repopt_task({**CONFIG, **more, "num-partitions": partitions})
    return federate(
        task, rounds, partitions, extra=task.extra(0), fraction=more.get("fraction", 1.0)
    )


def family(federation):
    return [
        pid
        for process in federation.processes.values()
        for pid in (process.pid, *(p for p, _ in descendants(process.pid)))
    ]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def test_launchers_turn_telemetry_and_installation_off(tmp_path):
    found = environment(tmp_path)
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["FLWR_DISABLE_UPDATE_CHECK"] == "1"
    assert found["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
    assert found["FLWR_HOME"] == str(tmp_path)


def test_keys(tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    make_tls_files(tmp_path)
    ca, server = (
        x509.load_pem_x509_certificate((tmp_path / n).read_bytes())
        for n in ("ca.crt", "server.crt")
    )
    server.verify_directly_issued_by(ca)
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    make_node_key(tmp_path / "node0")
    key = load_ssh_private_key((tmp_path / "node0").read_bytes(), None)
    assert key.curve.name == "secp384r1"
    assert (tmp_path / "node0.pub").read_text().startswith("ecdsa-sha2-nistp384 ")
    assert all((tmp_path / n).stat().st_mode & 0o077 == 0 for n in ("node0", "server.key"))


def test_bad_requests(tmp_path, capsys):
    with pytest.raises(SurefootError, match=r"no Flower app: it has no pyproject\.toml"):
        Federation(tmp_path, 2, secure=False)
    with pytest.raises(SurefootError, match="partitions must be at least 1"):
        Federation(APP, 0, secure=False)
    assert main(["federate", "simulate", str(tmp_path)]) == 2
    assert "pyproject.toml" in capsys.readouterr().err
    assert main(["federate", "simulate", str(APP), "--set", "lr"]) == 2


def test_an_interpreter_from_which_ray_starts_no_workers(tmp_path, monkeypatch, capsys):
    (tmp_path / "a folder").symlink_to(sys.prefix)
    python = tmp_path / "a folder" / Path(sys.executable).relative_to(sys.prefix)
    monkeypatch.setattr(sys, "executable", str(python))
    assert main(["federate", "simulate", str(APP)]) == 2
    assert f"whose path holds a space, got {python}" in capsys.readouterr().err


def test_a_process_that_does_not_start_is_named_and_stopped(tmp_path):
    federation = Federation(APP, 1, secure=True, folder=tmp_path)
    federation.home = tmp_path
    script = "import sys; print('no such flag', file=sys.stderr); sys.exit(2)"
    federation.start("broken", [sys.executable, "-c", script])
    with pytest.raises(FederationError, match=r"(?s)broken ended with code 2.*no such flag"):
        federation.wait_for_line("broken", "never", 60)
    federation.close()


# All and half of the nodes; statistics that must outlive a round in the client's own state.
RUNS = ({"fraction": 1.0}, {"fraction": 0.5}, {"fraction": 0.5, "bn": "local"})


def said(more):
    return ", ".join(f"{k} {v}" for k, v in more.items())


@pytest.mark.acceptance
@pytest.mark.parametrize("more", RUNS)
def test_simulation_equals_the_reference_bit_for_bit(more, tmp_path, measured):
    """Also through the command line; a little federation on Ray."""
    out = tmp_path / "final.safetensors"
    words = [f"{k}={v}" for k, v in {**CONFIG, **more}.items()]
    started = time.time()
    code = main(
        ["federate", "simulate", str(APP), "--partitions", "3", "--rounds", "3", "--out", str(out),
         "--folder", str(tmp_path / "f"), "--set", *words]
    )  # fmt: skip
    assert code == 0
    assert same_bits(out, reference(3, 3, **more))
    seconds = time.time() - started
    measured("8.11 simulation = reference", "bitwise", f"{said(more)}: yes ({seconds:.0f} s)")


@pytest.mark.acceptance
def test_deployment_equals_the_reference_and_refuses_strangers(tmp_path, measured):
    """TLS, node keys, 3 rounds with all and with half; then a stranger, and nothing left behind."""
    with Federation(APP, 3, secure=True, folder=tmp_path / "f") as federation:
        for more in RUNS:
            out = federation.run(tmp_path / "final.safetensors", {**CONFIG, **more}, 300)
            assert same_bits(out, reference(3, 3, **more))
            measured("8.11 deployment = reference = simulation", "bitwise", f"{said(more)}: yes")
        make_node_key(tmp_path / "f" / "stranger")
        federation.start_node(7, key="stranger")
        assert federation.processes["node7"].wait(60) != 0
        assert "2004" in federation.log("node7")
        measured("unregistered node", "refused", f"code {federation.processes['node7'].returncode}")
        pids = family(federation)
        assert len(pids) > 4
    assert not any(alive(p) for p in pids)


@pytest.mark.acceptance
def test_a_killed_node_is_named_and_the_rounds_go_on(tmp_path, measured):
    import threading

    with Federation(APP, 3, secure=True, folder=tmp_path / "f") as federation:

        def kill():
            # Three answers to the query for partitions: the messages of round 1 are next.
            deadline = time.time() + 1200
            while federation.log("superlink").count("Push replies") < 3:
                if time.time() > deadline:
                    return
                time.sleep(0.1)
            time.sleep(3)
            for pid in [p for p, _ in descendants(federation.processes["node1"].pid)]:
                os.kill(pid, signal.SIGKILL)
            os.kill(federation.processes["node1"].pid, signal.SIGKILL)

        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        started = time.time()
        config = {**CONFIG, "local-epochs": 400, "num-server-rounds": 2, "round-timeout": 120}
        out = federation.run(tmp_path / "final.safetensors", config, 500)
        killer.join(1)
    report = json.loads(Path(f"{out}.json").read_text())
    lost = {r["server_round"]: r["lost"] for r in report["rounds"]}
    measured("killed node", "named, no hang", f"{time.time() - started:.0f} s: {lost}")
    assert "1" in lost[1]
    assert "1" in lost[2]
    assert report["rounds"][1]["partitions"] == [0, 2]


@pytest.mark.acceptance
def test_a_killed_superlink_is_one_sentence_and_the_run_goes_on_to_the_same_bits(
    tmp_path, measured
):
    out = tmp_path / "final.safetensors"
    settings = [f"{k}={v}" for k, v in {**CONFIG, "local-epochs": 20}.items()]
    words = ["federate", "up", str(APP), "--partitions", "2", "--rounds", "6", "--out", str(out)]
    words += ["--set", *settings]
    run = subprocess.Popen(
        [sys.executable, "-m", "surefoot.cli", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    deadline = time.time() + 1200
    while not Path(f"{out}.checkpoint").exists():
        assert run.poll() is None, run.communicate()
        assert time.time() < deadline
        time.sleep(0.05)
    link = [p for p, _ in descendants(run.pid) if b"flower-superlink" in command_of(p)]
    assert link
    for pid in link:
        os.kill(pid, signal.SIGKILL)
    _, said = run.communicate(timeout=1200)
    assert run.returncode == 1, said
    assert said.startswith("error: the superlink ended with code -9")
    assert said.endswith("its last round is kept: --resume goes on from there\n")
    assert not out.exists()
    assert main([*words, "--resume"]) == 0
    rounds = [r["server_round"] for r in json.loads(Path(f"{out}.json").read_text())["rounds"]]
    assert rounds == [1, 2, 3, 4, 5, 6]
    assert same_bits(out, reference(6, 2, **{"local-epochs": 20}))
    measured("killed SuperLink, --resume", "the same bits", "yes")


def test_a_federation_that_never_starts_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("surefoot.federated.launcher._short", lambda: None)
    # A checkout whose path holds a space has no Ray, and this test needs none.
    monkeypatch.setattr("surefoot.federated.launcher.check_ray", lambda: None)
    for secure in (True, False):
        Federation(APP, 1, secure=secure)
    assert list(tmp_path.iterdir()) == []
