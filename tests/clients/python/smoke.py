#!/usr/bin/env python3
"""Exercises a lastword node from Python, knowing nothing of it but proto/.

    smoke.py ADDRESS [SECOND_ADDRESS] [--sequence OFFSET/INCREMENT]

ADDRESS is host:port of a node; SECOND_ADDRESS of one that exchanges with it: what is written at
the first is then read, with the session, at the second. --sequence names the settings of the first
node; without it, a node that has none may say so. Prints one line for each check, and exits 1
after the first that fails.
"""

import argparse
import importlib
import pathlib
import sys
import tempfile
import time
import uuid

import grpc
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_tools import protoc

PROTO_DIR = pathlib.Path(__file__).resolve().parents[3] / "proto"
CALL_TIMEOUT_S = 10
# How long the second site may take to hold what the first has acknowledged.
REPLICATION_TIMEOUT_S = 30
POLL_S = 0.02
KEY_BYTES_MAX = 512
VALUE_BYTES_MAX = 1 << 20
KEYS_MAX = 1_000
MUTATIONS_MAX = 1_000
ROW_COUNT = 30


def compile_proto(out_dir):
    """Generates the Python modules of proto/ into out_dir and makes them importable."""
    bundled = pathlib.Path(protoc.__file__).parent / "_proto"
    arguments = ["protoc", f"-I{PROTO_DIR}", f"-I{bundled}"]
    arguments += [f"--python_out={out_dir}", f"--grpc_python_out={out_dir}"]
    arguments += [str(path) for path in sorted(PROTO_DIR.rglob("*.proto"))]
    if protoc.main(arguments) != 0:
        sys.exit("smoke.py: protoc could not compile proto/")
    sys.path.insert(0, out_dir)


class CheckFailed(Exception):
    """What was expected, and what came."""


def equal(actual, expected, what):
    if actual != expected:
        raise CheckFailed(f"{what}: expected {expected!r}, got {actual!r}")


def true(condition, what):
    if not condition:
        raise CheckFailed(what)


def fails(call, request, code, *words):
    """Asserts that the call is answered with this code and a message that holds these words."""
    try:
        answer = call(request, timeout=CALL_TIMEOUT_S)
        if hasattr(answer, "__iter__"):
            answer = list(answer)
    except grpc.RpcError as error:
        equal(error.code(), code, f"status code (message: {error.details()})")
        for word in words:
            true(word in error.details(), f"{word!r} in the message {error.details()!r}")
        return
    raise CheckFailed(f"expected {code}, got the answer {answer!r}")


def until(attempt, what):
    """Repeats attempt() until it answers something other than None; bounded."""
    deadline = time.monotonic() + REPLICATION_TIMEOUT_S
    while time.monotonic() < deadline:
        answer = attempt()
        if answer is not None:
            return answer
        time.sleep(POLL_S)
    raise CheckFailed(f"{what}: not within {REPLICATION_TIMEOUT_S} s")


class Smoke:
    """The checks, in the order in which they run."""

    def __init__(self, address, second_address, sequence):
        self.kv_proto = importlib.import_module("lastword.v1.key_value_pb2")
        self.admin_proto = importlib.import_module("lastword.v1.admin_pb2")
        stubs = importlib.import_module("lastword.v1.key_value_pb2_grpc")
        admin_stubs = importlib.import_module("lastword.v1.admin_pb2_grpc")
        self.channel = grpc.insecure_channel(address)
        self.kv = stubs.KeyValueServiceStub(self.channel)
        self.admin = admin_stubs.AdminServiceStub(self.channel)
        self.second = None
        if second_address:
            self.second = stubs.KeyValueServiceStub(grpc.insecure_channel(second_address))
        self.sequence = sequence
        # A table of its own, so that the checks hold on a node that is in use.
        self.table = f"smoke_python_{uuid.uuid4().hex[:8]}"

    def put(self, key, value, **more):
        request = self.kv_proto.PutRequest(table=self.table, key=key, value=value, **more)
        return self.kv.Put(request, timeout=CALL_TIMEOUT_S)

    def get(self, key, session=b"", stub=None):
        request = self.kv_proto.GetRequest(table=self.table, key=key, session=session)
        return (stub or self.kv).Get(request, timeout=CALL_TIMEOUT_S)

    def insert(self, **fields):
        request = self.kv_proto.InsertRequest(table=self.table, **fields)
        return self.kv.Insert(request, timeout=CALL_TIMEOUT_S)

    def scan(self, **fields):
        request = self.kv_proto.ScanRequest(table=self.table, **fields)
        answers = list(self.kv.Scan(request, timeout=CALL_TIMEOUT_S))
        for answer in answers:
            equal(answer.session, answers[0].session, "session of one scan")
        return [row for answer in answers for row in answer.rows]

    def check_health(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        for service in ("", "lastword.v1.KeyValueService"):
            request = health_pb2.HealthCheckRequest(service=service)
            status = stub.Check(request, timeout=CALL_TIMEOUT_S).status
            equal(status, health_pb2.HealthCheckResponse.SERVING, f"health of {service!r}")

    def check_reflection(self):
        services = set(ProtoReflectionDescriptorDatabase(self.channel).get_services())
        for service in (
            "lastword.v1.KeyValueService",
            "lastword.v1.AdminService",
            "grpc.health.v1.Health",
        ):
            true(service in services, f"{service} among {sorted(services)}")

    def check_put_and_get(self):
        first = self.put(b"one", b"1")
        equal(len(first.version.origin), 16, "bytes of the origin")
        age_s = time.time() - (first.version.hlc >> 16) / 1000
        true(abs(age_s) < 60, f"stamp within 60 s of the clock, got {age_s} s")
        true(first.session, "a session")
        row = self.get(b"one").row
        equal((row.table, row.key, row.value), (self.table, b"one", b"1"), "row")
        equal(row.version, first.version, "version read")
        true(not row.HasField("expire_time"), "no expire_time without a ttl")
        second = self.put(b"one", b"\x00\xff" * 100)
        true(second.version.hlc > first.version.hlc, "a later write has the greater stamp")
        equal(self.get(b"one", second.session).row.value, b"\x00\xff" * 100, "replaced value")
        true(not self.get(b"absent").HasField("row"), "no row for an absent key")

    def check_limits_are_included(self):
        key, value = b"k" * KEY_BYTES_MAX, b"v" * VALUE_BYTES_MAX
        self.put(key, value)
        equal(self.get(key).row.value, value, "the largest value under the longest key")
        self.put(b"empty", b"")
        answer = self.get(b"empty")
        true(answer.HasField("row"), "a row with an empty value")
        equal(answer.row.value, b"", "empty value")

    def check_get_many(self):
        self.put(b"many-1", b"a")
        self.put(b"many-2", b"b")
        keys = [b"many-2", b"many-0", b"many-1", b"many-2"]
        request = self.kv_proto.GetManyRequest(table=self.table, keys=keys)
        answer = self.kv.GetMany(request, timeout=CALL_TIMEOUT_S)
        equal([row.key for row in answer.rows], keys, "keys in the order asked")
        values = [row.row.value if row.HasField("row") else None for row in answer.rows]
        equal(values, [b"b", None, b"a", b"b"], "values, None: absent")

    def check_ttl(self):
        before = time.time()
        self.put(b"hour", b"x", ttl=duration_pb2.Duration(seconds=3600))
        expire_time = self.get(b"hour").row.expire_time
        expires_s = expire_time.seconds + expire_time.nanos / 1e9
        true(abs(expires_s - before - 3600) < 60, f"expires in an hour: {expires_s - before} s")
        self.put(b"moment", b"x", ttl=duration_pb2.Duration(nanos=300_000_000))
        until(lambda: None if self.get(b"moment").HasField("row") else True, "expiry after 300 ms")
        equal(self.scan(prefix=b"moment"), [], "expired rows in a scan")

    def check_delete(self):
        self.put(b"gone", b"x")
        request = self.kv_proto.DeleteRequest(table=self.table, key=b"gone")
        first = self.kv.Delete(request, timeout=CALL_TIMEOUT_S)
        true(first.existed, "existed, the first time")
        true(not self.get(b"gone", first.session).HasField("row"), "no row after the delete")
        second = self.kv.Delete(request, timeout=CALL_TIMEOUT_S)
        true(not second.existed, "not existed, the second time")

    def check_insert_uuid(self):
        keys = []
        for id_kind in (self.kv_proto.ID_KIND_UNSPECIFIED, self.kv_proto.ID_KIND_UUID_V7):
            answer = self.insert(value=b"u", id_kind=id_kind)
            key = answer.key.decode()
            made = uuid.UUID(key)
            equal((made.version, str(made)), (7, key), "UUID version and text form")
            equal(self.get(answer.key).row.value, b"u", "inserted value")
            keys.append(key)
        true(keys[0] < keys[1], f"UUIDs in the order of their making: {keys}")

    def check_insert_sequence(self):
        def attempt():
            try:
                kind = self.kv_proto.ID_KIND_SEQUENCE
                return self.insert(value=b"s", id_kind=kind).key.decode()
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.UNAVAILABLE:
                    return None  # The node does not own its offset yet.
                if error.code() == grpc.StatusCode.FAILED_PRECONDITION and not self.sequence:
                    return ""
                raise

        keys = [until(attempt, "sequence ids") for _ in range(3)]
        if keys[0] == "":
            return "not configured"
        numbers = [int(key) for key in keys]
        equal([str(number) for number in numbers], keys, "decimal text")
        true(numbers[0] < numbers[1] < numbers[2], f"ascending: {numbers}")
        if self.sequence:
            offset, increment = self.sequence
            for number in numbers:
                equal(number % increment, offset % increment, f"{number} modulo {increment}")
        equal(self.get(keys[2].encode()).row.value, b"s", "inserted value")
        return None

    def check_batch(self):
        proto = self.kv_proto
        self.put(b"batch-old", b"x")
        mutations = [
            proto.Mutation(put=proto.PutRequest(table=self.table, key=b"batch", value=b"1")),
            proto.Mutation(delete=proto.DeleteRequest(table=self.table, key=b"batch-old")),
            proto.Mutation(insert=proto.InsertRequest(table=self.table, value=b"3")),
            proto.Mutation(put=proto.PutRequest(table=self.table, key=b"batch", value=b"4")),
        ]
        request = proto.BatchRequest(mutations=mutations)
        answer = self.kv.Batch(request, timeout=CALL_TIMEOUT_S)
        equal(len(answer.results), len(mutations), "results")
        put, delete, insert, last = answer.results
        equal((put.key, delete.key, last.key), (b"batch", b"batch-old", b"batch"), "keys")
        true(delete.existed, "existed, of the delete")
        equal(uuid.UUID(insert.key.decode()).version, 7, "version of the inserted UUID")
        equal(self.get(b"batch", answer.session).row.value, b"4", "the later mutation wins")
        true(not self.get(b"batch-old").HasField("row"), "no row after the delete")
        equal(self.get(insert.key).row.value, b"3", "inserted value")

    def check_batch_is_atomic(self):
        proto = self.kv_proto
        good = proto.Mutation(put=proto.PutRequest(table=self.table, key=b"atom", value=b"x"))
        bad = proto.Mutation(put=proto.PutRequest(table=self.table, key=b"", value=b"x"))
        request = proto.BatchRequest(mutations=[good, bad])
        fails(self.kv.Batch, request, grpc.StatusCode.INVALID_ARGUMENT, "key")
        true(not self.get(b"atom").HasField("row"), "nothing of a refused batch is written")

    def check_bulk_write(self):
        proto = self.kv_proto

        def request(key, value):
            put = proto.PutRequest(table=self.table, key=key, value=value)
            return proto.BulkWriteRequest(mutations=[proto.Mutation(put=put)])

        requests = [request(f"bulk-{n % 50}".encode(), str(n).encode()) for n in range(500)]
        requests[100] = request(b"", b"no key")
        answers = list(self.kv.BulkWrite(iter(requests), timeout=CALL_TIMEOUT_S))
        equal(len(answers), len(requests), "answers")
        refused = [n for n, answer in enumerate(answers) if answer.HasField("error")]
        equal(refused, [100], "requests answered with an error")
        equal(answers[100].error.code, grpc.StatusCode.INVALID_ARGUMENT.value[0], "its code")
        equal(answers[499].results[0].key, b"bulk-49", "answers come in the order sent")
        row = self.get(b"bulk-49", answers[499].session).row
        equal(row.value, b"499", "the last write of a key stands")

    def check_scan(self):
        keys = [f"scan-{number:02}".encode() for number in range(ROW_COUNT)]
        for key in keys:
            self.put(key, b"value of " + key)
        self.put(b"scam", b"x")
        self.put(b"scan.", b"x")
        rows = self.scan(prefix=b"scan-")
        equal([row.key for row in rows], keys, "keys with the prefix, in order")
        equal(rows[3].value, b"value of scan-03", "value")
        rows = self.scan(prefix=b"scan-", limit=7)
        equal([row.key for row in rows], keys[:7], "the first 7")
        rows = self.scan(prefix=b"scan-", reverse=True, limit=3)
        equal([row.key for row in rows], keys[:-4:-1], "the last 3, downwards")
        rows = self.scan(prefix=b"scan-", keys_only=True)
        equal([row.key for row in rows], keys, "keys only: the keys")
        equal({row.value for row in rows}, {b""}, "keys only: no values")
        rows = self.scan(start=b"scan-05", end=b"scan-10")
        equal([row.key for row in rows], keys[5:10], "from start, included, to end, not included")
        rows = self.scan(start=b"scan-05", end=b"scan-10", reverse=True)
        equal([row.key for row in rows], keys[9:4:-1], "the same range downwards")

    def check_large_scan(self):
        value = b"v" * 100_000
        for number in range(ROW_COUNT):
            self.put(b"large-%02d" % number, value)
        rows = self.scan(prefix=b"large-")
        equal(len(rows), ROW_COUNT, "rows of 3 MB, in several messages")
        equal({row.value for row in rows}, {value}, "their values")

    def check_bad_input(self):
        proto, kv, table = self.kv_proto, self.kv, self.table
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        long_key = b"k" * (KEY_BYTES_MAX + 1)
        fails(kv.Put, proto.PutRequest(table=table, value=b"x"), invalid, "key", "512")
        fails(kv.Get, proto.GetRequest(table=table), invalid, "key")
        fails(kv.Delete, proto.DeleteRequest(table=table), invalid, "key")
        fails(kv.Put, proto.PutRequest(table=table, key=long_key), invalid, "key", "513", "512")
        fails(kv.Get, proto.GetRequest(table=table, key=long_key), invalid, "key", "512")
        for name in ("", "Big", "1st", "a-b", "a" * 64, "_members"):
            fails(kv.Put, proto.PutRequest(table=name, key=b"k"), invalid, "table")
            fails(kv.Get, proto.GetRequest(table=name, key=b"k"), invalid, "table")
            fails(kv.Scan, proto.ScanRequest(table=name), invalid, "table")
        large = proto.PutRequest(table=table, key=b"k", value=b"v" * (VALUE_BYTES_MAX + 1))
        fails(kv.Put, large, invalid, "value", f"{VALUE_BYTES_MAX:,}")
        for ttl in (duration_pb2.Duration(), duration_pb2.Duration(seconds=-1)):
            fails(kv.Put, proto.PutRequest(table=table, key=b"k", ttl=ttl), invalid, "ttl")
        keys = [b"k"] * (KEYS_MAX + 1)
        fails(kv.GetMany, proto.GetManyRequest(table=table, keys=keys), invalid, "keys")
        fails(kv.Batch, proto.BatchRequest(), invalid, "mutations")
        put = proto.Mutation(put=proto.PutRequest(table=table, key=b"k"))
        too_many = proto.BatchRequest(mutations=[put] * (MUTATIONS_MAX + 1))
        fails(kv.Batch, too_many, invalid, "mutations")
        both = proto.ScanRequest(table=table, prefix=b"a", start=b"b")
        fails(kv.Scan, both, invalid, "prefix")
        unreadable = proto.GetRequest(table=table, key=b"k", session=b"\xff\x00nonsense")
        fails(kv.Get, unreadable, invalid, "session")
        true(not self.get(b"k").HasField("row"), "nothing that was refused is written")

    def check_status(self):
        status = self.admin.Status(self.admin_proto.StatusRequest(), timeout=CALL_TIMEOUT_S)
        node = status.node
        true(node.site, "a site")
        true(node.cluster, "a cluster")
        true(node.software_version, "a software version")
        origin = self.get(b"one").row.version.origin
        equal(node.origin, str(uuid.UUID(bytes=origin)), "origin")
        true(node.origin in [head.origin for head in node.heads], "a head of the node's own")
        true(node.rows >= ROW_COUNT, f"rows: {node.rows}")
        true(node.rows_written >= ROW_COUNT, f"rows written: {node.rows_written}")
        true(node.commits > 0, "commits")
        true(node.store_bytes > 0, "bytes of the store")
        equal(node.writes_refused_reason, "", "reason to refuse writes")
        equal(self.get(b"one").row.site, node.site, "site of a row written here")
        if self.second:
            true(any(peer.connected for peer in status.peers), f"a connected peer: {status.peers}")

    def check_session_at_the_second_site(self):
        if not self.second:
            return "no second address"

        def read(key, session):
            try:
                return self.get(key, session, self.second)
            except grpc.RpcError as error:
                equal(error.code(), grpc.StatusCode.FAILED_PRECONDITION, error.details())
                true("behind" in error.details(), f"how far behind: {error.details()!r}")
                return None

        # Whenever the read is answered at all, it is with the world of the session, or a later one.
        for number in range(ROW_COUNT):
            value = b"%d" % number
            session = self.put(b"session", value).session
            answer = until(lambda: read(b"session", session), "the second site")
            equal(answer.row.value, value, "value read at the second site")
            true(answer.session, "a session")
        request = self.kv_proto.DeleteRequest(table=self.table, key=b"session")
        session = self.kv.Delete(request, timeout=CALL_TIMEOUT_S).session
        answer = until(lambda: read(b"session", session), "the second site")
        true(not answer.HasField("row"), "no row at the second site after the delete")
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", metavar="ADDRESS")
    parser.add_argument("second_address", metavar="SECOND_ADDRESS", nargs="?")
    parser.add_argument("--sequence", metavar="OFFSET/INCREMENT")
    options = parser.parse_args()
    sequence = None
    if options.sequence:
        offset, increment = options.sequence.split("/")
        sequence = (int(offset), int(increment))

    with tempfile.TemporaryDirectory() as out_dir:
        compile_proto(out_dir)
        smoke = Smoke(options.address, options.second_address, sequence)
        checks = [name for name in vars(Smoke) if name.startswith("check_")]
        for name in checks:
            title = name.removeprefix("check_").replace("_", " ")
            try:
                skipped = getattr(smoke, name)()
            except grpc.RpcError as error:
                print(f"python: FAILED {title}: {error.code().name}: {error.details()}")
                return 1
            except (CheckFailed, ValueError) as error:
                print(f"python: FAILED {title}: {error}")
                return 1
            print(f"python: {'skip' if skipped else 'ok'} {title}"
                  + (f" ({skipped})" if skipped else ""), flush=True)
    print(f"python: all {len(checks)} checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
