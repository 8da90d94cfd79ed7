#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# What runs as the first process of a machine of a cluster (cluster.py): corosync and Pacemaker, in namespaces of
# their own. What is in FOLDER outlives it, as a disk does; what is in /run and /dev/shm does not.
#
#   cluster_node.sh NAME FOLDER AGENT
set -euo pipefail
name=$1 folder=$2 agent=$3

hostname "$name"
mount --make-rprivate /
for fresh in /run /dev/shm /var/lib/corosync; do
    mount -t tmpfs none "$fresh"
done
mkdir -p "$folder"/{pacemaker/{cib,pengine,blackbox,cores},log/{pacemaker,cluster},srv/store}
chown -R hacluster:haclient "$folder/pacemaker" "$folder/log/pacemaker"
mkdir -p /run/{crm,resource-agents,lock} && chown hacluster:haclient /run/crm
mount --bind "$folder/pacemaker" /var/lib/pacemaker
mount --bind "$folder/log" /var/log
mount --bind "$folder/srv" /srv
mount --bind "$folder/corosync" /etc/corosync
mount --bind "$folder/hosts" /etc/hosts

# The agents of the test, where Pacemaker looks for them.
cp -a /usr/lib/ocf/resource.d "/run/agents" && mkdir /run/agents/ckpt && cp "$agent" /run/agents/ckpt/volume
mount --bind /run/agents /usr/lib/ocf/resource.d
mkdir -p /run/sbin/{upper,work}
mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=/run/sbin/upper,workdir=/run/sbin/work" /usr/sbin
cp "$folder/fence_test" /usr/sbin/fence_test

corosync -f > "$folder/log/corosync.out" 2>&1 &
until corosync-cpgtool > /dev/null 2>&1; do sleep 0.1; done
pacemakerd > "$folder/log/pacemakerd.out" 2>&1 &
wait
