# SPDX-License-Identifier: Apache-2.0
"""QEMU's NBD servers, as opponents: an image as it is, copied before it is written, or below an overlay."""

import json
import subprocess
from pathlib import Path

from servers import Server

DISK = "disk"  # the node that is exported


def node(driver, name, **more):
    return {"driver": driver, "node-name": name, **more}


def file_node(name, path):
    return node("file", name, filename=str(path), discard="unmap")


def make_qcow2(path, *words):
    path.unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)


class QemuServer(Server):
    """qemu-storage-daemon(1) with the graph of nodes that nodes() makes; the last one is exported."""

    def words(self, place, parameters):
        nodes = self.nodes(place.folder)
        export = {"type": "nbd", "id": "export", "node-name": nodes[-1]["node-name"], "name": "",
                  "writable": True}
        server = {"addr": {"type": "unix", "path": self.socket}, "max-connections": 0}
        return ["qemu-storage-daemon",
                *(word for one in nodes for word in ("--blockdev", json.dumps(one))),
                "--nbd-server", json.dumps(server), "--export", json.dumps(export)]

    def nodes(self, _folder):
        return [file_node("file", self.image), node("raw", DISK, file="file")]


class CopyBeforeWrite(QemuServer):
    """The old content of a cluster (64 KiB) is copied to a target before the cluster is written first."""

    target = "raw"

    def nodes(self, folder):
        path = Path(folder) / f"target.{self.target}.img"
        size = self.image.stat().st_size
        if self.target == "raw":
            path.unlink(missing_ok=True)
            with open(path, "wb") as file:
                file.truncate(size)
        else:
            make_qcow2(path, str(path), str(size))
        return [*super().nodes(folder), file_node("target-file", path),
                node(self.target, "target", file="target-file"),
                node("copy-before-write", "filter", file=DISK, target="target")]


class CopyBeforeWriteQcow2(CopyBeforeWrite):
    target = "qcow2"


class Overlay(QemuServer):
    """A new qcow2 image above the disk takes the writes."""

    def nodes(self, folder):
        path = Path(folder) / "overlay.img"
        make_qcow2(path, "-b", str(self.image), "-F", "raw", str(path))
        return [file_node("file", self.image), node("raw", "base", file="file", **{"read-only": True}),
                file_node("overlay-file", path), node("qcow2", DISK, file="overlay-file", backing="base")]


class DirectNbd(Server):
    """qemu-nbd(8) past the page cache."""

    def words(self, place, parameters):
        return ["qemu-nbd", "--format=raw", "--cache=none", "--aio=native", "--discard=unmap", "--persistent",
                f"--socket={self.socket}", str(self.image)]
