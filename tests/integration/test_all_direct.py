#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""All that is promised of an image in a file, once more with direct=on, and with a loop device as
the primary. Of these test_direct.py has what every run needs; this is for the long run."""

import unittest

import test_basics
import test_export
import test_faults
import test_full_disks
import test_interval
import test_kill
import test_rollback
import test_verify
from harness import MIB, tool
from nbd_client import NbdClient
from test_direct import OnDevices

DIRECT = ("direct=on",)


class KillDirect(test_kill.Kill):
    extra = DIRECT


class KillDeviceDirect(OnDevices, KillDirect):
    pass


class ClientsDirect(test_rollback.RollbackClients):
    extra = DIRECT


class ClientsDevice(OnDevices, test_rollback.RollbackClients):
    pass


class BehindOurBackDirect(test_faults.BehindOurBack):
    extra = DIRECT


class FirstCopiesDirect(test_faults.FirstCopies):
    extra = DIRECT


class FullDisksDirect(test_full_disks.FullDisks):
    extra = DIRECT


class VerifyDirect(test_verify.Verify):
    extra = DIRECT


class VerifyDevice(OnDevices, test_verify.Verify):
    pass


class ExportDirect(test_export.ToFile):
    extra = DIRECT


class ExportDevice(OnDevices, test_export.ToFile):
    pass


class IntervalDirect(test_interval.Interval):
    extra = DIRECT


class BasicsDevice(OnDevices, test_basics.Basics):
    # A device has whole sectors, and does not tell which of them are allocated.
    test_a_size_that_is_no_multiple_of_the_block = None
    test_no_hole_allocates_and_trim_frees = None

    def test_a_last_block_of_two_sectors(self):
        size = 3 * MIB + 1024
        server = self.serve(self.image(size=size))
        with NbdClient(str(server.socket)) as client:
            self.assertEqual(client.size, size)
            client.write(size - 2000, b"x" * 2000)
            client.zero(size - 1000, 1000)
            tool("checkpoint", server.image)
            client.write(size - 1024, b"y" * 1024)
        tool("rollback", server.image, "--yes")
        with NbdClient(str(server.socket)) as client:
            self.assertEqual(client.read(size - 2000, 2000), b"x" * 1000 + bytes(1000))


class BasicsDeviceDirect(BasicsDevice):
    extra = DIRECT


if __name__ == "__main__":
    unittest.main()
