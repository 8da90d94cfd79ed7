# SPDX-License-Identifier: Apache-2.0
#
# A disk that can be made to fail, of device-mapper's targets (Linux, Documentation/admin-guide/
# device-mapper/{dm-flakey,linear}.rst). Changed under a mounted file system, which is not told.

import subprocess

SECTOR_BYTES = 512


class Disk:
    def __init__(self, name, device):
        self.name = name
        self.device = device
        size = subprocess.run(["blockdev", "--getsz", device], check=True, stdout=subprocess.PIPE)
        self.sectors = int(size.stdout)
        self.path = f"/dev/mapper/{name}"
        # Without udev nobody else makes the node, or answers dmsetup's cookie.
        self.dmsetup("create", name, "--noudevsync", "--table", self.healthy())
        self.dmsetup("mknodes", name)

    @staticmethod
    def dmsetup(*words):
        subprocess.run(["dmsetup", *words], check=True)

    def linear(self, start, end):
        return f"{start} {end - start} linear {self.device} {start}"

    def healthy(self):
        return self.linear(0, self.sectors)

    def become(self, table):
        self.dmsetup("suspend", "--nolockfs", "--noflush", self.name)
        subprocess.run(["dmsetup", "load", self.name], check=True, input=table.encode())
        self.dmsetup("resume", "--noudevsync", self.name)

    def heal(self):
        self.become(self.healthy())

    def fail_writes(self):
        """Every write fails, and every flush."""
        self.become(f"0 {self.sectors} flakey {self.device} 0 0 3600 1 error_writes")

    def fail_ranges(self, ranges):
        """All that is done to these sectors fails, [start, end), in order; a flush does not."""
        table, done = [], 0
        for start, end in ranges:
            if start > done:
                table.append(self.linear(done, start))
            table.append(f"{start} {end - start} error")
            done = end
        if done < self.sectors:
            table.append(self.linear(done, self.sectors))
        self.become("\n".join(table))


def sectors_of_file(path):
    """Where a file is on its disk, as fail_ranges() wants it."""
    said = subprocess.run(["filefrag", "-s", "-v", "-b512", path], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    ranges = []
    for line in said.splitlines():
        fields = line.replace("..", " ").replace(":", " ").split()
        if len(fields) >= 6 and fields[0].isdigit():
            ranges.append((int(fields[3]), int(fields[4]) + 1))
    merged = []
    for start, end in sorted(ranges):
        if merged and merged[-1][1] == start:
            start = merged.pop()[0]
        merged.append((start, end))
    return merged
