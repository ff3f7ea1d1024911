#!/usr/bin/env python3
"""Has a Mumble client trust the certificate of a server, which it would otherwise ask a person about.

    mumble_trust.py DATABASE HOST PORT CERTIFICATE
"""
import hashlib
import sqlite3
import ssl
import sys

database, host, port, certificate = sys.argv[1:]
digest = hashlib.sha1(ssl.PEM_cert_to_DER_cert(open(certificate).read())).hexdigest()
with sqlite3.connect(database) as db:
    db.execute("CREATE TABLE cert (id INTEGER PRIMARY KEY AUTOINCREMENT, hostname TEXT, port INTEGER, digest TEXT)")
    db.execute("CREATE UNIQUE INDEX cert_host_port ON cert (hostname, port)")
    db.execute("INSERT INTO cert (hostname, port, digest) VALUES (?, ?, ?)", (host, port, digest))
