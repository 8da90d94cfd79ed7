# SPDX-License-Identifier: Apache-2.0
"""What vm_rounds.py does to a machine besides: what must be refused, with the machine as it was,
and what is killed in the middle."""

import socket
import threading
import time

from vm_machine import MEMORY_MIB  # isort:skip: it says where the harness is
from harness import BUSY, MIB, OK, UNKNOWN, USAGE, Server, eventually, run, tool
from vm_rig import ENOUGH_STEPS, MODES, STEPS_A_SECOND, Made, check, ok

HALF_WAY = 9


# What is refused.


def check_message(what, answer):
    """There is one, and it can be shown on a terminal."""
    text = answer.message.replace("\n", "")
    check(0 < len(text) < 1000 and text.isprintable(), f"{what}: {text[:1000]!r}")
    check("result" not in (line.get("type") for line in answer.lines), f"{what}: {answer}")


def refused(rig, what, *words, expect=None, **where):
    """ckpt-tool refuses, with a message, and the machine counts on as if nothing had been asked."""
    before, number, pid = rig.machine.state(), rig.last(), rig.machine.pid()
    began = time.monotonic()
    answer = tool(*rig.vm_words(*words, **where), expect=expect)
    check(answer.code not in (OK, HALF_WAY), f"{what}: {answer}")
    check_message(what, answer)
    check(time.monotonic() - began < 30, f"{what}: took {time.monotonic() - began:.0f} s")
    check(rig.last() == number, f"{what}: another checkpoint")
    check(rig.machine.pid() == pid, f"{what}: another QEMU")
    check(rig.machine.state().memory >= before.memory, f"{what}: gone back")
    rig.check_running(before)
    ok(f"refused: {what}: exit {answer.code}: {answer.message.splitlines()[0]}")


class Pretender:
    """Listens at a socket and is not QEMU."""

    def __init__(self, path, says):
        self.path = path
        self._says = says
        self._open = []
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client = self._socket.accept()[0]
                self._open.append(client)
                client.sendall(self._says)
            except OSError:
                return

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for client in self._open:
            client.close()
        self.path.unlink()


def bad_sockets(rig):
    folder = rig.server.socket.parent
    dead = folder / "dead"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(dead))
    pretended = {"noise": rig.draw.randbytes(3000) + b"\n",
                 "another protocol": b"HTTP/1.1 200 OK\r\n\r\n", "other JSON": b'{"a": 1}\n',
                 "an endless line": b'{"QMP": "' + b"x" * (4 * MIB)}
    checkpoint, rollback = ("checkpoint", "--timeout", 3), ("rollback", "--yes")
    for words in (checkpoint, rollback):
        refused(rig, f"{words[0]}, no such socket", *words, qmp=folder / "nowhere")
        refused(rig, f"{words[0]}, nobody at the socket", *words, qmp=dead)
        refused(rig, f"{words[0]}, the socket is a file", *words, qmp=rig.image)
        with Pretender(folder / "pretender", b"") as path:
            refused(rig, f"{words[0]}, silence at the socket", *words, qmp=path)
    for name, says in pretended.items():
        with Pretender(folder / "pretender", says) as path:
            refused(rig, f"checkpoint, {name} at the socket", *checkpoint, qmp=path)
    dead.unlink()


def busy_socket(rig):
    """QEMU talks to one client at a time: the others wait."""
    with socket.socket(socket.AF_UNIX) as other:
        other.connect(str(rig.machine.qmp_socket))
        other.recv(10)
        refused(rig, "checkpoint, somebody else is at the socket", "checkpoint", "--timeout", 3)


def other_disk(rig):
    """A volume that is served and has a checkpoint with that very memory, but the machine's disk is
    another."""
    image = rig.folder / "other.img"
    with open(image, "wb") as file:
        file.truncate(16 * MIB)
    attached = []
    for name in ("vm", "vm-memory"):
        tool("export", rig.image, "last", rig.folder / name, "--attachment", name)
        attached += ["--attach", f"{name}={rig.folder / name}"]
    server = Server(image, folder=rig.folder).start()
    try:
        tool("checkpoint", image, *attached)
        before = tool("list", image)["checkpoints"]
        refused(rig, "checkpoint of a disk that is not the machine's", "checkpoint", volume=image)
        refused(rig, "rollback of a disk that is not the machine's", "rollback", "--yes",
                volume=image)
        check(tool("list", image)["checkpoints"] == before, "a checkpoint of the other disk")
        refused(rig, "checkpoint of no volume", "checkpoint", volume=rig.folder / "none.img",
                expect=UNKNOWN)
    finally:
        server.cleanup()


def while_it_runs(rig):
    """What needs the machine to be off, or another checkpoint, or other words."""
    made = rig.checkpoint()
    for word in ("--disk-only", "--fresh"):
        refused(rig, f"{word} while it runs", "rollback", word, "--yes", expect=BUSY)
    refused(rig, "rollback to no checkpoint", "rollback", "nowhere", "--yes", expect=UNKNOWN)
    refused(rig, "no such mode", "checkpoint", "--mode", "none", expect=USAGE)
    refused(rig, "a name that is a number", "checkpoint", "--name", "12")
    refused(rig, "rollback without --yes", "rollback")
    damaged_memory(rig)
    rig.check_goes_back(made)  # it was the damage that was refused
    tool("checkpoint", rig.image)
    refused(rig, "rollback to a checkpoint without memory", "rollback", "--yes")


def damaged_memory(rig):
    """A flipped bit in what is stored of the memory is found before anything is done."""
    stored = max(rig.attachments_folder().iterdir(), key=lambda path: path.stat().st_size)
    whole = stored.read_bytes()
    for place in (len(whole) // 2, len(whole) - 100):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        stored.write_bytes(damaged)
        refused(rig, f"memory damaged at byte {place} of {len(whole)}", "rollback", "--yes")
    stored.write_bytes(whole)


def paused_machine(rig, mode):
    """Its checkpoint leaves it paused, and can be gone back to, also while it is paused."""
    before = rig.machine.state()
    rig.pause()
    count = rig.machine.count_in_memory(before)
    answer = tool(*rig.vm_words("checkpoint", "--mode", mode))
    check(rig.machine.status() in ("paused", "postmigrate"), f"it is {rig.machine.status()}")
    check(rig.machine.count_in_memory(before) == count, "it ran")
    rig.check_attached(answer["checkpoint"])
    made = Made(answer["checkpoint"], before, before.memory)
    made.low = made.high = count
    rig.resume()
    late = rig.make_mess()
    rig.roll_back("--paused")
    rig.check_paused(made)
    rig.check_goes_back(made, late)
    ok(f"{mode}: a paused machine stays paused, and goes back to it, also from there")


# With QEMU gone.


def refused_while_off(rig, what, *words, after=()):
    """With a message, and no QEMU is left that runs."""
    answer = tool(*rig.vm_words("rollback", *words, "--yes"), *after, expect=None)
    check(answer.code != OK, f"{what}: {answer}")
    check_message(what, answer)
    left = rig.machine.processes()
    check(not left, f"{what}: QEMU is left: {left}")
    ok(f"refused: {what}: exit {answer.code}: {answer.message.splitlines()[0]}")


def other_machines(rig):
    """The memory is that of one machine; into any other it does not go."""
    made = rig.checkpoint()
    rig.go_on_for_a_while()
    rig.machine.kill()
    refused_while_off(rig, "in place, with QEMU gone")
    words = rig.machine.words
    for what, line in (("more memory", words(memory=2 * MEMORY_MIB)),
                       ("another machine type", words(machine="q35")),
                       ("a program that ends at once", ["/bin/false"]),
                       ("no such program", ["/nowhere/qemu"])):
        refused_while_off(rig, what, "--fresh", after=["--", *line])
    began = time.monotonic()
    rig.roll_back("--fresh")
    rig.check_back(made, began)
    rig.check_goes_back(made)
    ok("after all of these it goes back into the right one")


def disk_only(rig):
    """The checkpoint without memory is the disk as after a power cut, and boots."""
    tool("checkpoint", rig.image)
    rig.go_on_for_a_while()
    rig.machine.kill()
    refused_while_off(rig, "--fresh without memory", "--fresh")
    answer = tool("vm", "rollback", rig.image, "--disk-only", "--yes")
    check(answer["checkpoint"] == rig.last(), answer)
    exported = rig.folder / "checkpoint.img"
    tool("export", rig.image, "last", exported)
    run("cmp", rig.image, exported)
    exported.unlink()
    rig.machine.boot()
    rig.check_files()
    rig.check_file_system()
    ok("--disk-only: the disk as at the checkpoint, and it boots")


# What is killed in the middle.


def duration(act):
    began = time.monotonic()
    act()
    return time.monotonic() - began


def kill_tool_after(rig, seconds, *words):
    process = rig.start_tool(*words)
    time.sleep(seconds)
    process.kill()
    process.wait()


def which_exists(rig, older, before, answered):
    """After a checkpoint in which something was killed, the last one is the new one, whole, or the
    older one; and the new one if its maker was told so."""
    last = rig.last()
    if last == older.number:
        check(not answered, "the checkpoint was answered, and does not exist")
        return older
    check(last > older.number, f"checkpoint {last} after {older.number}")
    rig.check_attached(last)
    return Made(last, before, before.memory + 60 * STEPS_A_SECOND)


def kill_qemu_in_checkpoint(rig, times):
    seconds = {mode: duration(lambda mode=mode: rig.checkpoint(mode)) for mode in MODES}
    made = rig.checkpoint()
    new = 0
    for number in range(times):
        mode = MODES[number % 2]
        before = rig.machine.counts_on(rig.machine.state(), ENOUGH_STEPS)
        pid = rig.machine.pid()
        process = rig.start_tool("checkpoint", "--mode", mode)
        time.sleep(rig.draw.uniform(0, seconds[mode]))
        rig.machine.kill(pid)
        last = which_exists_at_end(rig, process, made, before)
        began = time.monotonic()
        rig.roll_back("--fresh")
        rig.check_back(last, began, before if last is made else None)
        rig.check_goes_back(last)
        new += last is not made
        made = last
    ok(f"QEMU killed in {times} checkpoints, {new} of which exist; back each time")


def which_exists_at_end(rig, process, older, before):
    code = process.wait(90)
    check(code >= 0, f"ckpt-tool crashed: {code}")
    return which_exists(rig, older, before, code == OK)


def kill_tool_in_checkpoint(rig, times):
    seconds = {mode: duration(lambda mode=mode: rig.checkpoint(mode)) for mode in MODES}
    made = rig.checkpoint()
    left = []
    for number in range(times):
        mode = MODES[number % 2]
        before = rig.machine.counts_on(rig.machine.state(), ENOUGH_STEPS)
        kill_tool_after(rig, rig.draw.uniform(0, seconds[mode]), "checkpoint", "--mode", mode)
        left.append(rig.machine.status())
        settle(rig)
        if number % 3 == 2:
            made = checkpoint_again(rig, mode)
            rig.make_mess()
        else:
            made = which_exists(rig, made, before, False)
        rig.check_goes_back(made)
    ok(f"ckpt-tool killed in {times} checkpoints (the machine was then {', '.join(left)}); "
       "back each time")


def checkpoint_again(rig, mode):
    """Whatever the killed one left, the next one is made."""
    if rig.machine.status() != "running":
        rig.resume()
    eventually(lambda: rig.machine.status() == "running", "the machine runs on")
    return rig.checkpoint(mode)


def settle(rig):
    """Until the server has noticed that who asked it is gone."""
    eventually(lambda: tool("status", rig.image)["state"] == "running", "the volume is served")


def kill_tool_in_rollback(rig, times):
    made = rig.checkpoint()
    seconds = duration(rig.roll_back)
    left = []
    for _ in range(times):
        rig.make_mess()
        kill_tool_after(rig, rig.draw.uniform(0, seconds), "rollback", "--yes")
        left.append(rig.machine.status())
        settle(rig)
        rig.check_goes_back(made)
    ok(f"ckpt-tool killed in {times} rollbacks (the machine was then {', '.join(left)}); "
       "the next one completes each")


def kill_server_between(rig):
    """The volume's server dies and comes back under the machine; then it goes back as ever."""
    made = rig.checkpoint("background")
    rig.server.kill9()
    time.sleep(0.5)
    rig.server.start()
    late = rig.make_mess()
    rig.check_goes_back(made, late)
    ok("the server was killed and started again in between")


def all_refused(rig, _):
    rig.checkpoint()
    bad_sockets(rig)
    busy_socket(rig)
    other_disk(rig)
    for mode in MODES:
        paused_machine(rig, mode)
    while_it_runs(rig)
    other_machines(rig)
    disk_only(rig)


def all_killed(rig, rounds):
    kill_server_between(rig)
    kill_tool_in_checkpoint(rig, rounds)
    kill_tool_in_rollback(rig, rounds)
    kill_qemu_in_checkpoint(rig, rounds)
