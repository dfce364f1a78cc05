// JSON lines between a test and a driver: what every JavaScript driver shares.
//
// A request is one line {"id": n, "op": NAME, ...}; the answer is {"id": n, "ok": true, ...}
// or {"id": n, "error": TEXT}. {"event": NAME, ...} are told without being asked for.
// ../README.md lists the ops and the events. A driver is an object with an async function
// for each op that its client can do; the others are answered "unsupported".

import { createHash } from "node:crypto";
import { createInterface } from "node:readline";

// The libraries print now and then: what they print must not mix with the protocol.
const write = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr);

// Thrown when the client, or its library, lacks what an op asks for.
export class Unsupported extends Error {}

function line(object) {
  write(JSON.stringify(object) + "\n");
}

// event tells the test something; fields that are undefined are left out.
export function event(name, fields) {
  line({ event: name, ...fields });
}

// serve answers requests, several at a time, until standard input ends. explain turns an
// error into a text in the terms of the driver's protocol.
export async function serve(ops, explain) {
  process.on("unhandledRejection", (e) => console.error("unhandled:", e));
  const answer = async ({ id, op, ...fields }) => {
    try {
      if (!Object.hasOwn(ops, op)) throw new Unsupported("");
      const result = await ops[op](fields);
      line({ id, ok: true, ...result });
    } catch (e) {
      const unsupported = "unsupported" + (e.message ? `: ${e.message}` : "");
      line({ id, error: e instanceof Unsupported ? unsupported : explain(e) });
      if (!(e instanceof Unsupported)) console.error(e);
    }
  };
  for await (const text of createInterface({ input: process.stdin })) answer(JSON.parse(text));
  process.exit(0);
}

// describe says what a file's bytes are, for comparing.
export function describe(bytes, type) {
  const sha256 = createHash("sha256").update(bytes).digest("hex");
  return { sha256, size: bytes.length, type: type?.split(";")[0] };
}

export async function httpDownload(url, headers = {}) {
  const response = await fetch(url, { headers });
  if (response.status !== 200) throw new Error(`GET ${url}: HTTP ${response.status}`);
  const bytes = Buffer.from(await response.arrayBuffer());
  return describe(bytes, response.headers.get("content-type"));
}
