// What the drivers of web clients share.

// endpoint returns the address that a server states for a way of speaking XMPP over HTTP.
// spec: XEP-0156 §3.2
export async function endpoint(server, relation) {
  const response = await fetch(`${server}/.well-known/host-meta.json`);
  if (!response.ok) throw new Error(`host-meta of ${server}: HTTP ${response.status}`);
  const rel = `urn:xmpp:alt-connections:${relation}`;
  const link = (await response.json()).links.find((l) => l.rel === rel);
  if (!link) throw new Error(`${server} states no ${rel}`);
  return link.href;
}
