#!/usr/bin/env bash
# Runs a command as a rank that NCCL takes for one on a host of its own, which it reaches over loopback sockets.
export NCCL_HOSTID="host-${OMPI_COMM_WORLD_RANK:-0}" NCCL_SOCKET_IFNAME=lo NCCL_IB_DISABLE=1
exec "$@"
