// Drives @xmpp/client (xmpp.js), an XMPP client library for JavaScript.
//
// The library does streams over direct TLS, SASL, resource binding, stream management and
// IQs; everything above is written here, one function for each thing that the XEPs define.
// Unlike the slixmpp driver it describes shared files (XEP-0447) besides linking to them.
//
// A message's handle, by which later ops name it, is its id attribute between two people,
// and the room's stanza-id in a room: what reactions, replies and markers refer to there.
// spec: XEP-0359 §3.1

import { createHash, randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { client, jid, xml } from "@xmpp/client";
import { event, httpDownload, serve } from "./lines.mjs";

const NS = {
  blocking: "urn:xmpp:blocking",
  bookmarks: "urn:xmpp:bookmarks:1",
  carbons: "urn:xmpp:carbons:2",
  data: "jabber:x:data",
  delay: "urn:xmpp:delay",
  directInvite: "jabber:x:conference",
  discoInfo: "http://jabber.org/protocol/disco#info",
  discoItems: "http://jabber.org/protocol/disco#items",
  fallback: "urn:xmpp:fallback:0",
  file: "urn:xmpp:file:metadata:0",
  forward: "urn:xmpp:forward:0",
  hashes: "urn:xmpp:hashes:2",
  hints: "urn:xmpp:hints",
  mam: "urn:xmpp:mam:2",
  markers: "urn:xmpp:chat-markers:0",
  muc: "http://jabber.org/protocol/muc",
  mucAdmin: "http://jabber.org/protocol/muc#admin",
  mucOwner: "http://jabber.org/protocol/muc#owner",
  mucUser: "http://jabber.org/protocol/muc#user",
  oob: "jabber:x:oob",
  pubsub: "http://jabber.org/protocol/pubsub",
  reactions: "urn:xmpp:reactions:0",
  receipts: "urn:xmpp:receipts",
  replace: "urn:xmpp:message-correct:0",
  reply: "urn:xmpp:reply:0",
  retract: "urn:xmpp:message-retract:1",
  roster: "jabber:iq:roster",
  rsm: "http://jabber.org/protocol/rsm",
  sfs: "urn:xmpp:sfs:0",
  sid: "urn:xmpp:sid:0",
  stanzas: "urn:ietf:params:xml:ns:xmpp-stanzas",
  states: "http://jabber.org/protocol/chatstates",
  upload: "urn:xmpp:http:upload:0",
  urlData: "http://jabber.org/protocol/url-data",
};

let xmpp;
let uploads; // the address of the upload service, once found
const bare = (address) => (address ? jid(address).bare().toString() : undefined);
const me = () => bare(xmpp.jid.toString());

const echoes = new Map(); // "room id" -> function that takes the room's handle for it
const handles = new Map(); // "room nick id" -> handle
const ids = new Map(); // handle of an own message -> its id attribute
const authors = new Map(); // handle -> address to name in a reply
const reactions = new Map(); // handle -> own reactions to it
const occupants = new Map(); // "room/nick" -> real address, "" if it is hidden
const nicks = new Map(); // room -> own nick
const joins = new Map(); // room -> functions for the end of a join
const roster = new Map(); // address -> {subscription, ask}
const archives = new Map(); // query ID -> results so far

const within = (promise, what, ms = 30_000) =>
  Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error(`no ${what}`)), ms).unref())]);

const iq = (type, to, ...children) =>
  xmpp.iqCaller.request(xml("iq", { type, to }, ...children), 30_000);

// A form to submit. spec: XEP-0004 §3.1
const form = (type, fields) =>
  xml("x", { xmlns: NS.data, type: "submit" },
    xml("field", { var: "FORM_TYPE", type: "hidden" }, xml("value", {}, type)),
    ...Object.entries(fields).map(([name, value]) => xml("field", { var: name }, xml("value", {}, value))));

// Sending

function compose({ to, room }, ...children) {
  const id = randomUUID();
  return xml("message", { to: room ?? to, id, type: room ? "groupchat" : "chat" },
    ...children.filter(Boolean), xml("origin-id", { xmlns: NS.sid, id }));
}

// post sends a message. In a room it waits for the room's echo, which has the handle.
async function post(message) {
  const { id, to, type } = message.attrs;
  let handle = id;
  if (type === "groupchat") {
    const echo = new Promise((resolve) => echoes.set(`${to} ${id}`, resolve));
    await xmpp.send(message);
    handle = await within(echo, "echo from the room");
  } else {
    await xmpp.send(message);
  }
  ids.set(handle, id);
  return { message: handle };
}

const text = (body) => xml("body", {}, body);
const requests = ({ room }) =>
  [!room && xml("request", NS.receipts), xml("markable", NS.markers)].filter(Boolean);

function changeReactions(where, change) {
  const own = new Set(reactions.get(where.message));
  change(own);
  reactions.set(where.message, own);
  return post(compose(where,
    xml("reactions", { xmlns: NS.reactions, id: where.message }, ...[...own].map((e) => xml("reaction", {}, e))),
    xml("store", NS.hints)));
}

const messageOps = {
  async send({ body = "", texts, reply_to, quote, ...where }) {
    let bodies = [text(body)];
    if (texts) { // one body for each language. spec: RFC 6121 §5.2.3
      bodies = Object.entries(texts).map(([lang, t]) => xml("body", { "xml:lang": lang }, t));
    } else if (quote) { // spec: XEP-0461 §3.2
      const quoted = quote.split("\n").map((l) => `> ${l}\n`).join("");
      const end = String([...quoted].length);
      bodies = [text(quoted + body),
        xml("fallback", { xmlns: NS.fallback, for: NS.reply }, xml("body", { start: "0", end }))];
    }
    const author = authors.get(reply_to) ?? where.room ?? where.to;
    const reply = reply_to && xml("reply", { xmlns: NS.reply, to: author, id: reply_to });
    return post(compose(where, ...bodies, reply, ...requests(where)));
  },

  edit: ({ message, body, ...where }) =>
    post(compose(where, text(body), xml("replace", { xmlns: NS.replace, id: ids.get(message) ?? message }))),

  react: ({ emoji, ...where }) => changeReactions(where, (own) => own.add(emoji)),
  unreact: ({ emoji, ...where }) => changeReactions(where, (own) => own.delete(emoji)),

  retract: ({ message, ...where }) => // spec: XEP-0424 §3.1
    post(compose(where, text("/me retracted a message"),
      xml("retract", { xmlns: NS.retract, id: message }),
      xml("fallback", { xmlns: NS.fallback, for: NS.retract }), xml("store", NS.hints))),

  typing: ({ active, to, room }) =>
    xmpp.send(xml("message", { to: room ?? to, type: room ? "groupchat" : "chat" },
      xml(active ? "composing" : "active", NS.states))),

  mark_displayed: ({ message, to, room }) =>
    xmpp.send(xml("message", { to: room ?? to, type: room ? "groupchat" : "chat", id: randomUUID() },
      xml("displayed", { xmlns: NS.markers, id: message }), xml("store", NS.hints))),

  // The last messages of a talk or a room, oldest first, as the events they were.
  async history({ to, room, limit = 50 }) {
    const queryid = randomUUID();
    archives.set(queryid, []);
    await iq("set", room, xml("query", { xmlns: NS.mam, queryid }, form(NS.mam, room ? {} : { with: to }),
      xml("set", NS.rsm, xml("max", {}, String(limit)), xml("before"))));
    const results = archives.get(queryid);
    archives.delete(queryid);
    const events = results.flatMap((result) =>
      read(result.getChild("forwarded", NS.forward).getChild("message"), { archived: room && result.attrs.id }));
    return { events };
  },
};

// Files

async function findUploads() {
  if (uploads) return uploads;
  const domain = xmpp.jid.domain;
  const items = (await iq("get", domain, xml("query", NS.discoItems))).getChild("query").getChildren("item");
  for (const address of [domain, ...items.map((i) => i.attrs.jid)]) {
    const info = await iq("get", address, xml("query", NS.discoInfo)).catch(() => null);
    const features = info?.getChild("query").getChildren("feature") ?? [];
    if (features.some((f) => f.attrs.var === NS.upload)) return (uploads = address);
  }
  throw new Error("no upload service");
}

const fileOps = {
  async send_file({ path, type, name = basename(path), ...where }) {
    const bytes = await readFile(path);
    const slot = (await iq("get", await findUploads(), xml("request",
      { xmlns: NS.upload, filename: name, size: String(bytes.length), "content-type": type }))).getChild("slot");
    const put = slot.getChild("put");
    const headers = Object.fromEntries(put.getChildren("header").map((h) => [h.attrs.name, h.getText()]));
    const response = await fetch(put.attrs.url,
      { method: "PUT", body: bytes, headers: { ...headers, "content-type": type } });
    if (!response.ok) throw new Error(`PUT: HTTP ${response.status}`);
    const url = slot.getChild("get").attrs.url;
    const hash = createHash("sha256").update(bytes).digest("base64");
    const sent = await post(compose(where, text(url), xml("x", NS.oob, xml("url", {}, url)),
      xml("file-sharing", { xmlns: NS.sfs, disposition: "inline" },
        xml("file", NS.file, xml("media-type", {}, type), xml("name", {}, name),
          xml("size", {}, String(bytes.length)), xml("hash", { xmlns: NS.hashes, algo: "sha-256" }, hash)),
        xml("sources", {}, xml("url-data", { xmlns: NS.urlData, target: url }))),
      ...requests(where)));
    return { url, ...sent };
  },

  download: ({ url }) => httpDownload(url),
};

// Rooms

const admin = (room, attributes, reason) =>
  iq("set", room, xml("query", NS.mucAdmin, xml("item", attributes, reason && xml("reason", {}, reason))));

function nickOf(room, user) {
  for (const [occupant, address] of occupants) {
    if (address === user && bare(occupant) === room) return jid(occupant).resource;
  }
  return jid(user).local;
}

const roomOps = {
  async create_room({ room, name = room, public: isPublic = true }) {
    const result = await roomOps.join({ room });
    const flag = (b) => (b ? "1" : "0");
    await iq("set", room, xml("query", NS.mucOwner, form("http://jabber.org/protocol/muc#roomconfig", {
      "muc#roomconfig_roomname": name,
      "muc#roomconfig_persistentroom": flag(true),
      "muc#roomconfig_publicroom": flag(isPublic),
      "muc#roomconfig_membersonly": flag(!isPublic),
    })));
    return result;
  },

  async join({ room }) {
    nicks.set(room, nicks.get(room) ?? xmpp.jid.local);
    const joined = new Promise((yes, no) => joins.set(room, { yes, no }));
    await xmpp.send(xml("presence", { to: `${room}/${nicks.get(room)}` },
      xml("x", NS.muc, xml("history", { maxstanzas: "0" }))));
    await within(joined, "answer from the room");
    return { room };
  },

  // Leaves for good: also the bookmark goes. spec: XEP-0402 §4
  async leave({ room }) {
    await xmpp.send(xml("presence", { to: `${room}/${nicks.get(room)}`, type: "unavailable" }));
    const retract = xml("retract", { node: NS.bookmarks, notify: "true" }, xml("item", { id: room }));
    await iq("set", undefined, xml("pubsub", NS.pubsub, retract)).catch((e) => {
      if (e.condition !== "item-not-found") throw e;
    });
  },

  invite: ({ room, user }) =>
    xmpp.send(xml("message", { to: room }, xml("x", NS.mucUser, xml("invite", { to: user })))),
  kick: ({ room, user, reason }) => admin(room, { nick: nickOf(room, user), role: "none" }, reason).then(() => {}),
  ban: ({ room, user, reason }) => admin(room, { jid: user, affiliation: "outcast" }, reason).then(() => {}),
  unban: ({ room, user }) => admin(room, { jid: user, affiliation: "none" }).then(() => {}),
  set_topic: ({ room, topic }) =>
    xmpp.send(xml("message", { to: room, type: "groupchat", id: randomUUID() }, xml("subject", {}, topic))),

  async members({ room }) {
    const here = [...occupants].filter(([occupant]) => bare(occupant) === room);
    return { members: here.map(([o, user]) => ({ nick: jid(o).resource, user: user || undefined })) };
  },
};

// Session, presence, contacts

const subscription = (to, type) => xmpp.send(xml("presence", { to, type }));

function learnRoster(item) {
  const { jid: user, subscription: state = "none", ask } = item.attrs;
  roster.set(user, { state, ask });
  return { user, state };
}

async function fetchRoster() {
  const items = (await iq("get", undefined, xml("query", NS.roster))).getChild("query").getChildren("item");
  return items.map(learnRoster);
}

const sessionOps = {
  async login({ user, password, server, device }) {
    const { local, domain } = jid(user);
    xmpp = client({ service: `xmpps://${server ?? `${domain}:5223`}`, domain, username: local, password, resource: device });
    xmpp.timeout = 30_000; // the library's 2 seconds are too short for a busy machine
    xmpp.on("error", (e) => console.error(e));
    xmpp.on("element", (e) => console.error("RECV:", String(e))); // the wire, to standard error
    xmpp.on("send", (e) => console.error("SEND:", String(e)));
    xmpp.on("stanza", onStanza);
    xmpp.on("disconnect", () => event("disconnected"));
    xmpp.streamManagement.on("resumed", () => event("connected", { resumed: true }));
    xmpp.iqCallee.set(NS.roster, "query", ({ element }) => {
      event("contact", learnRoster(element.getChild("item")));
      return true;
    });
    const online = async () => {
      await fetchRoster();
      await iq("set", undefined, xml("enable", NS.carbons));
      await xmpp.send(xml("presence"));
      event("connected", { resumed: false });
    };
    try {
      await xmpp.start();
    } catch (e) {
      await xmpp.stop().catch(() => {});
      throw e;
    }
    await online();
    xmpp.on("online", online); // a new session after a lost connection
    return { address: me(), device: xmpp.jid.resource };
  },

  logout: () => xmpp.stop().then(() => {}),

  // Loses the connection without a word, and comes back by itself.
  async drop() {
    xmpp.socket.destroy();
  },

  presence: ({ show, status }) =>
    xmpp.send(show === "offline" ? xml("presence", { type: "unavailable" })
      : xml("presence", {}, show !== "online" && xml("show", {}, show), status && xml("status", {}, status))),

  async add_contact({ user }) {
    await iq("set", undefined, xml("query", NS.roster, xml("item", { jid: user })));
    await subscription(user, "subscribe");
  },
  async approve_contact({ user }) {
    await subscription(user, "subscribed");
    await subscription(user, "subscribe");
  },
  remove_contact: ({ user }) =>
    iq("set", undefined, xml("query", NS.roster, xml("item", { jid: user, subscription: "remove" }))).then(() => {}),
  async contacts() {
    return { contacts: await fetchRoster() };
  },
  block: ({ user }) => iq("set", undefined, xml("block", NS.blocking, xml("item", { jid: user }))).then(() => {}),
  unblock: ({ user }) => iq("set", undefined, xml("unblock", NS.blocking, xml("item", { jid: user }))).then(() => {}),
};

// What arrives

function onStanza(stanza) {
  if (stanza.is("presence")) onPresence(stanza);
  if (stanza.is("message")) {
    const result = stanza.getChild("result", NS.mam);
    if (result) archives.get(result.attrs.queryid)?.push(result);
    else for (const { event: name, ...fields } of read(stanza)) event(name, fields);
  }
}

// read returns the events that a message stanza is. archived is the room's ID for it.
function read(m, { own = false, archived } = {}) {
  for (const direction of ["received", "sent"]) {
    const carbon = m.getChild(direction, NS.carbons);
    if (carbon && bare(m.attrs.from) === me()) {
      return read(carbon.getChild("forwarded", NS.forward).getChild("message"), { own: direction === "sent" });
    }
  }
  const from = bare(m.attrs.from ?? me());
  if (m.attrs.type === "error") {
    const error = m.getChild("error");
    return [{ event: "error", message: m.attrs.id, from, condition: error?.getChildElements()[0]?.name,
      text: error?.getChildText("text", NS.stanzas) ?? undefined }];
  }
  const invite = readInvite(m, from);
  if (invite) return [invite];
  let where = { handle: m.attrs.id, from };
  if (m.attrs.type === "groupchat") where = whereRoom(m, from, archived);
  else if (own || from === me()) where = { ...where, own: true, to: bare(m.attrs.to ?? me()) };
  if (m.getChild("delay", NS.delay)) where.delayed = true;
  return readContent(m, where);
}

function whereRoom(m, room, archived) {
  const { resource: nick } = jid(m.attrs.from);
  const sid = m.getChildren("stanza-id", NS.sid).find((s) => s.attrs.by === room);
  const handle = archived ?? sid?.attrs.id ?? m.attrs.id;
  handles.set(`${room} ${nick} ${m.attrs.id}`, handle);
  authors.set(handle, m.attrs.from);
  const own = (nick && nick === nicks.get(room)) || undefined;
  if (own) {
    echoes.get(`${room} ${m.attrs.id}`)?.(handle);
    echoes.delete(`${room} ${m.attrs.id}`);
  }
  return { handle, room, nick, own, from: occupants.get(m.attrs.from) || undefined };
}

function readInvite(m, from) {
  const mediated = m.getChild("x", NS.mucUser)?.getChild("invite");
  if (mediated) { // perhaps by the address in the room
    const inviter = jid(mediated.attrs.from);
    const named = bare(mediated.attrs.from) === from ? { nick: inviter.resource } : { from: bare(mediated.attrs.from) };
    return { event: "invite", room: from, ...named };
  }
  const direct = m.getChild("x", NS.directInvite);
  if (direct && !m.getChild("body")) return { event: "invite", room: direct.attrs.jid, from };
}

function readContent(m, { handle, ...where }) {
  const events = [];
  const add = (name, fields) => events.push({ event: name, ...where, ...fields });
  const body = m.getChildText("body") ?? undefined;
  for (const e of m.getChildElements()) {
    if (e.getNS() === NS.states) add("typing", { active: e.name === "composing" });
    if (e.is("received", NS.receipts)) add("receipt", { kind: "delivered", message: e.attrs.id });
    if (e.is("displayed", NS.markers)) add("receipt", { kind: "displayed", message: e.attrs.id });
  }
  const reacted = m.getChild("reactions", NS.reactions);
  const retracted = m.getChild("retract", NS.retract);
  const replaced = m.getChild("replace", NS.replace)?.attrs.id;
  const subject = m.getChild("subject");
  if (reacted) {
    const set = reacted.getChildren("reaction").map((r) => r.getText()).sort();
    add("reaction", { message: reacted.attrs.id, reactions: set });
  } else if (retracted) {
    add("retraction", { message: retracted.attrs.id });
  } else if (replaced) {
    add("edit", { message: handles.get(`${where.room} ${where.nick} ${replaced}`) ?? replaced, body });
  } else if (subject && body === undefined && where.room) {
    add("topic", { topic: subject.getText() });
    joins.get(where.room)?.yes(); // the last thing that a join brings. spec: XEP-0045 §7.1
    joins.delete(where.room);
  } else if (body !== undefined) {
    add("message", { message: handle, body, ...readBody(m) });
    if (!where.room) authors.set(handle, where.from);
    acknowledge(m, where);
  }
  return events;
}

// acknowledge answers a request for a delivery receipt. spec: XEP-0184 §5.2
function acknowledge(m, where) {
  if (!m.getChild("request", NS.receipts) || where.own || where.room || where.delayed) return;
  xmpp.send(xml("message", { to: m.attrs.from, type: m.attrs.type },
    xml("received", { xmlns: NS.receipts, id: m.attrs.id }), xml("store", NS.hints)));
}

function readBody(m) {
  const fields = { reply_to: m.getChild("reply", NS.reply)?.attrs.id };
  const texts = m.getChildren("body").filter((b) => b.attrs["xml:lang"]);
  if (texts.length) fields.texts = Object.fromEntries(texts.map((b) => [b.attrs["xml:lang"], b.getText()]));
  const files = m.getChildren("x", NS.oob).map((x) => ({ url: x.getChildText("url") }));
  for (const file of files) file.name = basename(new URL(file.url).pathname);
  const described = m.getChild("file-sharing", NS.sfs)?.getChild("file", NS.file);
  if (files.length && described) {
    files[0].name = described.getChildText("name") ?? files[0].name;
    files[0].type = described.getChildText("media-type") ?? undefined;
    files[0].size = Number(described.getChildText("size")) || undefined;
  }
  if (files.length) fields.files = files;
  return fields;
}

function onPresence(stanza) {
  const { from: sender, type } = stanza.attrs;
  const from = bare(sender);
  if (joins.has(from) && type === "error") {
    const condition = stanza.getChild("error")?.getChildElements()[0]?.name;
    joins.get(from).no(new Error(`${condition}: ${stanza.getChild("error")?.getChildText("text") ?? ""}`));
    joins.delete(from);
  } else if (stanza.getChild("x", NS.mucUser)) {
    onOccupant(stanza, from, jid(sender).resource);
  } else if (type === "subscribe") {
    const { state, ask } = roster.get(from) ?? {};
    // Where we asked first, answering is a courtesy.
    if (ask || state === "to" || state === "both") subscription(from, "subscribed");
    else event("contact_request", { from });
  } else if (type === "unavailable") {
    event("presence", { from, show: "offline" });
  } else if (type === undefined) {
    const show = stanza.getChildText("show") ?? "online";
    event("presence", { from, show, status: stanza.getChildText("status") ?? undefined });
  }
}

// Someone's presence in a room. spec: XEP-0045 §7
function onOccupant(stanza, room, nick) {
  const x = stanza.getChild("x", NS.mucUser);
  const codes = new Set(x.getChildren("status").map((s) => s.attrs.code));
  const user = bare(x.getChild("item")?.attrs.jid) ?? occupants.get(stanza.attrs.from) ?? "";
  const own = codes.has("110") || undefined;
  const destroyed = x.getChild("destroy"); // and perhaps goes on elsewhere. spec: XEP-0045 §10.9
  if (destroyed) event("moved", { room, into: destroyed.attrs.jid });
  let change = "join";
  if (stanza.attrs.type === "unavailable") {
    change = codes.has("307") ? "kick" : codes.has("301") ? "ban" : "leave";
    occupants.delete(stanza.attrs.from);
  } else {
    occupants.set(stanza.attrs.from, user);
    if (own) nicks.set(room, nick); // the room may have changed it
  }
  event("member", { room, nick, user: user || undefined, change, own });
}

function explain(e) {
  if (e.condition) return `${e.condition}: ${e.text ?? ""}`;
  return `${e.name}: ${e.message}`;
}

await serve({ ...sessionOps, ...messageOps, ...fileOps, ...roomOps }, explain);
