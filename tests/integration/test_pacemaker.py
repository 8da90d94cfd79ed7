#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The agent for Pacemaker, in a real cluster of two machines (cluster.py): what is promoted is the disk as it was at
its last checkpoint, or, in a planned move, all of it; and the other machine's is its back-up again."""

import random
import shutil
import time
import unittest

from cluster import Cluster
from harness import MIB, Case, build, eventually, plugin, run, tool
from nbd_client import NbdClient
from sites import Model

SIZE = 32 * MIB
PORT = 7000
DISK = "disk"
CLONE = {"promotable": "true", "notify": "true", "clone-max": "2", "migration-threshold": "3", "failure-timeout": "600"}
LONGER_THAN_A_PROMOTION = 5  # seconds; one takes less than one
# Exit statuses of agents (OCF's resource agent API).
FAILED, UNIMPLEMENTED, NOT_INSTALLED, NOT_CONFIGURED, NOT_RUNNING = 1, 3, 5, 6, 7


def values(of, pairs):
    """In the configuration's words; what they are of makes their ids."""
    return "".join(f'<nvpair id="{of}-{name}" name="{name}" value="{value}"/>' for name, value in pairs.items())


class Clustered(Case):
    """A volume whose image is alice's; bob has its back-up, and has been told of no checkpoint later than the model's."""

    def setUp(self):
        super().setUp()
        self.draw = random.Random(1)
        self.model = Model(self.draw, SIZE)
        self.cluster = Cluster(self, self.folder)
        self._logged.append(self.cluster)
        self.alice, self.bob = self.cluster.nodes
        self.make_volume()
        self.cluster.start()

    def begin(self, **options):
        self.cluster.configure(self.configuration(**options))
        self.settle(self.alice, self.bob)

    def make_volume(self):
        """As one would by hand, before there is a cluster."""
        backupd = self.keep("--tls=off", store=self.bob.srv / "store", listen=f"{self.bob.namespace.v4}:{PORT}",
                            under=self.bob.namespace.under)
        server = self.serve(self.image(size=SIZE, folder=self.alice.srv), f"backup={self.bob.namespace.v4}:{PORT}",
                            "tls=off", under=self.alice.namespace.under)
        self.model.write_some(server)
        tool("checkpoint", server.image)
        self.model.keep()
        self.volume = tool("status", server.image)["volume"]
        server.stop()
        backupd.stop()

    @property
    def parameters(self):
        return {"volume": self.volume, "store": "/srv/store", "image": "/srv/disk.img", "socket": "/srv/disk.sock",
                "backups": f"alice={self.bob.namespace.v4}:{PORT} bob={self.alice.namespace.v4}:{PORT}",
                "server": "tls=off", "tool": build() / "tools" / "ckpt-tool", "plugin": plugin()}

    def configuration(self, stonith="true"):
        properties = {"stonith-enabled": stonith, "stonith-action": "off"}
        keeper = {"binfile": build() / "backupd" / "backupd", "pidfile": "/run/backupd.pid", "logfile": "/srv/backupd.log",
                  "errlogfile": "/srv/backupd.log",
                  "cmdline_options": f"--foreground --tls=off --silence=3 --store=/srv/store --listen=0.0.0.0:{PORT}"}
        return f"""<configuration>
<crm_config><cluster_property_set id="options">{values("options", properties)}</cluster_property_set></crm_config>
<resources>
<primitive id="fence" class="stonith" type="fence_test">
<instance_attributes id="fence-ia">{values("fence", {"pcmk_host_list": "alice bob"})}</instance_attributes>
</primitive>
<clone id="{DISK}-clone">
<meta_attributes id="disk-ma">{values("clone", CLONE)}</meta_attributes>
<primitive id="{DISK}" class="ocf" provider="ckpt" type="volume">
<instance_attributes id="disk-ia">{values(DISK, self.parameters)}</instance_attributes>
<operations>
<op id="disk-m1" name="monitor" interval="2s" timeout="30s" role="Promoted"/>
<op id="disk-m2" name="monitor" interval="3s" timeout="30s" role="Unpromoted"/>
<op id="disk-p" name="promote" interval="0" timeout="120s"/>
<op id="disk-d" name="demote" interval="0" timeout="60s"/>
</operations>
</primitive>
</clone>
<clone id="backupd-clone">
<meta_attributes id="backupd-ma">{values("backupds", {"interleave": "true"})}</meta_attributes>
<primitive id="backupd" class="ocf" provider="heartbeat" type="anything">
<instance_attributes id="backupd-ia">{values("backupd", keeper)}</instance_attributes>
</primitive>
</clone>
</resources>
<constraints>
<rsc_order id="first-the-image" kind="Optional" first="{DISK}-clone" first-action="start" then="backupd-clone" then-action="start"/>
<rsc_order id="then-the-disk" kind="Optional" first="backupd-clone" first-action="start" then="{DISK}-clone" then-action="promote"/>
</constraints>
</configuration>
"""

    def settle(self, primary, other):
        """These are their roles, and the one has its back-up at the other."""
        self.cluster.await_roles(primary, DISK, **{primary.name: "Promoted", other.name: "Unpromoted"})
        self.primary, self.other = primary, other
        eventually(lambda: tool("status", self.image_of(primary))["protected"], "it is protected", 60)

    def image_of(self, node):
        began = node.srv / "disk.img"
        return began if began.exists() else node.srv / "store" / self.volume / "backup.img"

    def client(self):
        return NbdClient(str(self.primary.srv / "disk.sock"))

    def read(self):
        with self.client() as client:
            return b"".join(client.read(offset, MIB) for offset in range(0, SIZE, MIB))

    def write_some(self):
        with self.client() as client:
            for _ in range(30):
                data = self.draw.randbytes(self.draw.randrange(1, 40000))
                self.model.write(client, self.draw.randrange(SIZE - len(data)), data)
            client.flush()

    def checkpoint(self):
        answer = tool("checkpoint", self.image_of(self.primary))
        self.model.keep()
        return answer

    def expect_disk(self):
        self.assertTrue(self.read() == self.model.now)

    def expect_two_copies(self):
        """The other one's back-up is the disk at its checkpoint."""
        self.write_some()
        self.checkpoint()
        self.write_some()
        image = self.image_of(self.primary)
        eventually(lambda: (lambda backup: backup["confirmed"] == backup["applied"])(tool("status", image)["backup"]),
                   "it is applied")
        self.assertTrue((self.other.srv / "store" / self.volume / "backup.img").read_bytes() == self.model.kept)
        answer = tool("verify", image, under=self.primary.namespace.under)
        self.assertEqual(answer["mismatched_bytes"], 0)


class Pacemaker(Clustered):
    def test_there_and_back_again(self):
        self.see_to_it_that_somebody_fences()
        self.begin()
        self.expect_two_copies()
        self.lose_the_primary_s_machine()
        self.have_it_back()
        self.move_it()
        self.lose_sight_of_each_other()

    def see_to_it_that_somebody_fences(self):
        """Else nothing is promoted."""
        self.cluster.configure(self.configuration(stonith="false"))
        self.cluster.await_roles(self.alice, DISK, alice="Unpromoted", bob="Unpromoted")
        eventually(lambda: "stonith-enabled is not true" in self.alice.run("crm_mon", "-1rf").stdout, "it says why")
        self.assertFalse((self.alice.srv / "disk.sock").exists())
        self.alice.run("crm_resource", "--cleanup")

    def lose_the_primary_s_machine(self):
        """The disk is that of the last checkpoint."""
        self.alice.kill()
        self.model.go_back()
        self.cluster.await_roles(self.bob, DISK, bob="Promoted")
        self.assertEqual(self.cluster.fenced, ["alice"])
        self.primary = self.bob
        self.expect_disk()
        self.write_some()

    def have_it_back(self):
        """As the back-up; its image has taken that place."""
        self.cluster.start(self.alice)
        self.settle(self.bob, self.alice)
        self.assertFalse((self.alice.srv / "disk.img").exists())
        self.expect_disk()
        self.expect_two_copies()

    def move_it(self):
        """As planned: nothing is lost, and a client that stays does not keep it for ever."""
        with self.client():
            self.bob.run("crm_resource", "--resource", f"{DISK}-clone", "--move", "--node", "alice", "--promoted")
            self.settle(self.alice, self.bob)
        self.bob.run("crm_resource", "--resource", f"{DISK}-clone", "--clear")
        self.assertFalse(self.has_image(self.bob))
        self.expect_disk()
        self.expect_two_copies()

    def has_image(self, node):
        """That could be served."""
        return (node.srv / "store" / self.volume / "backup.img.ckpt").exists()

    def lose_sight_of_each_other(self):
        """One of them is switched off, whichever; the other one has all that it can have."""
        before = len(self.cluster.fenced)
        self.alice.namespace.down()
        eventually(lambda: self.cluster.fenced[before:], "one is fenced")
        survivor, dead = (self.alice, self.bob) if self.alice.running else (self.bob, self.alice)
        if survivor is self.bob:
            self.model.go_back()
        self.alice.namespace.up()
        self.cluster.await_roles(survivor, DISK, **{survivor.name: "Promoted"})
        self.primary = survivor
        self.expect_disk()
        self.cluster.start(dead)
        self.settle(survivor, dead)
        self.expect_two_copies()

    def test_what_it_does_not_promote(self):
        self.begin()
        self.lose_the_server()
        self.lose_the_power()
        self.end_it_and_begin_it_again()
        self.end_it_without_its_back_up()
        self.put_an_older_back_up_in_place()
        self.lose_the_fence()

    def lose_the_server(self):
        """It goes on where it was, with all that was written."""
        self.write_some()
        pid = self.server_pid()
        self.alice.run("kill", "-KILL", pid)
        eventually(lambda: self.server_pid() not in (pid, ""), "it is served again")
        self.settle(self.alice, self.bob)
        self.expect_disk()
        self.expect_two_copies()
        self.assertEqual(self.cluster.fenced, [])

    def server_pid(self):
        return self.alice.run("cat", f"/run/resource-agents/ckpt-{self.volume}/pid").stdout.strip()

    def lose_the_power(self):
        """Both do. Who was promoted last is, again."""
        self.write_some()
        for node in self.cluster.nodes:
            node.kill()
        self.cluster.start()
        self.settle(self.alice, self.bob)
        self.expect_disk()
        self.expect_two_copies()

    def end_it_and_begin_it_again(self):
        """Nobody else is to be promoted: the roles stay."""
        self.write_some()
        self.aim_at("Stopped")
        self.cluster.await_roles(self.bob, DISK)
        self.aim_at("Started")
        self.settle(self.alice, self.bob)
        self.assertTrue((self.alice.srv / "disk.img").exists())
        self.expect_disk()

    def aim_at(self, role):
        self.bob.run("crm_resource", "--resource", f"{DISK}-clone", "--meta", "--set-parameter", "target-role",
                     "--parameter-value", role)

    def end_it_without_its_back_up(self):
        """What could not be made a checkpoint at the end is on the image alone: the back-up is not promoted."""
        self.write_some()
        keeper = self.bob.run("cat", "/run/backupd.pid").stdout.strip()
        self.bob.run("kill", "-STOP", keeper)
        self.aim_at("Stopped")
        self.cluster.await_roles(self.bob, DISK)
        self.bob.run("kill", "-CONT", keeper)
        self.assertTrue(self.known().endswith("+"), self.known())
        self.alice.kill()
        self.aim_at("Started")
        self.cluster.await_roles(self.bob, DISK, bob="Unpromoted")
        time.sleep(LONGER_THAN_A_PROMOTION)
        self.assertEqual(self.cluster.roles(self.bob, DISK), {"bob": "Unpromoted"})
        self.cluster.start(self.alice)
        self.settle(self.alice, self.bob)
        self.expect_disk()
        self.cluster.fenced.clear()

    def put_an_older_back_up_in_place(self):
        """It is not promoted: what was answered since would be lost, and nobody would have said so."""
        folder, older = self.bob.srv / "store" / self.volume, self.folder / "older"
        shutil.copytree(folder, older)
        self.write_some()
        last = self.checkpoint()["checkpoint"]
        eventually(lambda: self.known().endswith(f":{last}"), "the cluster has heard of it")
        for node in self.cluster.nodes:
            node.kill()
        shutil.rmtree(folder)
        shutil.copytree(older, folder)
        self.cluster.start()
        self.cluster.await_roles(self.alice, DISK, alice="Promoted", bob="Unpromoted")
        self.alice.kill()
        eventually(lambda: self.cluster.fenced, "it is fenced")
        self.cluster.await_roles(self.bob, DISK, bob="Unpromoted")
        time.sleep(LONGER_THAN_A_PROMOTION)
        self.assertEqual(self.cluster.roles(self.bob, DISK), {"bob": "Unpromoted"})
        self.cluster.start(self.alice)
        self.cluster.await_roles(self.alice, DISK, alice="Promoted", bob="Unpromoted")
        self.expect_disk()
        self.checkpoint()  # nothing else makes the back-up whole again
        self.settle(self.alice, self.bob)
        self.expect_two_copies()

    def known(self):
        return self.bob.run("crm_attribute", "--type", "crm_config", "--set-name", "ckpt", "--name",
                            f"ckpt-{self.volume}", "--query", "--quiet").stdout.strip()

    def lose_the_fence(self):
        """Nobody knows whether the primary is dead: nothing is promoted, until it is known."""
        self.checkpoint()
        before = len(self.cluster.fenced)
        self.cluster.refuses(True)
        self.alice.namespace.down()
        eventually(self.cluster.asked, "somebody is to be fenced")
        time.sleep(LONGER_THAN_A_PROMOTION)
        self.assertEqual(self.cluster.fenced[before:], [])
        self.assertFalse(self.has_image(self.bob))
        self.alice.kill()
        self.cluster.refuses(False)
        self.cluster.await_roles(self.bob, DISK, bob="Promoted")
        self.primary = self.bob
        self.expect_disk()


class Agent(Clustered):
    """By itself, on a machine of a cluster that does not have the volume."""

    def test_agent(self):
        eventually(self.is_answered, "the cluster can be asked")
        self.keep("--tls=off", store=self.bob.srv / "store", listen=f"{self.bob.namespace.v4}:{PORT}",
                  under=self.bob.namespace.under)
        with self.subTest("ocf-tester"):
            self.has_the_testers_blessing()
        self.says_what_is_wrong_with_parameters()
        self.says_why_it_cannot_serve()

    def is_answered(self):
        words = "--type", "crm_config", "--name", "cluster-infrastructure", "--query"
        return self.alice.run("crm_attribute", *words).returncode == 0

    def has_the_testers_blessing(self):
        words = [word for name, value in self.parameters.items() for word in ("-o", f"{name}={value}")]
        done = self.alice.run("ocf-tester", "-v", "-n", DISK, *words, "/usr/lib/ocf/resource.d/ckpt/volume")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("passed all tests", done.stdout)
        for action in "start", "promote", "demote", "notify", "stop":
            self.assertNotIn(f"does not support the {action} action", done.stdout)

    def call(self, action, **changes):
        """What it says, and its exit status."""
        words = [f"OCF_RESKEY_{name}={value}" for name, value in {**self.parameters, **changes}.items()]
        done = self.alice.run("env", "OCF_ROOT=/usr/lib/ocf", f"OCF_RESOURCE_INSTANCE={DISK}", *words,
                              "/usr/lib/ocf/resource.d/ckpt/volume", action)
        return done.stdout + done.stderr, done.returncode

    def says_what_is_wrong_with_parameters(self):
        for changes, says, code in (({"volume": "mail"}, "is no UUID", NOT_CONFIGURED),
                                    ({"backups": "bob=alice:7000"}, "no address for alice", NOT_CONFIGURED),
                                    ({"store": "/nowhere"}, "no such folder", NOT_INSTALLED),
                                    ({"tool": "/nowhere/ckpt-tool"}, "/nowhere/ckpt-tool", NOT_INSTALLED)):
            with self.subTest(**changes):
                said, status = self.call("start", **changes)
                self.assertIn(says, said)
                self.assertEqual(status, code)
        said, status = self.call("jump")
        self.assertEqual(status, UNIMPLEMENTED)
        self.assertIn("usage", said)

    def says_why_it_cannot_serve(self):
        """It is an error of the promotion, in nbdkit's own words, and leaves nothing behind."""
        for words in "tls=off nonsense=1", "tls=off --nonsense":
            with self.subTest(words):
                self.assertEqual(self.call("start", server=words)[1], 0)
                said, status = self.call("promote", server=words)
                self.assertEqual(status, FAILED)
                self.assertIn("nonsense", said)
                self.assertEqual(self.call("monitor", server=words)[1], 0)
                self.assertEqual(self.call("stop", server=words)[1], 0)
                self.assertEqual(self.call("monitor", server=words)[1], NOT_RUNNING)


if __name__ == "__main__":
    unittest.main()
