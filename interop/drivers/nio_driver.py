#!/usr/bin/python3
"""Drives matrix-nio, a Matrix client library for Python (Debian's python3-matrix-nio).

The library does login, sync, rooms, sending, receipts, uploads and encryption (Olm and
Megolm through libolm). It has no functions for account data and for authenticated media:
those two requests are written here, sent through the library's own connection.

A message's handle, by which later ops name it, is its event ID. A talk between two people
is a direct room (m.direct); its events are told without a room, as "from" the other.
spec: MX 1.19 CS §10.23
"""

import asyncio
import hashlib
import json
import pathlib
import ssl
import sys
import tempfile
import traceback
from urllib.parse import quote, urlparse

import nio
from nio.events.ephemeral import EphemeralEvent, ReceiptEvent, TypingNoticeEvent

from lines import Driver

SHOW = {"unavailable": "away"}  # the others are named alike


class SendStatus:
    """What became of an own message (com.beeper.message_send_status). The library drops
    ephemeral events that it does not know; an application that wants one adds it, as here."""

    def __init__(self, event):
        self.content = event["content"]

    parse_others = EphemeralEvent.parse_event

    @classmethod
    def parse(cls, event):
        if event["type"] == "com.beeper.message_send_status":
            return cls(event)
        return cls.parse_others(event)


EphemeralEvent.parse_event = SendStatus.parse


class NioDriver(Driver):
    def __init__(self):
        super().__init__()
        self.client = None
        self.syncing = None
        self.first_sync = True
        self.directs = {}  # user -> room IDs, as m.direct
        self.invites = {}  # user -> room ID of a direct that we were invited to
        self.reactions = {}  # reaction event ID -> (message, sender, emoji)
        self.typing = {}  # room ID -> users
        self.queried = asyncio.Event()  # set for a moment when devices of others have become known

    def explain(self, error):
        return str(error) if isinstance(error, RuntimeError) else super().explain(error)

    @staticmethod
    def checked(response):
        """Returns the response, or raises the error that it is."""
        if isinstance(response, nio.ErrorResponse):
            raise RuntimeError(f"{response.status_code or type(response).__name__}: {response.message}")
        return response

    # Session

    async def op_login(self, user, password, server, ca, device=None):
        config = nio.AsyncClientConfig(max_limit_exceeded=20, max_timeouts=3)
        context = ssl.create_default_context(cafile=ca)
        self.client = nio.AsyncClient(
            server, user, device_id=device, store_path=tempfile.mkdtemp(), config=config, ssl=context)
        try:
            self.checked(await self.client.login(password, device_name="nio"))
        except BaseException:
            await self.client.close()
            raise
        self.client.add_response_callback(self.on_sync, nio.SyncResponse)
        self.client.add_response_callback(self.on_sync_error, nio.SyncError)
        self.client.add_response_callback(self.on_devices, nio.KeysQueryResponse)
        self.syncing = asyncio.create_task(self.client.sync_forever(timeout=20000, full_state=True))
        self.syncing.add_done_callback(self.on_sync_ended)
        await self.client.synced.wait()
        self.event("connected", resumed=False)
        return {"address": self.client.user_id, "device": self.client.device_id}

    async def op_logout(self):
        self.syncing.cancel()
        self.checked(await self.client.logout())
        await self.client.close()

    async def request(self, method, path, body=None):
        """A request that the library has no function for."""
        response = await self.client.send(
            method, "/_matrix/client/" + path, json.dumps(body) if body is not None else None,
            {"Authorization": "Bearer " + self.client.access_token})
        if response.status != 200:
            raise RuntimeError(f"{method} {path}: HTTP {response.status}: {await response.text()}")
        return response

    # Presence and contacts

    async def op_presence(self, show, status=None):
        presence = {"away": "unavailable", "xa": "unavailable", "dnd": "unavailable"}.get(show, show)
        self.checked(await self.client.set_presence(presence, status))

    async def op_add_contact(self, user):
        """Asks somebody to talk: an invitation to a direct room."""
        response = self.checked(await self.client.room_create(
            is_direct=True, invite=[user], preset=nio.RoomPreset.trusted_private_chat))
        await self.remember_direct(user, response.room_id)

    async def op_approve_contact(self, user):
        room = self.invites.pop(user, None)
        if room is None:
            raise RuntimeError(f"no invitation from {user}")
        self.checked(await self.client.join(room))
        await self.remember_direct(user, room)
        self.tell_contact(room, user)  # who has come may have been heard of before it was known as a direct

    async def remember_direct(self, user, room):
        rooms = self.directs.setdefault(user, [])
        if room not in rooms:
            rooms.append(room)
        own = quote(self.client.user_id)
        await self.request("PUT", f"v3/user/{own}/account_data/m.direct", self.directs)

    async def op_contacts(self):
        return {"contacts": [
            {"user": user, "state": "both"} for user, rooms in self.directs.items()
            if any(self.joined(r, user) for r in rooms)]}

    def joined(self, room, user):
        known = self.client.rooms.get(room)
        return known is not None and user in known.users and user not in known.invited_users

    async def op_remove_contact(self, user):
        for room in self.directs.get(user, []):
            self.checked(await self.client.room_leave(room))

    async def op_block(self, user):
        await self.ignore(lambda users: users.update({user: {}}))

    async def op_unblock(self, user):
        await self.ignore(lambda users: users.pop(user, None))

    async def ignore(self, change):
        path = f"v3/user/{quote(self.client.user_id)}/account_data/m.ignored_user_list"
        try:
            content = await (await self.request("GET", path)).json()
        except RuntimeError:
            content = {}
        change(content.setdefault("ignored_users", {}))
        await self.request("PUT", path, content)

    # Messages

    def target(self, to, room):
        """The room ID of a talk or a room."""
        if room:
            return room
        for candidate in reversed(self.directs.get(to, [])):
            if candidate in self.client.rooms:
                return candidate
        raise RuntimeError(f"no direct room with {to}")

    async def post(self, to, room, content, kind="m.room.message"):
        while self.client.should_query_keys:  # the library encrypts for the devices that it knows, even if it is just asking
            await self.queried.wait()
        response = self.checked(await self.client.room_send(
            self.target(to, room), kind, content, ignore_unverified_devices=True))
        return {"message": response.event_id}

    async def op_send(self, to=None, room=None, body="", texts=None, html=None, reply_to=None, quote=None):
        content = {"msgtype": "m.text", "body": body}
        if texts:
            content["body"] = next(iter(texts.values()))
            content["m.text"] = [{"body": text, "lang": lang} for lang, text in texts.items()]
        if html:
            content.update(format="org.matrix.custom.html", formatted_body=html)
        if reply_to:
            content["m.relates_to"] = {"m.in_reply_to": {"event_id": reply_to}}
        return await self.post(to, room, content)

    async def op_edit(self, message, body, to=None, room=None):
        return await self.post(to, room, {
            "msgtype": "m.text", "body": "* " + body,
            "m.new_content": {"msgtype": "m.text", "body": body},
            "m.relates_to": {"rel_type": "m.replace", "event_id": message},
        })

    async def op_react(self, message, emoji, to=None, room=None):
        relation = {"rel_type": "m.annotation", "event_id": message, "key": emoji}
        sent = await self.post(to, room, {"m.relates_to": relation}, "m.reaction")
        self.reactions[sent["message"]] = (message, self.client.user_id, emoji)
        return sent

    async def op_unreact(self, message, emoji, to=None, room=None):
        own = (message, self.client.user_id, emoji)
        for reaction, what in list(self.reactions.items()):
            if what == own:
                await self.op_retract(reaction, to, room)

    async def op_retract(self, message, to=None, room=None):
        self.checked(await self.client.room_redact(self.target(to, room), message))

    async def op_typing(self, active, to=None, room=None):
        self.checked(await self.client.room_typing(self.target(to, room), active, 30000))

    async def op_mark_displayed(self, message, to=None, room=None):
        self.checked(await self.client.update_receipt_marker(self.target(to, room), message))

    async def op_history(self, to=None, room=None, limit=50):
        """The last messages of a talk or a room, oldest first, as the events they were."""
        room = self.target(to, room)
        # Not the library's room_messages, which must be given a token to begin at.
        path = f"v3/rooms/{quote(room)}/messages?dir=b&limit={limit}"
        chunk = (await (await self.request("GET", path)).json())["chunk"]
        found = [self.read(room, e) for e in reversed(chunk)]
        return {"events": [e for e in found if e]}

    # Files

    async def op_send_file(self, path, type, to=None, room=None, name=None):
        file = pathlib.Path(path)
        name, size = name or file.name, file.stat().st_size
        with file.open("rb") as f:
            response, _ = await self.client.upload(f, type, name, filesize=size)
        url = self.checked(response).content_uri
        family = type.split("/")[0]
        content = {
            "msgtype": f"m.{family}" if family in ("image", "audio", "video") else "m.file",
            "body": name, "filename": name, "url": url, "info": {"mimetype": type, "size": size},
        }
        return {"url": url, **await self.post(to, room, content)}

    async def op_download(self, url):
        """Fetches media as the logged-in user. spec: MX 1.19 CS §10.9"""
        mxc = urlparse(url)
        response = await self.request("GET", f"v1/media/download/{mxc.netloc}{mxc.path}")
        data = await response.read()
        return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "type": response.content_type}

    # Rooms

    async def op_create_room(self, alias, name=None, public=True, encrypted=False):
        state = []
        if encrypted:
            state.append({"type": "m.room.encryption", "state_key": "",
                          "content": {"algorithm": "m.megolm.v1.aes-sha2"}})
        response = self.checked(await self.client.room_create(
            alias=alias, name=name, initial_state=state,
            preset=nio.RoomPreset.public_chat if public else nio.RoomPreset.private_chat))
        return await self.shown(response.room_id)

    async def op_join(self, room, via=()):
        if not via:
            return await self.shown(self.checked(await self.client.join(room)).room_id)
        # The library cannot say which servers to ask about a room.
        servers = "&".join("server_name=" + quote(server) for server in via)
        response = await self.request("POST", f"v3/join/{quote(room)}?{servers}", {})
        return await self.shown((await response.json())["room_id"])

    async def shown(self, room):
        """Waits until a room is synchronized: before that the library sends nothing to it."""
        while room not in self.client.rooms:
            await self.client.synced.wait()
        return {"room": room}

    async def op_upgrade_room(self, room, version):
        response = await self.request("POST", f"v3/rooms/{quote(room)}/upgrade", {"new_version": version})
        return {"room": (await response.json())["replacement_room"]}

    async def op_leave(self, room):
        self.checked(await self.client.room_leave(room))

    async def op_invite(self, room, user):
        self.checked(await self.client.room_invite(room, user))

    async def op_kick(self, room, user, reason=None):
        self.checked(await self.client.room_kick(room, user, reason))

    async def op_ban(self, room, user, reason=None):
        self.checked(await self.client.room_ban(room, user, reason))

    async def op_unban(self, room, user):
        self.checked(await self.client.room_unban(room, user))

    async def op_set_topic(self, room, topic):
        self.checked(await self.client.update_room_topic(room, topic))

    async def op_members(self, room):
        response = self.checked(await self.client.joined_members(room))
        return {"members": [{"user": m.user_id, "nick": m.display_name} for m in response.members]}

    # What arrives

    def on_sync_ended(self, task):
        """Says what the library's loop failed of: it would end in silence, and the client be deaf."""
        if not task.cancelled() and task.exception():
            traceback.print_exception(task.exception(), file=sys.stderr)
            self.event("disconnected", condition=type(task.exception()).__name__, text=str(task.exception()))

    async def on_devices(self, response):
        self.queried.set()
        self.queried.clear()

    async def on_sync_error(self, response):
        self.event("error", condition=response.status_code, text=response.message)

    async def on_sync(self, response):
        for data in response.account_data_events:
            if getattr(data, "type", None) == "m.direct":
                self.directs = data.content
        for presence in response.presence_events:
            self.event("presence", **{"from": presence.user_id}, status=presence.status_msg,
                       show=SHOW.get(presence.presence, presence.presence))
        for room, info in response.rooms.invite.items():
            for e in info.invite_state:
                if isinstance(e, nio.InviteMemberEvent) and e.state_key == self.client.user_id:
                    self.on_invite(room, e)
        for room, info in {**response.rooms.leave, **response.rooms.join}.items():
            for e in info.timeline.events:
                self.on_event(room, e)
            for e in getattr(info, "ephemeral", []):
                self.on_ephemeral(room, e)
        self.first_sync = False

    def on_invite(self, room, e):
        if e.content.get("is_direct"):
            self.invites[e.sender] = room
            self.event("contact_request", **{"from": e.sender})
        else:
            self.event("invite", room=room, **{"from": e.sender})

    def on_event(self, room, e):
        fields = self.read(room, e.source)
        if fields is None:
            return
        if getattr(e, "decrypted", False):
            fields["encrypted"] = True
        if self.first_sync:
            fields["delayed"] = True
        self.event(fields.pop("event"), **fields)
        if fields.get("change") and "room" not in fields:
            self.tell_contact(room, fields["with"])

    def tell_contact(self, room, user):
        both = self.joined(room, user) and room in self.client.rooms
        self.event("contact", user=user, state="both" if both else "none")

    def on_ephemeral(self, room, e):
        where, own = self.where(room), self.client.user_id
        if isinstance(e, TypingNoticeEvent):
            before, now = self.typing.get(room, set()), set(e.users) - {own}
            for user in before ^ now:
                self.event("typing", **where, **{"from": user}, active=user in now)
            self.typing[room] = now
        elif isinstance(e, SendStatus):
            self.on_send_status(room, e.content)
        elif isinstance(e, ReceiptEvent):
            for r in e.receipts:
                if r.receipt_type == "m.read" and r.user_id != own:
                    self.event("receipt", **where, **{"from": r.user_id}, kind="displayed", message=r.event_id)

    def on_send_status(self, room, content):
        failed = content.get("status", "").startswith("FAIL")
        users = content.get("delivered_to_users") or []
        if failed or users:
            self.event("receipt", **self.where(room), **{"from": users[0] if users else None},
                       message=content.get("m.relates_to", {}).get("event_id"), text=content.get("message"),
                       kind="failed" if failed else "delivered", by="com.beeper.message_send_status")

    def where(self, room):
        """A room event's place: the room, or whom the talk is with."""
        for user, rooms in self.directs.items():
            if room in rooms:
                return {"with": user}
        return {"room": room}

    def read(self, room, e):
        """What a room event says, or None if it is none of the things that are tested."""
        content, kind = e.get("content", {}), e["type"]
        fields = {**self.where(room), "from": e["sender"]}
        if e["sender"] == self.client.user_id:
            fields["own"] = True
        relation = content.get("m.relates_to", {})
        if kind == "m.room.message" and relation.get("rel_type") == "m.replace":
            body = content["m.new_content"].get("body")
            return {"event": "edit", **fields, "message": relation["event_id"], "body": body}
        if kind == "m.room.message" and content:
            return {"event": "message", **fields, "message": e["event_id"], **self.read_body(content)}
        if kind == "m.reaction" and relation:
            self.reactions[e["event_id"]] = (relation["event_id"], e["sender"], relation["key"])
            return self.reaction(fields, relation["event_id"])
        if kind == "m.room.redaction":
            target = content.get("redacts") or e.get("redacts")
            if target in self.reactions:
                message, fields["from"], _ = self.reactions.pop(target)
                return self.reaction(fields, message)
            return {"event": "retraction", **fields, "message": target}
        if kind == "m.room.member":
            return self.read_member(fields, e, content)
        if kind == "m.room.topic":
            return {"event": "topic", **fields, "topic": content.get("topic", "")}
        if kind == "m.room.tombstone":
            return {"event": "moved", **fields, "into": content.get("replacement_room")}
        return None

    def reaction(self, fields, message):
        own = sorted(k for m, sender, k in self.reactions.values() if (m, sender) == (message, fields["from"]))
        return {"event": "reaction", **fields, "message": message, "reactions": own}

    def read_member(self, fields, e, content):
        user, membership = e["state_key"], content["membership"]
        before = e.get("unsigned", {}).get("prev_content", {}).get("membership")
        kicked = membership == "leave" and e["sender"] != user
        change = "kick" if kicked else membership
        return None if before == membership else {
            "event": "member", **fields, "user": user, "nick": content.get("displayname"), "change": change}

    @staticmethod
    def read_body(content):
        fields = {"body": content.get("body")}
        texts = {t["lang"]: t["body"] for t in content.get("m.text", []) if "lang" in t}
        if texts:
            fields["texts"] = texts
        if "formatted_body" in content:
            fields["html"] = content["formatted_body"]
        reply = content.get("m.relates_to", {}).get("m.in_reply_to")
        if reply:
            fields["reply_to"] = reply["event_id"]
        if "url" in content:
            info = content.get("info", {})
            fields["files"] = [{
                "url": content["url"], "name": content.get("filename", content.get("body")),
                "type": info.get("mimetype"), "size": info.get("size"),
                "kind": content["msgtype"].removeprefix("m."),
            }]
        return fields


async def main():
    await NioDriver().serve()


if __name__ == "__main__":
    asyncio.run(main())
