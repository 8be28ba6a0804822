"""A heartwheel client: python3 heartbeat.py [HOST:PORT [HELLO]]

HELLO is JSON, such as '{"token": "t0k", "beats": "server"}'. Lines of standard input go out
as DATA, received DATA is printed, changes of state go to standard error. Exit code 1: the
server said not to reconnect.
"""
import json
import os
import random
import select
import signal
import socket
import struct
import sys
import time

# A frame is the length of its body and the body: an op and a payload, or nothing at all.
PING, PONG, DATA, HELLO, WELCOME, CONFIG, GOAWAY, CLOSE, ERROR = (bytes([op]) for op in range(1, 10))
BEAT = b""

MAX_FRAME = 65536  # bytes
DEAD_AFTER = 10  # seconds from a beat without a byte from the server
STABLE_AFTER = 30  # seconds after which a connection resets the retry delay
LONGEST_RETRY = 30  # seconds


class Ended(Exception):
    """The end of a connection: code, text, milliseconds to stay away, address to go to."""


def say(text):
    print(text, file=sys.stderr, flush=True)


class Client:
    """Two clocks: what it sends says when to beat, what it receives whether the server lives."""

    def __init__(self):
        self.stdin = [0]  # descriptor 0, until its end
        self.half_line = b""  # a line whose end has not come
        self.terms = {  # until WELCOME
            "beats": "client", "beat_ms": 15000, "timeout_ms": 37500,
            "min_beat_ms": 100, "spread_ms": 5000, "max_frame": MAX_FRAME,
        }

    def run(self, sock, hello):
        """Keeps one connection until it has Ended."""
        self.sock, self.buffer = sock, b""
        self.inputs = [sock]  # no lines before WELCOME
        self.send(HELLO + json.dumps({"v": 1, **hello}).encode())
        self.heard = self.asked = self.sent  # asked: the oldest unanswered beat; 0: none
        while True:
            # The clock is read first: what has arrived by now is read before it is judged.
            now = time.monotonic()
            due = self.asked + DEAD_AFTER if self.asked else self.heard + self.terms["timeout_ms"] / 1000
            wake = due if self.server_beats() else min(due, self.sent + self.pause)
            ready = select.select(self.inputs, [], [], min(max(wake - now, 0), 60))[0]
            if sock in ready:
                self.receive()
            if self.asked and now >= self.asked + DEAD_AFTER:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close by reset
                raise Ended(3012, f"the server is dead: no byte for {DEAD_AFTER} s after a beat", 0, None)
            if now >= wake:
                self.asked = self.asked or now
                self.send(PING if self.server_beats() else BEAT)
            if 0 in ready:
                self.read_lines()

    def server_beats(self):
        return self.terms["beats"] == "server"

    def send(self, body):
        """Sends a frame. Any frame replaces a beat: the next is due H ± 10 % later."""
        self.sock.sendall(len(body).to_bytes(4, "big") + body)
        self.sent = time.monotonic()
        self.pause = max(self.terms["beat_ms"] * random.uniform(0.9, 1.1), self.terms["min_beat_ms"]) / 1000

    def read_lines(self):
        chunk = os.read(0, 4096)
        if not chunk:
            self.stdin, self.inputs = [], [self.sock]
        *lines, self.half_line = (self.half_line + chunk).split(b"\n")
        for line in lines:
            self.send((DATA + line)[:self.terms["max_frame"]])  # a longer frame would end it for good

    def receive(self):
        chunk = self.sock.recv(65536)
        if not chunk:
            raise Ended(3000, "the server closed the connection", 0, None)
        self.heard, self.asked = time.monotonic(), 0
        self.buffer += chunk
        while len(self.buffer) >= 4:
            end = 4 + int.from_bytes(self.buffer[:4], "big")
            if end > 4 + MAX_FRAME:
                raise Ended(3511, f"a frame of {end - 4} bytes: is this heartwheel?", 0, None)
            if len(self.buffer) < end:
                return
            body, self.buffer = self.buffer[4:end], self.buffer[end:]
            self.act(body[:1], body[1:])

    def act(self, op, payload):
        if op == BEAT:
            if self.server_beats():
                self.send(BEAT)  # otherwise it is the answer to ours
        elif op == PING:
            self.send(PONG + payload)
        elif op == DATA:
            print(payload.decode(errors="replace"), flush=True)
        elif op in (WELCOME, CONFIG):
            # What is absent or 0 stays. The first beat comes after H × U(0.5, 1).
            self.terms.update({k: v for k, v in json.loads(payload).items() if v})
            self.pause = self.terms["beat_ms"] * random.uniform(0.5, 1) / 1000
            self.inputs = [self.sock, *self.stdin]
            say(f"connected: the {self.terms['beats']} beats every {self.terms['beat_ms']} ms")
        elif op == GOAWAY:
            raise Ended(*map(json.loads(payload).get, ("code", "reason", "after_ms", "addr")))
        elif op == CLOSE:
            (code,) = struct.unpack(">H", payload[:2] or b"\x0b\xb8")  # 3000 if it is empty
            raise Ended(code, payload[2:].decode(), 0, None)
        elif op == ERROR:
            say(f"refused: {payload[2:].decode()}")
        elif not (PING <= op <= b"\x0e" or b"\x40" <= op <= b"\x7f"):
            raise Ended(3501, f"no such op: {op}", 0, None)


def main(home="127.0.0.1:9000", hello="{}"):
    client, hello = Client(), json.loads(hello)
    addr, retry = home, 0  # retry: seconds; 0: the server's spread
    while True:
        say(f"connecting to {addr}")
        host, _, port = addr.rpartition(":")
        began = time.monotonic()
        try:
            with socket.create_connection((host.strip("[]"), port), timeout=DEAD_AFTER) as sock:
                client.run(sock, hello)
        except Ended as e:
            code, text, after_ms, elsewhere = e.args
        except OSError as e:
            code, text, after_ms, elsewhere = 3000, e, 0, None
        except (ValueError, TypeError, AttributeError, struct.error) as e:
            sys.exit(f"stopped for good: {e!r}")
        if code not in (*range(3000, 3500), *range(4000, 4500)):
            sys.exit(f"stopped for good: {code} {text}")
        if time.monotonic() - began >= STABLE_AFTER:
            retry = 0
        delay = (after_ms or 0) / 1000 + random.uniform(0, retry or client.terms["spread_ms"] / 1000)
        say(f"lost: {text}; next try in {delay:.1f} s")
        host = home.rpartition(":")[0]  # the token is meant for it alone
        addr = elsewhere if elsewhere and elsewhere.rpartition(":")[0].lower() == host.lower() else home
        retry = min(2 * retry or 0.5, LONGEST_RETRY)
        time.sleep(delay)


signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
main(*sys.argv[1:])
