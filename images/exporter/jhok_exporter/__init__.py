"""Metrics of the cluster and of the NFS server, and a relay of Alertmanager's messages to chat groups."""
