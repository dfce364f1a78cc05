// Drives converse.js, an XMPP client for web pages, in a headless Chromium: over WebSocket,
// or over BOSH where the driver is started with that word.
//
// What a person does in it is done by its page: text is typed into the chat's text area,
// files are given to its file chooser, the buttons of messages are pressed. What it learns
// is read from its own models of chats, which its page shows (converse.page.js).
//
// The page comes from a small server on the loopback of the client's host; the browser has
// the lab's authority in its own store and checks certificates as everywhere.

import { spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { basename, dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { event, httpDownload, serve } from "./lines.mjs";
import { endpoint } from "./web.mjs";

const transport = process.argv[2] ?? "websocket";
const here = dirname(fileURLToPath(import.meta.url));
const dist = join(here, "node_modules", "converse.js", "dist");
const patience = 45_000; // for one thing that the page shows

let browser, page;

// The page and what it is made of

const types = {
  ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".json": "application/json", ".wasm": "application/wasm",
};
const html = `<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>converse.js</title>
<link rel="stylesheet" href="/dist/converse.min.css"><script type="module" src="/dist/converse.js"></script><script type="module" src="/page.js"></script></head><body class="converse-fullscreen"></body></html>`;

async function content(path) {
  if (path === "/") return [html, ".html"];
  if (path === "/page.js") return [await readFile(join(here, "converse.page.js")), ".js"];
  if (!path.startsWith("/dist/")) throw new Error("no such file");
  return [await readFile(join(dist, normalize(path.slice("/dist".length)))), extname(path)];
}

async function servePage() {
  const server = createServer(async (request, response) => {
    try {
      const [bytes, kind] = await content(new URL(request.url, "http://localhost").pathname);
      response.writeHead(200, { "content-type": types[kind] ?? "application/octet-stream" }).end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://localhost:${server.address().port}/`;
}

function trust(ca, home) {
  const store = ["-d", `sql:${join(home, ".pki", "nssdb")}`];
  for (const args of [["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "lab", "-i", ca]]) {
    const { status, stderr, error } = spawnSync("certutil", [...store, ...args]);
    if (status !== 0) throw new Error(`certutil ${args[0]}: ${error ?? stderr}`);
  }
}

async function launch(ca) {
  const profile = await mkdtemp(join(dirname(ca), "converse-")); // goes with the lab
  await mkdir(join(profile, ".pki", "nssdb"), { recursive: true });
  trust(ca, profile);
  browser = await chromium.launchPersistentContext(join(profile, "browser"), {
    executablePath: "/usr/bin/chromium", headless: true, timeout: 90_000,
    env: { ...process.env, HOME: profile }, viewport: { width: 1300, height: 900 },
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  page = browser.pages()[0] ?? (await browser.newPage());
  page.setDefaultTimeout(patience);
  page.on("console", (m) => console.error(m.type(), m.text()));
  page.on("pageerror", (e) => console.error("page:", e));
  page.on("websocket", (socket) => { // the wire, to standard error
    socket.on("framesent", ({ payload }) => console.error("SEND:", String(payload)));
    socket.on("framereceived", ({ payload }) => console.error("RECV:", String(payload)));
  });
  await page.exposeFunction("tell", (name, fields) => event(name, fields));
}

const inPage = (f, arg) => page.evaluate(f, arg);

const sessionOps = {
  async login({ user, password, server, ca }) {
    const relation = transport === "bosh" ? "xbosh" : transport;
    const address = await endpoint(server, relation);
    await launch(ca);
    await page.goto(await servePage());
    await page.waitForFunction(() => window.converse && window.lab);
    const settings = {
      [transport === "bosh" ? "bosh_service_url" : "websocket_url"]: address, discover_connection_methods: false,
      authentication: "login", auto_login: true, jid: user, password, assets_path: "/dist/", view_mode: "fullscreen",
      whitelisted_plugins: ["lab"], loglevel: "debug", clear_cache_on_logout: false, allow_message_corrections: "all",
      allow_message_retraction: "all", muc_respect_autojoin: true, play_sounds: false, i18n: "en", reuse_scram_keys: false,
      muc_fetch_members: true, show_retraction_warning: false, idle_presence_timeout: 0, auto_away: 0,
    };
    const { address: me, device } = await inPage(async (settings) => {
      let fail;
      const failed = new Promise((_, no) => { fail = no; });
      const ready = converse.initialize(settings).then(async () => {
        await lab.api.waitUntil("rosterContactsFetched");
        await lab.api.waitUntil("statusInitialized");
      });
      setTimeout(() => fail(new Error(document.querySelector(".conn-feedback")?.textContent || "no session")), 50_000);
      await Promise.race([ready, failed]);
      const jid = lab._converse.session.get("jid");
      return { address: jid.split("/")[0], device: jid.split("/")[1] };
    }, settings);
    return { address: me, device };
  },

  async logout() {
    await inPage(() => lab.api.user.logout());
    await browser.close();
  },

  // As its dialog does: status.set() makes "dnd" of "away".
  presence: ({ show, status }) => inPage(({ show, status }) => {
    const presence = show === "offline" ? "offline" : "online";
    lab._converse.state.profile.save({ presence, show: presence === show ? undefined : show, status_message: status });
  }, { show, status }),

  add_contact: ({ user }) => inPage((jid) => lab.api.contacts.add({ jid }).then(() => {}), user),
  approve_contact: ({ user }) => inPage(async (jid) => {
    const contact = await lab.api.contacts.get(jid);
    contact.authorize().subscribeToPresence();
  }, user),
  remove_contact: ({ user }) => inPage((jid) => lab.api.contacts.remove(jid, true), user),
  contacts: async () => ({
    contacts: await inPage(() => lab._converse.state.roster.map((c) => ({ user: c.get("jid"), state: c.get("subscription") }))),
  }),
  block: ({ user }) => inPage((jid) => lab.api.blocklist.add(jid).then(() => {}), user),
  unblock: ({ user }) => inPage((jid) => lab.api.blocklist.remove(jid).then(() => {}), user),
};

// Messages

// show brings a chat to the front and returns its element.
async function show({ to, room }) {
  await inPage(async ({ to, room }) => {
    if (room) (await lab.api.rooms.get(room)).maybeShow(true);
    else await lab.api.chats.open(to, {}, true);
  }, { to, room });
  const chat = page.locator(room ? `converse-muc[jid="${room}"]` : `converse-chat[jid="${to}"]`);
  await chat.locator(".chat-textarea").waitFor();
  return chat;
}

async function type(where, body) {
  const area = (await show(where)).locator(".chat-textarea");
  await area.fill(body);
  await area.press("Enter");
}

// press presses one of the buttons of a message, and what confirms it.
async function press({ message, ...where }, button, confirmed = false) {
  const chat = await show(where);
  const msgid = await inPage(({ where, message }) => lab.find(where, message).get("msgid"), { where, message });
  const action = chat.locator(`[data-msgid="${msgid}"] .chat-msg__action-${button}`);
  await action.waitFor({ state: "attached" });
  await action.evaluate((e) => e.click()); // it is in a menu, which opens at hovering
  if (confirmed) await page.locator(".modal.show .btn-primary").click();
}

// sent waits until the chat has an own message with a text, and returns its handle.
async function sent(where, text) {
  const found = await page.waitForFunction(({ where, text }) => {
    const own = lab.box(where).messages.models.filter((m) => m.get("sender") === "me" && lab.handle(m));
    const m = own.findLast((m) => m.getMessageText()?.includes(text));
    return m && lab.handle(m);
  }, { where, text });
  return { message: await found.jsonValue() };
}

// A press on the button of an emoji; on one that was given, it takes it back.
const toggleReaction = async ({ message, emoji, to, room }) => {
  const where = { to, room };
  const chat = await show(where);
  const msgid = await inPage(({ where, message }) => lab.find(where, message).get("msgid"), { where, message });
  const picker = chat.locator(`[data-msgid="${msgid}"] converse-reaction-picker`).first();
  await picker.waitFor({ state: "attached" });
  await picker.evaluate((e, emoji) => e.onEmojiSelected(emoji), emoji);
};

const messageOps = {
  async send({ body, texts, reply_to, quote, ...where }) {
    const text = texts ? Object.values(texts).join("\n") : body;
    if (reply_to) await press({ ...where, message: reply_to }, "reply");
    await type(where, text);
    return sent(where, text);
  },

  async edit({ body, ...where }) {
    await press(where, "edit");
    await type(where, body);
  },

  react: toggleReaction,
  unreact: toggleReaction,
  retract: (where) => press(where, "retract", true),

  async typing({ active, ...where }) {
    const area = (await show(where)).locator(".chat-textarea");
    if (active) await area.pressSequentially("hm");
    else {
      await area.fill("");
      await inPage((where) => lab.box(where).setChatState("active"), where);
    }
  },

  // It marks what it shows.
  mark_displayed: (where) => show(where).then(() => {}),

  // What the chat shows, after asking the archive for what is older.
  async history({ limit = 50, ...where }) {
    const events = await inPage(async ({ where, limit }) => {
      const box = lab.box(where);
      await lab.api.archive?.query?.({ mam: { with: where.to }, rsm: { max: limit, before: "" } }).catch(() => {});
      return box.messages.models.filter((m) => m.get("body")).slice(-limit).map((m) => ({ event: "message", ...lab.read(m) }));
    }, { where, limit });
    return { events };
  },

  async send_file({ path, type: mimeType, name = basename(path), ...where }) {
    const chat = await show(where);
    const chooser = chat.locator("input.fileupload");
    await chooser.waitFor({ state: "attached" });
    await chooser.setInputFiles({ name, mimeType, buffer: await readFile(path) });
    const found = await page.waitForFunction(({ where, name }) => {
      const m = lab.box(where).messages.models.findLast((m) => m.get("oob_url")?.endsWith(name));
      if (m?.get("upload") === "failure") throw new Error("the upload failed");
      return m && lab.handle(m) && { url: m.get("oob_url"), message: lab.handle(m) };
    }, { where, name });
    return found.jsonValue();
  },

  download: ({ url }) => httpDownload(url),

  // Turns end-to-end encryption on in a chat, as its lock button does.
  async encrypt(where) {
    const chat = await show(where);
    await page.waitForFunction((where) => lab.box(where).get("omemo_supported"), where);
    await chat.locator(".toggle-omemo").click();
    await page.waitForFunction((where) => lab.box(where).get("omemo_active"), where);
  },
};

// Rooms

async function enter(room, options) {
  const nick = await inPage(() => lab._converse.session.get("bare_jid").split("@")[0]);
  await inPage(({ room, options }) => lab.api.rooms.open(room, options, true).then(() => {}), { room, options: { ...options, nick } });
  const status = await page.waitForFunction((room) => {
    const s = lab._converse.state.chatboxes.get(room)?.session?.get("connection_status");
    return s === converse.ROOMSTATUS.ENTERED ? "entered"
      : [converse.ROOMSTATUS.BANNED, converse.ROOMSTATUS.DESTROYED].includes(s) ? "refused" : undefined;
  }, room);
  if ((await status.jsonValue()) !== "entered") throw new Error(`not let into ${room}`);
  return { room };
}

const roomOps = {
  create_room: ({ room, name = room, public: isPublic = true }) => enter(room, {
    auto_configure: true,
    roomconfig: { roomname: name, persistentroom: true, publicroom: isPublic, membersonly: !isPublic },
  }),
  join: ({ room }) => enter(room, {}),
  leave: ({ room }) => inPage((room) => lab.api.rooms.get(room).then((r) => r.close()), room),
  invite: ({ room, user }) => inPage(({ room, user }) => lab.api.rooms.get(room).then((r) => r.directInvite(user)), { room, user }),
  set_topic: ({ room, topic }) => type({ room }, `/topic ${topic}`),
  kick: ({ room, user, reason = "" }) => command(room, "kick", user, reason),
  ban: ({ room, user, reason = "" }) => command(room, "ban", user, reason),
  async members({ room }) {
    return { members: await inPage((room) => lab.box({ room }).occupants
      .filter((o) => o.get("nick")).map((o) => ({ nick: o.get("nick"), user: o.get("jid") })), room) };
  },
};

async function command(room, what, user, reason) {
  const nick = await inPage(({ room, user }) => lab.box({ room }).occupants.findWhere({ jid: user })?.get("nick"), { room, user });
  await type({ room }, `/${what} ${nick ?? user} ${reason}`);
}

await serve({ ...sessionOps, ...messageOps, ...roomOps }, (e) => `${e.name}: ${e.message}`);
