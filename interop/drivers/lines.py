"""JSON lines between a test and a driver: what every Python driver shares.

A request is one line {"id": n, "op": NAME, ...}; the answer is {"id": n, "ok": true, ...}
or {"id": n, "error": TEXT}. {"event": NAME, ...} are told without being asked for.
README.md lists the ops and the events. A driver is a subclass of Driver with a coroutine
op_NAME for each op that its client can do; the others are answered "unsupported".
"""

import asyncio
import hashlib
import json
import os
import sys

import aiohttp


class Unsupported(Exception):
    """The client, or its library, lacks what an op asks for."""


class Driver:
    def __init__(self):
        # The libraries print now and then: what they print must not mix with the protocol.
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
        os.dup2(2, 1)
        self._tasks = set()

    def write(self, line):
        self._out.write(json.dumps(line, ensure_ascii=False) + "\n")

    def event(self, name, **fields):
        """Tells the test something; fields that are None are left out."""
        self.write({"event": name, **{k: v for k, v in fields.items() if v is not None}})

    async def answer(self, request):
        try:
            op = getattr(self, "op_" + request["op"], None)
            if op is None:
                raise Unsupported
            fields = {k: v for k, v in request.items() if k not in ("id", "op")}
            result = await op(**fields) or {}
            self.write({"id": request["id"], "ok": True, **result})
        except Unsupported as e:
            self.write({"id": request["id"], "error": "unsupported" + (f": {e}" if e.args else "")})
        except asyncio.CancelledError:
            raise
        except Exception as e:  # whatever a library raises is the answer
            self.write({"id": request["id"], "error": self.explain(e)})

    def explain(self, error):
        """The text of an error, in the terms of the driver's protocol."""
        return f"{type(error).__name__}: {error}"

    async def serve(self):
        """Answers requests, each in a task of its own, until standard input ends."""
        reader = asyncio.StreamReader(limit=1 << 24)
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            task = loop.create_task(self.answer(json.loads(line)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def http_download(url, headers=None):
    """Fetches a file and describes its bytes."""
    async with aiohttp.ClientSession() as session:
        async with session.get(url, headers=headers) as response:
            if response.status != 200:
                raise RuntimeError(f"GET {url}: HTTP {response.status}")
            data = await response.read()
            return {
                "sha256": hashlib.sha256(data).hexdigest(),
                "size": len(data),
                "type": response.content_type,
            }
