# SPDX-License-Identifier: Apache-2.0
"""Two machines of a cluster in one: each has corosync and Pacemaker in namespaces of its own (network, processes,
mounts, host name). To kill its first process is to switch it off. Needs root, corosync, Pacemaker and the
resource-agents."""

import os
import signal
import subprocess
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from harness import eventually, run
from namespaces import linked_pair

_TOP = Path(__file__).resolve().parents[2]
_AGENT = _TOP / "tools" / "ocf" / "volume"

_COROSYNC = """totem {
  version: 2
  cluster_name: ckpt
  transport: knet
  crypto_cipher: none
  crypto_hash: none
  token: 1000
}
quorum {
  provider: corosync_votequorum
  two_node: 1
}
logging {
  to_stderr: yes
}
nodelist {
"""

# Two machines that start at once need not wait 20 seconds for each other.
_PATIENCE = """<crm_config><cluster_property_set id="options">
<nvpair id="options-dc-deadtime" name="dc-deadtime" value="2s"/></cluster_property_set></crm_config>"""

# Asks the test to switch the other machine off, and waits until it says that it has.
_FENCE = """#!/bin/sh
while read -r line; do
    case $line in
    action=*) action=${line#*=} ;;
    port=* | plug=*) port=${line#*=} ;;
    esac
done
case $action in
metadata)
    echo '<?xml version="1.0"?><resource-agent name="fence_test"><parameters>'
    echo '<parameter name="port" unique="0" required="1"><content type="string"/></parameter></parameters><actions>'
    for each in on off reboot monitor status list metadata; do echo "<action name=\\"$each\\"/>"; done
    echo '</actions></resource-agent>' ;;
off | reboot)
    mkdir "FOLDER/$port.asked" 2> /dev/null
    [ ! -e FOLDER/refuses ] || exit 1
    until [ -e "FOLDER/$port.off" ]; do sleep 0.1; done ;;
esac
exit 0
"""


class Node:
    """One machine; it may be started again. Its /srv is `srv`."""

    def __init__(self, cluster, name, namespace):
        self.name, self.namespace = name, namespace
        self.folder = cluster.folder / name
        self.srv = self.folder / "srv"
        self.process = None
        for folder in "srv/store", "corosync":
            (self.folder / folder).mkdir(parents=True)

    def write_files(self, nodes, fences):
        """What it is configured by, but for the cluster's own information base."""
        listed = "".join(f"  node {{\n    ring0_addr: {node.namespace.v4}\n    name: {node.name}\n"
                         f"    nodeid: {number}\n  }}\n" for number, node in enumerate(nodes, 1))
        (self.folder / "corosync" / "corosync.conf").write_text(f"{_COROSYNC}{listed}}}\n")
        (self.folder / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{node.namespace.v4} {node.name}\n" for node in nodes))
        base = self.folder / "pacemaker" / "cib"
        base.mkdir(parents=True)
        (base / "cib.xml").write_text(run("cibadmin", "--empty").replace("<crm_config/>", _PATIENCE))
        fence = self.folder / "fence_test"
        fence.write_text(_FENCE.replace("FOLDER", str(fences)))
        fence.chmod(0o755)

    def start(self):
        self.kill()
        words = [*self.namespace.under, "unshare", "--uts", "--ipc", "--pid", "--mount", "--fork", "--kill-child",
                 "--mount-proc", "bash", Path(__file__).with_name("cluster_node.sh"), self.name, self.folder, _AGENT]
        log = open(self.folder / "node.log", "ab")
        with log:
            self.process = subprocess.Popen(list(map(str, words)), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self._first = int(eventually(self._children, f"{self.name} has a first process").split()[0])

    def _children(self):
        return Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()

    @property
    def running(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        """All of its processes are gone when this returns."""
        if self.running:
            os.kill(self._first, signal.SIGKILL)
            self.process.wait()

    def run(self, *words, **options):
        """A command on this machine."""
        return subprocess.run(["nsenter", "--target", str(self._first), "--all", *map(str, words)],
                              capture_output=True, text=True, check=False, timeout=120, **options)


class Cluster:
    """Both machines, and what switches them off for each other."""

    def __init__(self, case, folder):
        self.folder = Path(folder)
        self.log = self.folder / "cluster"  # its name in what a failed test shows
        self.fences = self.folder / "fences"
        self.fences.mkdir()
        self.alice, self.bob = self.nodes = [
            Node(self, name, namespace) for name, namespace in zip(("alice", "bob"), linked_pair(case))]
        for node in self.nodes:
            node.write_files(self.nodes, self.fences)
        self.fenced = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._fence)
        self._thread.start()
        case.addCleanup(self._end)

    def _end(self):
        self._over.set()
        self._thread.join()
        for node in self.nodes:
            node.kill()

    def _fence(self):
        while not self._over.wait(0.05):
            for asked in [] if (self.fences / "refuses").exists() else self.fences.glob("*.asked"):
                node = next(node for node in self.nodes if node.name == asked.stem)
                if any(other.running for other in self.nodes if other is not node):  # else who asked is dead
                    node.kill()
                    self.fenced.append(node.name)
                    (self.fences / f"{node.name}.off").touch()
                asked.rmdir()

    def refuses(self, does):
        """Nobody is switched off, and whoever asks for it is told so."""
        if does:
            (self.fences / "refuses").touch()
        else:
            for asked in self.asked():
                asked.rmdir()
            (self.fences / "refuses").unlink()

    def asked(self):
        return [*self.fences.glob("*.asked")]

    def start(self, *nodes):
        for node in nodes or self.nodes:
            (self.fences / f"{node.name}.off").unlink(missing_ok=True)
            node.start()

    def configure(self, xml):
        """The cluster's configuration, when it can be asked."""
        path = self.folder / "configuration.xml"
        path.write_text(xml)

        def is_taken():
            # One that the other machine has not joined yet may give way to that one's.
            if len(self.online(self.alice)) < len(self.nodes):
                return False
            done = self.alice.run("cibadmin", "--modify", "--allow-create", "--scope", "configuration", "--xml-file", path)
            return done.returncode == 0
        eventually(is_taken, "the cluster takes its configuration", 90)

    def online(self, node):
        """The names of the machines that are, as that node says."""
        done = node.run("crm_mon", "--output-as=xml", "-1")
        found = ET.fromstring(done.stdout).iter("node") if done.returncode == 0 else ()
        return {one.get("name") for one in found if one.get("online") == "true"}

    def roles(self, node, resource):
        """What each machine is for it, as that node says: by name, "Promoted" and the like; nothing if it cannot."""
        done = node.run("crm_mon", "--output-as=xml", "-1")
        if done.returncode != 0:
            return {}
        found = {}
        for one in ET.fromstring(done.stdout).iter("resource"):
            if one.get("id", "").split(":")[0] == resource and one.get("active") == "true":
                for at in one.iter("node"):
                    found[at.get("name")] = one.get("role")
        return found

    def await_roles(self, node, resource, seconds=90, **roles):
        eventually(lambda: time.sleep(0.2) or self.roles(node, resource) == roles, f"{resource}: {roles}", seconds)

    def said(self):
        """What the machines have logged."""
        paths = [*self.folder.glob("*/log/pacemaker/pacemaker.log"), *self.folder.glob("*/node.log")]
        return "\n".join(f"--- {path}\n{path.read_text(errors='replace')[-20000:]}" for path in sorted(paths))
