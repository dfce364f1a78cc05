// Drives matrix-js-sdk, the library of Element Web, with its Rust cryptography.
//
// The library does everything that is used here: login, sync, rooms, sending, receipts,
// media with authentication, account data, and encryption (keys are kept in memory: each
// driver process is a new device).
//
// A message's handle, by which later ops name it, is its event ID. A talk between two
// people is a direct room (m.direct); its events are told without a room, as "from" the
// other. spec: MX 1.19 CS §10.23

import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import {
  ClientEvent, createClient, EventStatus, EventType, MatrixEventEvent, MsgType, PendingEventOrdering,
  RelationType, RoomEvent, RoomMemberEvent, SyncState,
} from "matrix-js-sdk";
import { logger } from "matrix-js-sdk/lib/logger.js";
import { event, httpDownload, serve } from "./lines.mjs";

logger.setLevel("warn");

let client;
let prepared = false; // the first sync has been read
const invites = new Map(); // user -> room ID of a direct that we were invited to
const reactions = new Map(); // reaction event ID -> {message, sender, key}

const me = () => client.getUserId();
const directs = () => client.getAccountData("m.direct")?.getContent() ?? {};
const isJoined = (roomId, user) => client.getRoom(roomId)?.getMember(user)?.membership === "join";

// Session

const sessionOps = {
  async login({ user, password, server, device }) {
    const { access_token, user_id, device_id } = await createClient({ baseUrl: server }).loginRequest({
      type: "m.login.password", identifier: { type: "m.id.user", user }, password,
      device_id: device, initial_device_display_name: "matrix-js-sdk",
    });
    client = createClient({
      baseUrl: server, userId: user_id, deviceId: device_id, accessToken: access_token,
    });
    await client.initRustCrypto({ useIndexedDB: false });
    listen();
    const ready = new Promise((resolve, reject) =>
      client.on(ClientEvent.Sync, (state, previous, data) => {
        if (state === SyncState.Prepared) resolve();
        if (state === SyncState.Error) {
          event("error", { condition: "sync", text: String(data?.error) });
          reject(data?.error);
        }
        if (state === SyncState.Syncing && previous === SyncState.Reconnecting) event("connected", { resumed: true });
      }));
    await client.startClient({
      initialSyncLimit: 50, lazyLoadMembers: true, pendingEventOrdering: PendingEventOrdering.Detached,
    });
    await ready;
    prepared = true;
    event("connected", { resumed: false });
    return { address: user_id, device: device_id };
  },

  logout: () => client.logout(true).then(() => {}),

  presence: ({ show, status }) =>
    client.setPresence({
      presence: ["away", "xa", "dnd"].includes(show) ? "unavailable" : show, status_msg: status,
    }),
};

// Contacts

async function rememberDirect(user, roomId) {
  const content = structuredClone(directs());
  const rooms = (content[user] ??= []);
  if (!rooms.includes(roomId)) rooms.push(roomId);
  await client.setAccountData("m.direct", content);
}

function tellContact(user, roomId) {
  event("contact", { user, state: isJoined(roomId, user) && isJoined(roomId, me()) ? "both" : "none" });
}

const contactOps = {
  // Asks somebody to talk: an invitation to a direct room.
  async add_contact({ user }) {
    const { room_id } = await client.createRoom({ is_direct: true, invite: [user], preset: "trusted_private_chat" });
    await rememberDirect(user, room_id);
  },

  async approve_contact({ user }) {
    const roomId = invites.get(user);
    if (!roomId) throw new Error(`no invitation from ${user}`);
    await client.joinRoom(roomId);
    invites.delete(user);
    await rememberDirect(user, roomId);
    tellContact(user, roomId); // who has come may have been heard of before it was known as a direct
  },

  async remove_contact({ user }) {
    for (const roomId of directs()[user] ?? []) await client.leave(roomId);
  },

  async contacts() {
    const both = Object.entries(directs()).filter(([user, rooms]) => rooms.some((r) => isJoined(r, user)));
    return { contacts: both.map(([user]) => ({ user, state: "both" })) };
  },

  block: ({ user }) => client.setIgnoredUsers([...client.getIgnoredUsers(), user]).then(() => {}),
  unblock: ({ user }) => client.setIgnoredUsers(client.getIgnoredUsers().filter((u) => u !== user)).then(() => {}),
};

// Messages

// target returns the room ID of a talk or a room.
function target({ to, room }) {
  if (room) return room;
  const rooms = (directs()[to] ?? []).filter((r) => isJoined(r, me()));
  if (!rooms.length) throw new Error(`no direct room with ${to}`);
  return rooms.at(-1);
}

async function post(where, content, type = EventType.RoomMessage) {
  const room = target(where);
  let event_id;
  try {
    ({ event_id } = await client.sendEvent(room, type, content));
  } catch (err) {
    // What could not be sent stands before all that follows until the user gives it up.
    for (const e of client.getRoom(room)?.getPendingEvents() ?? []) {
      if (e.status === EventStatus.NOT_SENT) client.cancelPendingEvent(e);
    }
    throw err;
  }
  return { message: event_id };
}

const messageOps = {
  send({ body = "", texts, html, reply_to, ...where }) {
    const content = { msgtype: MsgType.Text, body };
    if (texts) {
      content.body = Object.values(texts)[0];
      content["m.text"] = Object.entries(texts).map(([lang, t]) => ({ body: t, lang }));
    }
    if (html) Object.assign(content, { format: "org.matrix.custom.html", formatted_body: html });
    if (reply_to) content["m.relates_to"] = { "m.in_reply_to": { event_id: reply_to } };
    return post(where, content);
  },

  edit: ({ message, body, ...where }) =>
    post(where, {
      msgtype: MsgType.Text, body: `* ${body}`, "m.new_content": { msgtype: MsgType.Text, body },
      "m.relates_to": { rel_type: RelationType.Replace, event_id: message },
    }),

  async react({ message, emoji: key, ...where }) {
    const relation = { rel_type: RelationType.Annotation, event_id: message, key };
    const sent = await post(where, { "m.relates_to": relation }, EventType.Reaction);
    reactions.set(sent.message, { message, sender: me(), key });
    return sent;
  },

  async unreact({ message, emoji, ...where }) {
    for (const [id, r] of reactions) {
      if (r.message === message && r.sender === me() && r.key === emoji) {
        await client.redactEvent(target(where), id);
      }
    }
  },

  retract: ({ message, ...where }) => client.redactEvent(target(where), message).then(() => {}),
  typing: ({ active, ...where }) => client.sendTyping(target(where), active, 30_000).then(() => {}),

  async mark_displayed({ message, ...where }) {
    const shown = client.getRoom(target(where)).findEventById(message);
    if (!shown) throw new Error(`${message} is not in the timeline`);
    await client.sendReadReceipt(shown);
  },

  // The last messages of a talk or a room, oldest first, as the events they were.
  async history({ limit = 50, ...where }) {
    const roomId = target(where);
    const { chunk } = await client.createMessagesRequest(roomId, null, limit, "b");
    const found = chunk.reverse().map(client.getEventMapper());
    await Promise.all(found.map((e) => client.decryptEventIfNeeded(e)));
    return { events: found.map((e) => read(roomId, e)).filter(Boolean) };
  },
};

// Files

const fileOps = {
  async send_file({ path, type, name = basename(path), ...where }) {
    const bytes = await readFile(path);
    const { content_uri: url } = await client.uploadContent(bytes, { name, type });
    const family = type.split("/")[0];
    const msgtype = ["image", "audio", "video"].includes(family) ? `m.${family}` : MsgType.File;
    const info = { mimetype: type, size: bytes.length };
    return { url, ...(await post(where, { msgtype, body: name, filename: name, url, info })) };
  },

  download: ({ url }) =>
    httpDownload(client.mxcUrlToHttp(url, undefined, undefined, undefined, false, true, true),
      { Authorization: `Bearer ${client.getAccessToken()}` }),
};

// Rooms

// shown waits until a room is synchronized: before that nobody has it before her, and the library does not know whether
// it is encrypted.
async function shown(roomId) {
  const ready = () => {
    const room = client.getRoom(roomId);
    return room?.getMyMembership() === "join" && room.currentState.getStateEvents("m.room.create", "");
  };
  while (!ready()) await new Promise((resolve) => client.once(ClientEvent.Sync, resolve));
  return { room: roomId };
}

const roomOps = {
  async create_room({ alias, name, public: isPublic = true, encrypted = false }) {
    const encryption = {
      type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" },
    };
    const { room_id } = await client.createRoom({
      room_alias_name: alias, name, preset: isPublic ? "public_chat" : "private_chat",
      initial_state: encrypted ? [encryption] : [],
    });
    return shown(room_id);
  },

  join: ({ room, via }) => client.joinRoom(room, { viaServers: via }).then((joined) => shown(joined.roomId)),
  upgrade_room: ({ room, version }) =>
    client.upgradeRoom(room, version).then(({ replacement_room }) => ({ room: replacement_room })),
  leave: ({ room }) => client.leave(room).then(() => {}),
  invite: ({ room, user }) => client.invite(room, user).then(() => {}),
  kick: ({ room, user, reason }) => client.kick(room, user, reason).then(() => {}),
  ban: ({ room, user, reason }) => client.ban(room, user, reason).then(() => {}),
  unban: ({ room, user }) => client.unban(room, user).then(() => {}),
  set_topic: ({ room, topic }) => client.setRoomTopic(room, topic).then(() => {}),

  async members({ room }) {
    const { joined } = await client.getJoinedRoomMembers(room);
    return { members: Object.entries(joined).map(([user, m]) => ({ user, nick: m.display_name ?? undefined })) };
  },
};

// What arrives

function listen() {
  client.on(RoomEvent.Timeline, async (e, room, toStart) => {
    if (toStart) return;
    if (e.isEncrypted()) await decrypted(e);
    tell(room.roomId, e);
  });
  client.on(RoomEvent.MyMembership, onMyMembership);
  client.on(RoomEvent.Receipt, (e, room) => onReceipt(e.getContent(), room.roomId));
  client.on(RoomMemberEvent.Typing, (_, member) => {
    if (member.userId === me()) return;
    event("typing", { ...whereOf(member.roomId), from: member.userId, active: member.typing });
  });
  client.on(ClientEvent.Event, (e) => {
    if (e.getType() === "com.beeper.message_send_status") return onSendStatus(e.getContent());
    if (e.getType() !== "m.presence") return;
    const { presence, status_msg } = e.getContent();
    event("presence", { from: e.getSender(), show: presence === "unavailable" ? "away" : presence, status: status_msg });
  });
}

// What became of an own message, told to its sender alone: among the ephemeral events, as Matrix has no receipt for it.
function onSendStatus({ status, delivered_to_users, message: text, "m.relates_to": relation }) {
  const failed = status?.startsWith("FAIL");
  if (!failed && !delivered_to_users?.length) return;
  const room = client.getRooms().find((r) => r.findEventById(relation.event_id));
  event("receipt", {
    ...whereOf(room?.roomId), from: delivered_to_users?.[0], message: relation.event_id,
    kind: failed ? "failed" : "delivered", text, by: "com.beeper.message_send_status",
  });
}

// decrypted waits until an encrypted event can be read; its keys may come after it.
async function decrypted(e) {
  await client.decryptEventIfNeeded(e);
  if (!e.isDecryptionFailure()) return;
  await new Promise((resolve) =>
    e.on(MatrixEventEvent.Decrypted, () => {
      if (!e.isDecryptionFailure()) resolve();
    }));
}

function tell(roomId, e) {
  const fields = read(roomId, e);
  if (!fields) return;
  const { event: name, ...rest } = fields;
  if (e.isEncrypted()) rest.encrypted = true;
  if (!prepared) rest.delayed = true;
  event(name, rest);
  if (name === "member" && rest.with) tellContact(rest.with, roomId);
}

function onMyMembership(room, membership) {
  if (membership !== "invite") return;
  const invitation = room.getMember(me()).events.member;
  const from = invitation.getSender();
  if (invitation.getContent().is_direct) {
    invites.set(from, room.roomId);
    event("contact_request", { from });
  } else {
    event("invite", { room: room.roomId, from });
  }
}

function onReceipt(content, roomId) {
  for (const [message, kinds] of Object.entries(content)) {
    for (const from of Object.keys(kinds["m.read"] ?? {})) {
      if (from !== me()) event("receipt", { ...whereOf(roomId), from, kind: "displayed", message });
    }
  }
}

// whereOf returns a room event's place: the room, or whom the talk is with.
function whereOf(roomId) {
  const talk = Object.entries(directs()).find(([, rooms]) => rooms.includes(roomId));
  return talk ? { with: talk[0] } : { room: roomId };
}

const readers = {
  "m.room.message"(fields, e, content, relation) {
    if (relation.rel_type === RelationType.Replace) {
      return { event: "edit", ...fields, message: relation.event_id, body: content["m.new_content"]?.body };
    }
    if (content.body === undefined) return null; // it was redacted
    return { event: "message", ...fields, message: e.getId(), ...readBody(content, relation) };
  },

  "m.reaction"(fields, e, content, { event_id: message, key }) {
    if (!message) return null; // it was redacted
    reactions.set(e.getId(), { message, sender: e.getSender(), key });
    return reactionOf(fields, message);
  },

  "m.room.redaction"(fields, e) {
    const redacted = e.getAssociatedId();
    const reaction = reactions.get(redacted);
    if (!reaction) return { event: "retraction", ...fields, message: redacted };
    reactions.delete(redacted);
    return reactionOf({ ...fields, from: reaction.sender }, reaction.message);
  },

  "m.room.member"(fields, e, { membership, displayname }) {
    if (e.getPrevContent().membership === membership) return null;
    const user = e.getStateKey();
    const change = membership === "leave" && e.getSender() !== user ? "kick" : membership;
    return { event: "member", ...fields, user, nick: displayname, change };
  },

  "m.room.topic": (fields, e, { topic }) => ({ event: "topic", ...fields, topic: topic ?? "" }),
  "m.room.tombstone": (fields, e, { replacement_room: into }) => ({ event: "moved", ...fields, into }),
};

// read returns what a room event says, or null if it is none of the things that are tested.
function read(roomId, e) {
  const fields = { ...whereOf(roomId), from: e.getSender(), own: e.getSender() === me() || undefined };
  const content = e.getOriginalContent();
  const relation = content["m.relates_to"] ?? e.getWireContent()["m.relates_to"] ?? {};
  return readers[e.getType()]?.(fields, e, content, relation) ?? null;
}

function reactionOf(fields, message) {
  const own = [...reactions.values()].filter((r) => r.message === message && r.sender === fields.from);
  return { event: "reaction", ...fields, message, reactions: own.map((r) => r.key).sort() };
}

function readBody(content, relation) {
  const fields = { body: content.body, html: content.formatted_body };
  const texts = (content["m.text"] ?? []).filter((t) => t.lang);
  if (texts.length) fields.texts = Object.fromEntries(texts.map((t) => [t.lang, t.body]));
  fields.reply_to = relation["m.in_reply_to"]?.event_id;
  if (content.url) {
    const { mimetype: type, size } = content.info ?? {};
    const kind = content.msgtype.replace("m.", "");
    fields.files = [{ url: content.url, name: content.filename ?? content.body, type, size, kind }];
  }
  return fields;
}

function explain(e) {
  return e?.errcode ? `${e.errcode}: ${e.data?.error ?? ""}` : `${e?.name}: ${e?.message}`;
}

await serve({ ...sessionOps, ...contactOps, ...messageOps, ...fileOps, ...roomOps }, explain);
