// Runs inside the page of converse.mjs: a plugin of converse.js that tells what the client
// learns, by window.tell, and does for the driver what has no button that a test can press.

import converse from "/dist/converse.js";

window.converse = converse;
const bare = (address) => address?.split("/")[0];

const lab = window.lab = {
  // The handle of a message, once it has one: in a room the room's stanza-id. It stays, whatever
  // the client notes of later corrections.
  handle(m) {
    const box = m.collection?.chatbox ?? m.chatbox;
    const handle = box.get("type") === "chatroom" ? m.get(`stanza_id ${box.get("jid")}`) : m.get("msgid");
    if (handle && !lab.handles.has(m.cid)) lab.handles.set(m.cid, handle);
    return lab.handles.get(m.cid);
  },

  handles: new Map(),

  box({ to, room }) {
    const box = lab._converse.state.chatboxes.get(room ?? to);
    if (!box) throw new Error(`no chat with ${room ?? to} is open`);
    return box;
  },

  find(where, handle) {
    const found = lab.box(where).messages.models.find((m) => lab.handle(m) === handle);
    if (!found) throw new Error(`${handle} is not in the chat`);
    return found;
  },

  // read returns what a message shows, as the fields of an event.
  read(m) {
    const box = m.collection.chatbox;
    const fields = { ...lab.where(m), message: lab.handle(m), body: m.getMessageText() };
    if (m.get("oob_url")) fields.files = [{ url: m.get("oob_url"), name: m.get("oob_desc") ?? m.get("oob_url").split("/").pop() }];
    if (m.get("reply_to_id")) fields.reply_to = m.get("reply_to_id");
    if (m.get("is_encrypted")) fields.encrypted = true;
    if (m.get("is_delayed")) fields.delayed = true;
    return fields;
  },

  // where returns a message's place and who said it.
  where(m) {
    const box = m.collection.chatbox;
    const own = m.get("sender") === "me" || undefined;
    if (box.get("type") !== "chatroom") return { from: bare(m.get("from")), own, to: own && box.get("jid") };
    const nick = m.get("nick") ?? m.get("from")?.split("/")[1];
    return { room: box.get("jid"), nick, own, from: bare(m.get("from_real_jid") ?? lab.occupant(box, { nick })) };
  },

  occupant: (box, attributes) => box.occupants.findWhere(attributes)?.get("jid"),
};

// watchMessages tells each message once, when it has its handle, and what becomes of it.
function watchMessages(box) {
  const told = new Set();
  const show = (m) => {
    const isText = ["chat", "groupchat", "normal"].includes(m.get("type")) && (m.get("body") || m.get("plaintext"));
    if (!isText || m.get("dangling_reaction") || m.get("is_error") || told.has(m.cid) || !lab.handle(m)) return;
    told.add(m.cid);
    tell("message", lab.read(m));
  };
  const change = (m) => {
    show(m);
    const fields = { ...lab.where(m), message: lab.handle(m) };
    const changed = m.changedAttributes() || {};
    if (changed.edited) tell("edit", { ...fields, body: m.getMessageText() });
    if (changed.retracted || changed.moderated) tell("retraction", fields);
    if (changed.received && fields.own && !fields.room) tell("receipt", { from: box.get("jid"), message: fields.message, kind: "delivered" });
    if (changed.marker_displayed) tell("receipt", { from: box.get("jid"), message: fields.message, kind: "displayed" });
    if (changed.reactions) tellReactions(box, m, m.previous("reactions") ?? {}, changed.reactions);
  };
  box.messages.models.forEach(show);
  box.messages.on("add", show);
  box.messages.on("change", change);
  box.notifications?.on("change:chat_state", () => {
    tell("typing", { from: box.get("jid"), active: box.notifications.get("chat_state") === "composing" });
  });
}

function tellReactions(box, m, before, now) {
  for (const who of new Set([...Object.keys(before), ...Object.keys(now)])) {
    const set = [...(now[who] ?? [])].sort();
    if (String(set) === String([...(before[who] ?? [])].sort())) continue;
    const fields = { message: lab.handle(m), reactions: set };
    if (box.get("type") === "chatroom") {
      const o = box.occupants.findWhere({ occupant_id: who }) ?? box.occupants.findWhere({ jid: who });
      Object.assign(fields, { room: box.get("jid"), nick: o?.get("nick") ?? who.split("/")[1], from: bare(o?.get("jid")) });
    } else {
      fields.from = who;
    }
    tell("reaction", fields);
  }
}

function watchRoom(box) {
  const member = (o, change) => {
    if (o.get("nick")) tell("member", { room: box.get("jid"), nick: o.get("nick"), user: bare(o.get("jid")), change });
  };
  const isHere = (o) => o.get("presence") === "online" || o.get("show") === "online";
  box.occupants.on("add", (o) => isHere(o) && member(o, "join"));
  box.occupants.on("change:presence", (o) => member(o, isHere(o) ? "join" : "leave"));
  box.on("change:subject", () => tell("topic", { room: box.get("jid"), topic: box.get("subject")?.text ?? "" }));
  box.notifications?.on("change", () => {
    for (const nick of box.notifications.get("composing") ?? []) tell("typing", { room: box.get("jid"), nick, active: true });
  });
}

converse.plugins.add("lab", {
  initialize() {
    const { _converse } = this;
    const { api } = _converse;
    Object.assign(lab, { _converse, api });
    api.listen.on("chatBoxInitialized", (box) => box.get("type") !== "controlbox" && box.messages && watchMessages(box));
    api.listen.on("chatRoomInitialized", (box) => {
      watchMessages(box);
      watchRoom(box);
    });
    api.listen.on("contactRequest", (contact) => tell("contact_request", { from: contact.get("jid") }));
    api.listen.on("rosterInitialized", () => {
      const state = (c) => tell("contact", { user: c.get("jid"), state: c.get("subscription") ?? "none" });
      _converse.state.roster.on("add", state);
      _converse.state.roster.on("change:subscription", state);
    });
    api.listen.on("contactPresenceChanged", (c) => {
      const show = c.presence.get("presence") === "online" ? c.presence.get("show") ?? "online" : "offline";
      tell("presence", { from: c.get("jid"), show, status: c.get("status") });
    });
    for (const name of ["connected", "reconnected"]) api.listen.on(name, () => tell("connected", { resumed: false }));
    api.listen.on("disconnected", () => tell("disconnected", {}));
  },
});
