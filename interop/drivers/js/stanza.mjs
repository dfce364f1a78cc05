// Drives stanza (stanza.io), an XMPP client library for web pages: over WebSocket, or over
// BOSH where the driver is started with that word, both found by the server's host-meta.
// spec: XEP-0156 §3
//
// The library does most of what is used here as JSON: rooms, receipts, markers, corrections,
// carbons, the archive, uploads. Where it has no JSON for an element, as for reactions, it
// is declared below, as the library's users do.
//
// A message's handle, by which later ops name it, is its id attribute between two people,
// and the room's stanza-id in a room. spec: XEP-0359 §3.1

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { createClient, JXT } from "stanza";
import { event, httpDownload, serve } from "./lines.mjs";
import { endpoint } from "./web.mjs";

const transport = process.argv[2] ?? "websocket";
const BOOKMARKS = "urn:xmpp:bookmarks:1";

const child = (element, namespace, fields) => ({ element, namespace, path: `message.${element}`, fields });
const definitions = [
  child("reactions", "urn:xmpp:reactions:0", { id: JXT.attribute("id"), emojis: JXT.multipleChildText(null, "reaction") }),
  child("retract", "urn:xmpp:message-retract:1", { id: JXT.attribute("id") }),
  child("reply", "urn:xmpp:reply:0", { to: JXT.attribute("to"), id: JXT.attribute("id") }),
  child("fallback", "urn:xmpp:fallback:0", {
    for: JXT.attribute("for"), start: JXT.childAttribute(null, "body", "start"), end: JXT.childAttribute(null, "body", "end"),
  }),
];

let xmpp;
const bare = (address) => address?.split("/")[0];
const local = (address) => address.split("@")[0];
const resource = (address) => address.slice(bare(address).length + 1);
const me = () => bare(xmpp.jid);

const echoes = new Map(); // "room id" -> function that takes the room's handle for it
const handles = new Map(); // "room nick id" -> handle
const ids = new Map(); // handle of an own message -> its id attribute
const authors = new Map(); // handle -> address to name in a reply
const shown = new Map(); // handle -> the message, for its marker
const reactions = new Map(); // handle -> own reactions to it
const occupants = new Map(); // "room/nick" -> real address, "" if it is hidden
const roster = new Map(); // address -> {subscription, ask}

const within = (promise, what, ms = 30_000) =>
  Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error(`no ${what}`)), ms).unref())]);

// Sending

const target = ({ to, room }) => ({ to: room ?? to, type: room ? "groupchat" : "chat" });

// post sends a message. In a room it waits for the room's echo, which has the handle.
async function post({ to, room }, content) {
  const id = randomUUID();
  const echo = room && new Promise((resolve) => echoes.set(`${room} ${id}`, resolve));
  xmpp.sendMessage({ ...target({ to, room }), id, originId: id, ...content });
  const handle = room ? await within(echo, "echo from the room") : id;
  ids.set(handle, id);
  return { message: handle };
}

const asked = ({ room }) => ({
  marker: { type: "markable" }, receipt: room ? undefined : { type: "request" },
});

function changeReactions(where, change) {
  const own = new Set(reactions.get(where.message));
  change(own);
  reactions.set(where.message, own);
  return post(where, { reactions: { id: where.message, emojis: [...own] }, processingHints: { store: true } });
}

const messageOps = {
  send({ body = "", texts, reply_to, quote, ...where }) {
    const content = { body, ...asked(where) };
    if (texts) { // spec: RFC 6121 §5.2.3
      delete content.body;
      content.alternateLanguageBodies = Object.entries(texts).map(([lang, value]) => ({ lang, value }));
    } else if (quote) { // spec: XEP-0461 §3.2
      const quoted = quote.split("\n").map((l) => `> ${l}\n`).join("");
      content.body = quoted + body;
      content.fallback = { for: "urn:xmpp:reply:0", start: "0", end: String([...quoted].length) };
    }
    if (reply_to) content.reply = { id: reply_to, to: authors.get(reply_to) ?? where.room ?? where.to };
    return post(where, content);
  },

  edit: ({ message, body, ...where }) => post(where, { body, replace: ids.get(message) ?? message }),
  react: ({ emoji, ...where }) => changeReactions(where, (own) => own.add(emoji)),
  unreact: ({ emoji, ...where }) => changeReactions(where, (own) => own.delete(emoji)),

  retract: ({ message, ...where }) => // spec: XEP-0424 §3.1
    post(where, {
      body: "/me retracted a message", retract: { id: message },
      fallback: { for: "urn:xmpp:message-retract:1" }, processingHints: { store: true },
    }),

  async typing({ active, ...where }) {
    xmpp.sendMessage({ ...target(where), chatState: active ? "composing" : "active" });
  },

  async mark_displayed({ message }) {
    if (!shown.has(message)) throw new Error(`${message} has not been seen`);
    xmpp.markDisplayed(shown.get(message));
  },

  // The last messages of a talk or a room, oldest first, as the events they were.
  async history({ to, room, limit = 50 }) {
    const { results } = await xmpp.searchHistory({
      ...(room ? { to: room } : { with: to }), paging: { max: limit, before: "" },
    });
    return { events: results.flatMap(({ id, item }) => read(item.message, { archived: room && id })) };
  },
};

// Files

const fileOps = {
  async send_file({ path, type, name = basename(path), ...where }) {
    const bytes = await readFile(path);
    const service = await xmpp.getUploadService();
    const slot = await xmpp.getUploadSlot(service.jid, { name, size: bytes.length, mediaType: type });
    const headers = Object.fromEntries((slot.upload.headers ?? []).map((h) => [h.name, h.value]));
    const response = await fetch(slot.upload.url, { method: "PUT", body: bytes, headers: { ...headers, "content-type": type } });
    if (!response.ok) throw new Error(`PUT: HTTP ${response.status}`);
    const url = slot.download;
    return { url, ...(await post(where, { body: url, links: [{ url }], ...asked(where) })) };
  },

  download: ({ url }) => httpDownload(url),
};

// Rooms

function nickOf(room, user) {
  for (const [occupant, address] of occupants) {
    if (address === user && bare(occupant) === room) return resource(occupant);
  }
  return local(user);
}

const roomOps = {
  async create_room({ room, name = room, public: isPublic = true }) {
    const result = await roomOps.join({ room });
    const field = (field, value) => ({ name: field, value });
    await xmpp.configureRoom(room, { fields: [
      { name: "FORM_TYPE", type: "hidden", value: "http://jabber.org/protocol/muc#roomconfig" },
      field("muc#roomconfig_roomname", name), field("muc#roomconfig_persistentroom", "1"),
      field("muc#roomconfig_publicroom", isPublic ? "1" : "0"), field("muc#roomconfig_membersonly", isPublic ? "0" : "1"),
    ] });
    return result;
  },

  async join({ room }) {
    const nick = xmpp.joinedRooms.get(room) ?? local(me());
    await within(xmpp.joinRoom(room, nick, { muc: { history: { maxStanzas: 0 } } }), "answer from the room");
    return { room };
  },

  // Leaves for good: also the bookmark goes. spec: XEP-0402 §4
  async leave({ room }) {
    await xmpp.leaveRoom(room);
    await xmpp.retract(undefined, BOOKMARKS, room, true).catch((e) => {
      if (e.error?.condition !== "item-not-found") throw e;
    });
  },

  invite: async ({ room, user }) => xmpp.invite(room, { to: user }),
  kick: ({ room, user, reason }) => xmpp.kick(room, nickOf(room, user), reason).then(() => {}),
  ban: ({ room, user, reason }) => xmpp.ban(room, user, reason).then(() => {}),
  unban: ({ room, user }) => xmpp.setRoomAffiliation(room, user, "none").then(() => {}),
  set_topic: async ({ room, topic }) => xmpp.setSubject(room, topic),

  async members({ room }) {
    const here = [...occupants].filter(([occupant]) => bare(occupant) === room);
    return { members: here.map(([o, user]) => ({ nick: resource(o), user: user || undefined })) };
  },
};

// Session, presence, contacts

function learnRoster({ jid: user, subscription: state = "none", pending: ask }) {
  roster.set(user, { state, ask });
  return { user, state };
}

async function fetchRoster() {
  const answer = await xmpp.sendIQ({ type: "get", roster: {} });
  return (answer.roster?.items ?? []).map(learnRoster);
}

async function online() {
  await fetchRoster();
  await xmpp.enableCarbons();
  // The server shows it to us too: then it counts. spec: RFC 6121 §4.2.2
  const seen = new Promise((resolve) => xmpp.on("available", (p) => p.from === xmpp.jid && resolve()));
  xmpp.sendPresence();
  await within(seen, "own presence");
  event("connected", { resumed: false });
}

const sessionOps = {
  async login({ user, password, server, device }) {
    xmpp = createClient({
      jid: user, password, resource: device ?? `stanza-${randomUUID().slice(0, 8)}`,
      transports: { websocket: false, bosh: false, [transport]: await endpoint(server, transport === "bosh" ? "xbosh" : transport) },
      autoReconnect: true, timeout: 30,
    });
    xmpp.stanzas.define(definitions);
    xmpp.on("raw", (way, data) => console.error(way, data)); // the wire, to standard error
    listen();
    const started = new Promise((yes, no) => {
      xmpp.once("session:started", yes);
      xmpp.once("auth:failed", () => no(new Error("the password is not accepted")));
    });
    xmpp.connect();
    await within(started, "session");
    await online();
    xmpp.on("session:started", online); // a new session after a lost connection
    return { address: me(), device: resource(xmpp.jid) };
  },

  async logout() {
    const gone = new Promise((resolve) => xmpp.once("disconnected", resolve));
    xmpp.config.autoReconnect = false;
    xmpp.disconnect();
    await gone;
  },

  // Loses the connection without a word, and comes back by itself.
  async drop() {
    xmpp.transport.socket.terminate();
  },

  async presence({ show, status }) {
    if (show === "offline") xmpp.sendPresence({ type: "unavailable" });
    else xmpp.sendPresence({ show: show === "online" ? undefined : show, status });
  },

  async add_contact({ user }) {
    await xmpp.updateRosterItem({ jid: user });
    xmpp.subscribe(user);
  },
  async approve_contact({ user }) {
    xmpp.acceptSubscription(user);
    xmpp.subscribe(user);
  },
  remove_contact: ({ user }) => xmpp.removeRosterItem(user).then(() => {}),
  async contacts() {
    return { contacts: await fetchRoster() };
  },
  block: ({ user }) => xmpp.block(user),
  unblock: ({ user }) => xmpp.unblock(user),
};

// What arrives

function listen() {
  const tell = (events) => {
    for (const { event: name, ...fields } of events) event(name, fields);
  };
  xmpp.on("disconnected", () => event("disconnected"));
  xmpp.on("stream:management:resumed", () => event("connected", { resumed: true }));
  xmpp.on("stream:error", (e) => event("error", { condition: e.condition, text: e.text }));
  xmpp.on("roster:update", ({ roster: { items = [] } }) => items.forEach((item) => event("contact", learnRoster(item))));
  xmpp.on("message", (m) => !m.archive && !m.carbon && tell(read(m)));
  xmpp.on("message:sent", (m, elsewhere) => elsewhere && tell(read(m, { own: true })));
  xmpp.on("presence", onPresence);
}

// read returns the events that a message is. archived is the room's ID for it.
function read(m, { own = false, archived } = {}) {
  const from = bare(m.from ?? me());
  if (m.type === "error") {
    return [{ event: "error", message: m.id, from, condition: m.error?.condition, text: m.error?.text }];
  }
  if (m.muc?.invite) { // perhaps by the address in the room
    const inviter = m.muc.invite[0].from;
    const named = bare(inviter) === from ? { nick: resource(inviter) } : { from: bare(inviter) };
    return [{ event: "invite", room: from, ...named }];
  }
  const direct = m.muc?.type === "direct-invite" ? m.muc : m.legacyMUC;
  if (direct && m.body === undefined) return [{ event: "invite", room: direct.jid, from }];
  let where = { handle: m.id, from };
  if (m.type === "groupchat") where = whereRoom(m, from, archived);
  else if (own || from === me()) where = { ...where, own: true, to: bare(m.to ?? me()) };
  if (m.delay) where.delayed = true;
  return readContent(m, where);
}

function whereRoom(m, room, archived) {
  const nick = resource(m.from);
  const handle = archived ?? m.stanzaIds?.find((s) => s.by === room)?.id ?? m.id;
  handles.set(`${room} ${nick} ${m.id}`, handle);
  authors.set(handle, m.from);
  const own = (nick && nick === xmpp.joinedRooms.get(room)) || undefined;
  if (own) {
    echoes.get(`${room} ${m.id}`)?.(handle);
    echoes.delete(`${room} ${m.id}`);
  }
  return { handle, room, nick, own, from: occupants.get(m.from) || undefined };
}

function readContent(m, { handle, ...where }) {
  const events = [];
  const add = (name, fields) => events.push({ event: name, ...where, ...fields });
  if (m.chatState) add("typing", { active: m.chatState === "composing" });
  if (m.receipt?.type === "received") add("receipt", { kind: "delivered", message: m.receipt.id });
  if (m.marker?.type === "displayed") add("receipt", { kind: "displayed", message: m.marker.id });
  if (m.reactions) {
    add("reaction", { message: m.reactions.id, reactions: [...(m.reactions.emojis ?? [])].sort() });
  } else if (m.retract) {
    add("retraction", { message: m.retract.id });
  } else if (m.replace) {
    add("edit", { message: handles.get(`${where.room} ${where.nick} ${m.replace}`) ?? m.replace, body: m.body });
  } else if (where.room && m.hasSubject && m.body === undefined) {
    add("topic", { topic: m.subject ?? "" });
  } else if (m.body !== undefined || m.alternateLanguageBodies?.length) {
    add("message", { message: handle, body: m.body ?? m.alternateLanguageBodies[0].value, ...readBody(m) });
    shown.set(handle, m);
    if (!where.room) authors.set(handle, where.from);
  }
  return events;
}

function readBody(m) {
  const fields = { reply_to: m.reply?.id };
  const texts = (m.alternateLanguageBodies ?? []).filter((b) => b.lang);
  if (texts.length > 1) fields.texts = Object.fromEntries(texts.map((b) => [b.lang, b.value]));
  if (m.links?.length) fields.files = m.links.map(({ url }) => ({ url, name: basename(new URL(url).pathname) }));
  return fields;
}

function onPresence(p) {
  const from = bare(p.from);
  if (p.type === "error") return;
  if (p.muc) {
    onOccupant(p, from, resource(p.from));
  } else if (p.type === "subscribe") {
    const { state, ask } = roster.get(from) ?? {};
    // Where we asked first, answering is a courtesy.
    if (ask || state === "to" || state === "both") xmpp.acceptSubscription(from);
    else event("contact_request", { from });
  } else if (p.type === "unavailable") {
    event("presence", { from, show: "offline" });
  } else if (p.type === undefined) {
    event("presence", { from, show: p.show ?? "online", status: p.status });
  }
}

// Someone's presence in a room. spec: XEP-0045 §7
function onOccupant(p, room, nick) {
  const codes = new Set(p.muc.statusCodes ?? []);
  const user = bare(p.muc.jid) ?? occupants.get(p.from) ?? "";
  const { destroy } = p.muc; // the room, which perhaps goes on elsewhere. spec: XEP-0045 §10.9
  if (destroy) event("moved", { room, into: destroy.jid });
  let change = "join";
  if (p.type === "unavailable") {
    change = codes.has("307") ? "kick" : codes.has("301") ? "ban" : "leave";
    occupants.delete(p.from);
  } else {
    occupants.set(p.from, user);
  }
  event("member", { room, nick, user: user || undefined, change, own: codes.has("110") || undefined });
}

// The library rejects with the stanza that says what is wrong.
function explain(e) {
  if (e.error) return `${e.error.condition}: ${e.error.text ?? ""}`;
  return `${e.name}: ${e.message}`;
}

await serve({ ...sessionOps, ...messageOps, ...fileOps, ...roomOps }, explain);
