#!/usr/bin/python3
"""Gajim, a desktop client, on a display of its own that nobody looks at.

It is driven as its users' scripts drive it (gajim-remote): over D-Bus, on a session bus of
its own. What it shows is what it says there. Subscriptions are accepted by its setting.
"""

import asyncio
import json
import os
import pathlib
import sqlite3
import subprocess
import threading

from gi.repository import Gio, GLib

import lines

NOBODY = 65534  # Gajim refuses to run as root
ACCOUNT = "lab"
WORKSPACE = "6f1d7d5c-3d5c-4a53-9a52-6c4b1d5a7d0a"  # it expects to have one
NAME, PATH, INTERFACE = "org.gajim.Gajim", "/org/gajim/dbus/RemoteObject", "org.gajim.dbus.RemoteInterface"
SIGNATURES = {
    "get_status": "(s)",
    "list_contacts": "(s)",
    "change_status": "(sss)",
    "send_chat_message": "(sss)",
    "send_groupchat_message": "(sss)",
}
READY_TIMEOUT = 50  # seconds; it takes five until it listens on the bus at all
POLL = 0.1  # seconds: what Gajim does not signal has to be asked for

# A bus that starts no services: nothing but Gajim is on it.
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:path={path}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/>
<allow own="*"/><allow user="*"/></policy></busconfig>
"""

# The part of Gajim's settings database that it must find to take it for its own.
SETTINGS = """
CREATE TABLE settings (name TEXT UNIQUE, settings TEXT);
CREATE TABLE account_settings (account TEXT UNIQUE, settings TEXT);
PRAGMA user_version=5;
"""


def seed(config, user, password):
    """Writes the settings of a Gajim that has one account and asks nothing at its start."""
    local, _, domain = user.partition("@")
    app = {
        "remote_control": True, "use_keyring": False, "check_for_update": False, "sounds_on": False,
        "show_notifications": False, "show_trayicon": False, "plugins_update_check": False,
    }
    account = {
        "account": {
            "active": True, "name": local, "hostname": domain, "password": password, "savepass": True,
            "autoconnect": True, "autoauth": True, "resource": "gajim", "account_label": ACCOUNT,
        },
        "contact": {}, "group_chat": {},
    }
    rows = {"app": app, "soundevents": {}, "status_presets": {}, "proxies": {}, "plugins": {},
            "workspaces": {WORKSPACE: {"name": "Lab"}}}
    with sqlite3.connect(config / "settings.sqlite") as db:
        db.executescript(SETTINGS)
        db.executemany("INSERT INTO settings VALUES (?, ?)", [(k, json.dumps(v)) for k, v in rows.items()])
        db.execute("INSERT INTO account_settings VALUES (?, ?)", (ACCOUNT, json.dumps(account)))
    db.close()


class Gajim(lines.Driver):
    def __init__(self):
        super().__init__()
        self.home = pathlib.Path("/tmp")
        self.processes = []
        self.bus = None
        self.messages = 0

    def mount(self, ca):
        """Has it trust the lab, and makes /tmp its home, with the display's socket.

        The mounts of `ip netns exec` are the driver's own: nobody else sees them, and they
        are gone with it, however it ends.
        """
        subprocess.run(["mount", "--bind", ca, "/etc/ssl/certs/ca-certificates.crt"], check=True)
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", self.home], check=True)
        sockets = self.home / ".X11-unix"
        sockets.mkdir()
        sockets.chmod(0o1777)  # as the display wants it

    def start(self, *command, **options):
        """Starts a program as nobody; it ends with the driver, however that ends."""
        user = str(NOBODY)
        wrapper = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--pdeathsig", "KILL"]
        env = {
            "HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "XDG_RUNTIME_DIR": str(self.home),
            "NO_AT_BRIDGE": "1", "GSETTINGS_BACKEND": "memory", "GIO_USE_VFS": "local",
            "GIO_USE_NETWORK_MONITOR": "base",  # the lab has no default route
        } | options.pop("env", {})
        process = subprocess.Popen(wrapper + list(command), env=env, cwd=self.home, stdin=subprocess.DEVNULL, **options)
        self.processes.append(process)
        return process

    def start_display(self):
        read, write = os.pipe()
        self.start("Xvfb", "-displayfd", str(write), "-nolisten", "tcp", "-screen", "0", "1024x768x24", pass_fds=[write])
        os.close(write)
        with os.fdopen(read) as number:
            return ":" + number.readline().strip()

    def start_bus(self):
        """Starts the session bus; returns its address."""
        config = self.home / "bus.conf"
        config.write_text(BUS.format(path=self.home / "bus"))
        process = self.start(
            "dbus-daemon", "--nofork", "--print-address", "--config-file", str(config), stdout=subprocess.PIPE, text=True)
        return process.stdout.readline().strip()

    def call(self, method, *args):
        parameters = GLib.Variant(SIGNATURES[method], args)
        return self.bus.call_sync(NAME, PATH, INTERFACE, method, parameters, None, 0, 20000, None).unpack()[0]

    async def until(self, what, condition):
        """Asks Gajim until a condition holds."""
        error = None
        for _ in range(int(READY_TIMEOUT / POLL)):
            try:
                if await asyncio.to_thread(condition):
                    return
            except GLib.Error as e:  # it is not on the bus yet
                error = e
            if (ended := self.processes[-1].poll()) is not None:
                raise RuntimeError(f"Gajim ended ({ended}) before {what}")
            await asyncio.sleep(POLL)
        raise RuntimeError(f"Gajim is not there: {what}: {error}")

    async def op_login(self, user, password, ca, **_):
        self.mount(ca)
        config = self.home / "gajim"
        config.mkdir()
        seed(config, user, password)
        for path in [config, *config.iterdir()]:
            os.chown(path, NOBODY, NOBODY)
        display, address = self.start_display(), self.start_bus()
        flags = Gio.DBusConnectionFlags
        self.bus = Gio.DBusConnection.new_for_address_sync(
            address, flags.AUTHENTICATION_CLIENT | flags.MESSAGE_BUS_CONNECTION, None, None)
        loop = asyncio.get_running_loop()
        for signal in ("NewMessage", "GCMessage"):
            self.bus.signal_subscribe(
                None, INTERFACE, signal, None, None, 0,
                lambda *args: loop.call_soon_threadsafe(self.heard, args[4], args[5].unpack()[0]))
        threading.Thread(target=GLib.MainLoop().run, daemon=True).start()
        self.start("gajim", "--config-path", str(config), "--loglevel", "nbxmpp=INFO",
                   env={"DISPLAY": display, "DBUS_SESSION_BUS_ADDRESS": address})
        await self.until("to be online", lambda: self.call("get_status", ACCOUNT) == "online")
        self.event("connected", resumed=False)
        return {"address": user, "device": "gajim"}

    def heard(self, signal, arguments):
        _, (sender, body, *_) = arguments
        bare, _, nick = sender.partition("/")
        self.messages += 1
        message = str(self.messages)
        if signal == "GCMessage":
            self.event("message", message=message, room=bare, nick=nick, body=body)
        else:
            self.event("message", message=message, **{"from": bare}, body=body)

    async def op_send(self, body, to=None, room=None):
        method, place = ("send_chat_message", to) if to else ("send_groupchat_message", room)
        # In a room it answers false until it is in it.
        await self.until(f"to be able to send to {place}", lambda: self.call(method, place, body, ACCOUNT))
        self.messages += 1
        return {"message": str(self.messages)}

    async def op_presence(self, show, status=""):
        await asyncio.to_thread(self.call, "change_status", show, status, ACCOUNT)

    async def op_contacts(self):
        contacts = await asyncio.to_thread(self.call, "list_contacts", ACCOUNT)
        return {"contacts": [{"user": c["jid"]} for c in contacts]}


async def main():
    await Gajim().serve()


asyncio.run(main())
